"""The worker's commands: run it, read its journal, look at its models."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from inference.settings import Mode, Settings, load_settings
from inference.telemetry import logs

worker = App(
    name="worker",
    help="""Follow closed candles and trade them with the champion.

Reads QT_VENUE_URL, QT_MLFLOW_URL, QT_API_KEY and QT_API_SECRET from the environment; options win over it.
Stops cleanly on SIGTERM and Ctrl-C, leaving every stop at the venue. Exit status: 0 stopped, 1 failed, 2 bad settings.

For example:

    qtctl worker --venue-url http://127.0.0.1:9100 --mlflow-url http://127.0.0.1:5000

    qtctl worker --venue-url http://127.0.0.1:9100 --bundle var/bundles/3f… --symbols BTC/USDT:USDT,ETH/USDT:USDT
""",
)
audit = App(
    name="audit",
    help="""Read the journal: is it whole, what happened, and why.

For example:

    qtctl audit verify

    qtctl audit why BTC/USDT:USDT
""",
)
models = App(
    name="models",
    help="""Look at the model bundles that this worker keeps.

For example:

    qtctl models ls

    qtctl models verify var/bundles/3f…
""",
)

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON for machines.")]
Home = Annotated[Path | None, Parameter(name="--home", help="Folder of everything written (QUANTUM_HOME).")]


@worker.default
def run(
    *,
    venue_url: Annotated[str | None, Parameter(help="Address of the local exchange (QT_VENUE_URL).")] = None,
    mlflow_url: Annotated[str | None, Parameter(help="Address of MLflow (QT_MLFLOW_URL).")] = None,
    mode: Annotated[Mode | None, Parameter(help="How real the money is (QT_MODE).")] = None,
    venue: Annotated[str | None, Parameter(help="Venue to trade at (QT_VENUE).")] = None,
    symbols: Annotated[str | None, Parameter(help="Unified names joined by commas, or all (QT_SYMBOLS).")] = None,
    timeframe: Annotated[str | None, Parameter(help="Duration of a candle (QT_TIMEFRAME).")] = None,
    policy: Annotated[Path | None, Parameter(help="TOML file with trading rules; defaults otherwise.")] = None,
    bundle: Annotated[Path | None, Parameter(help="Trade the bundle in this folder instead of the champion.")] = None,
    journal: Annotated[Path | None, Parameter(help="Journal file; in the home folder otherwise.")] = None,
    home: Home = None,
    log_format: Annotated[Literal["console", "json"], Parameter(help="Form of log lines.")] = "console",
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Parameter(help="Least level shown.")] = "info",
) -> int:
    """Run the worker until it is stopped."""
    from inference.bootstrap.policy_file import read_policy  # noqa: PLC0415 - only who runs it pays for its imports
    from inference.bootstrap.wiring import Order, run_worker  # noqa: PLC0415 - as above

    logs.configure(as_json=log_format == "json", level=log_level)
    settings = load_settings(
        venue_url=venue_url,
        mlflow_url=mlflow_url,
        mode=mode,
        venue=venue,
        symbols=symbols,
        timeframe=timeframe,
        home=home,
    )
    order = Order(settings=settings, policy=read_policy(policy), environment=os.environ, bundle=bundle, journal=journal)
    return asyncio.run(run_worker(order))


@audit.command
def verify(*, journal: Path | None = None, home: Home = None, json: Json = False) -> int:
    """Check that no entry of the journal was changed, removed, reordered or cut off."""
    from inference.telemetry import audit_commands  # noqa: PLC0415 - as above

    return audit_commands.verify(_journal(journal, home), as_json=json)


@audit.command
def tail(*, journal: Path | None = None, home: Home = None, lines: int = 20, json: Json = False) -> int:
    """Print the newest entries of the journal."""
    from inference.telemetry import audit_commands  # noqa: PLC0415 - as above

    return audit_commands.tail(_journal(journal, home), lines=lines, as_json=json)


@audit.command
def trades(*, journal: Path | None = None, home: Home = None, json: Json = False) -> int:
    """Print every trade with its result, and what they came to."""
    from inference.telemetry import audit_commands  # noqa: PLC0415 - as above

    return audit_commands.trades(_journal(journal, home), as_json=json)


@audit.command
def why(subject: str, /, *, journal: Path | None = None, home: Home = None, json: Json = False) -> int:
    """
    Tell the story of the newest decision on a symbol, or of one trace, in words.

    Args:
        subject: A symbol (BTC/USDT:USDT) or a trace id, as the journal shows them.
        journal: Journal file; in the home folder otherwise.
        home: Folder of everything written (QUANTUM_HOME).
        json: Print JSON for machines.
    """
    from inference.telemetry import audit_commands  # noqa: PLC0415 - as above

    return audit_commands.why(_journal(journal, home), subject, as_json=json)


@models.command(name="ls")
def list_models(*, home: Home = None, json: Json = False) -> int:
    """List the verified bundles that are kept, the one that traded last marked."""
    from inference.telemetry import model_commands  # noqa: PLC0415 - as above

    return model_commands.list_bundles(_home(home) / "bundles", as_json=json)


@models.command
def show(digest: str, /, *, home: Home = None, json: Json = False) -> int:
    """
    Show what a kept bundle says of itself.

    Args:
        digest: The bundle's digest, or its first digits.
        home: Folder of everything written (QUANTUM_HOME).
        json: Print JSON for machines.
    """
    from inference.telemetry import model_commands  # noqa: PLC0415 - as above

    return model_commands.show(_home(home) / "bundles", digest, as_json=json)


@models.command(name="verify")
def verify_bundle(path: Path, /, *, json: Json = False) -> int:
    """
    Check a bundle's digests, feature fingerprint and golden outputs, as the worker does before it trades.

    Args:
        path: The bundle's folder.
        json: Print JSON for machines.
    """
    from inference.telemetry import model_commands  # noqa: PLC0415 - as above

    return model_commands.verify(path, as_json=json)


def _home(given: Path | None) -> Path:
    # Reading needs no venue, so the settings' rules about modes do not apply.
    return given or Path(os.environ.get("QUANTUM_HOME") or str(Settings.model_fields["home"].default))


def _journal(given: Path | None, home: Path | None) -> Path:
    return given or _home(home) / "journal" / "journal.jsonl"
