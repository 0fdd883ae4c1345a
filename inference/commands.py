"""The worker's commands: run it, read its journal, look at its models."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from feature_store.terminal import help_end
from inference.domain.errors import SettingsError
from inference.settings import VENUES, Mode, Settings, load_settings, load_shadow_settings
from inference.telemetry import logs

if TYPE_CHECKING:
    from inference.telemetry.model_reference import Places

_NO_JOURNAL = "there is no journal, or it cannot be read"

worker = App(
    name="worker",
    help="""Follow closed candles and trade them with the champion.

Reads QT_VENUE_URL, QT_MLFLOW_URL, QT_API_KEY and QT_API_SECRET from the environment; options win over it.
QT_BIAS_MODE=enforce refuses entries on a side to which more than QT_BIAS_SHARE (0.7) of the signals of the newest
QT_BIAS_WINDOW (20) candles lean; by default that is observed only.
A model whose live opinions turn out to be poor is shrunk, stopped and left for the one before; QT_FALLBACK_MODE=observe
only tells of it, as in the sandbox, QT_FALLBACK_MODE=enforce does it there too.
Its rules come from the policy store of the home folder (`qtctl policy`). --policy, QT_POLICY_PROFILE and QT_BIAS_*
make the first version; after that a new version is taken at the next candle, and those are told of, not followed.
One worker trades an account: a second one ends with the name of the first, or waits with QT_LEASE_WAIT=true. Workers of
several homes share the lease that QT_LEASE_URL names; a worker that cannot renew it for QT_LEASE_SECONDS (10) sends
nothing more.
What it journals it tells on the event bus that QT_BUS names (redis://host:6379/0), by default a file of the home; with
QT_BUS_REQUIRED=true entries wait while that takes nothing for QT_BUS_LATE_SECONDS (10).
With --mode paper it takes the prices of a real venue (binanceusdm, bitfinex) and fills orders itself, for an account in
the home folder that begins with QT_PAPER_BALANCE (10000) USDT; it needs no keys and sends none.
Stops cleanly on SIGTERM and Ctrl-C, leaving every stop at the venue.""",
    help_format="plaintext",
    help_epilogue=help_end(
        "qtctl worker --venue-url http://127.0.0.1:9100 --bundle var/bundles/3f9a1c02",
        "qtctl worker --symbols BTC/USDT:USDT,ETH/USDT:USDT --policy policy.toml",
        "qtctl worker --mode paper --venue binanceusdm --symbols BTC/USDT:USDT,ETH/USDT:USDT",
        "qtctl worker --shadow --mlflow-url http://127.0.0.1:5000",
        "qtctl worker --log-format json --log-level warning",
        statuses={
            0: "stopped as asked, by SIGTERM or Ctrl-C",
            1: "failed: the venue, the journal, the clock or another worker of the account keeps it from trading",
            2: "bad usage: an unknown option, settings that contradict, or a policy that is unfit for --mode live",
            130: "interrupted by Ctrl-C before it had begun",
        },
    ),
)
audit = App(
    name="audit",
    help="Read the journal: is it whole, what happened, and why.",
    help_format="plaintext",
    help_epilogue=help_end(
        "qtctl audit verify",
        "qtctl audit why BTC/USDT:USDT",
        statuses={0: "answered", 1: "the journal is missing or damaged, or does not know what was asked"},
        as_json=True,
    ),
)
models = App(
    name="models",
    help="Look at model bundles: those that this worker keeps, and those of the registry.",
    help_format="plaintext",
    help_epilogue=help_end(
        "qtctl models ls",
        "qtctl models verify champion",
        "qtctl models diff previous champion",
        statuses={0: "answered", 1: "a bundle cannot be read or trusted"},
        as_json=True,
    ),
)

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON for machines.")]
Home = Annotated[
    Path | None,
    Parameter(name="--home", help="Folder of everything written; by default QUANTUM_HOME, else ./var."),
]
Journal = Annotated[Path | None, Parameter(help="Journal file; by default journal/journal.jsonl in the home folder.")]
Lines = Annotated[int, Parameter(help="How many entries.")]
Subject = Annotated[str, Parameter(help="A symbol (BTC/USDT:USDT) or a trace id, as the journal shows them.")]
Digest = Annotated[str, Parameter(help="The bundle's digest, or its first digits.")]
Reference = Annotated[
    str,
    Parameter(help="A version's number, an alias, a bundle's folder, or the first digits of a kept bundle's digest."),
]
_MODES = (
    "How real the money is: sandbox (the local exchange), paper (a real market, fills made here), testnet (the venue's"
    " test network, play money) or live; by default QT_MODE, else sandbox."
)
Mlflow = Annotated[
    str | None,
    Parameter(help="Address of MLflow; by default QT_MLFLOW_URL, else that of the stack in the home folder."),
]
_NOT_TRUSTED = "the bundle cannot be trusted, and the message names the file; or MLflow does not answer"
_NO_SUCH_BUNDLE = "bad usage: an unknown option, or a name that no bundle can have"


@worker.default
def run(
    *,
    venue_url: Annotated[str | None, Parameter(help="Address of the local exchange; by default QT_VENUE_URL.")] = None,
    mlflow_url: Annotated[str | None, Parameter(help="Address of MLflow; by default QT_MLFLOW_URL.")] = None,
    mode: Annotated[Mode | None, Parameter(help=_MODES)] = None,
    venue: Annotated[str | None, Parameter(help=f"{', '.join(VENUES)}; by default QT_VENUE, else sandbox.")] = None,
    symbols: Annotated[
        str | None, Parameter(help="Unified names joined by commas, or all; by default QT_SYMBOLS, else all.")
    ] = None,
    timeframe: Annotated[str | None, Parameter(help="Duration of a candle; by default QT_TIMEFRAME, else 5m.")] = None,
    policy: Annotated[
        Path | None,
        Parameter(help="TOML file whose rules a new policy store begins with; by default the built-in ones."),
    ] = None,
    bundle: Annotated[Path | None, Parameter(help="Folder of a bundle to trade; by default the champion.")] = None,
    shadow: Annotated[
        bool,
        Parameter(
            negative="", help="Trade nothing, need no keys: score the challenger beside the champion, journal it."
        ),
    ] = False,
    journal: Journal = None,
    home: Home = None,
    log_format: Annotated[Literal["console", "json"], Parameter(help="Form of log lines.")] = "console",
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Parameter(help="Least level shown.")] = "info",
) -> int:
    """Run the worker until it is stopped."""
    from inference.bootstrap.policy_parts import seed_of  # noqa: PLC0415 - only who runs it pays for its imports
    from inference.bootstrap.wiring import Order, run_worker  # noqa: PLC0415 - as above

    logs.configure(as_json=log_format == "json", level=log_level)
    chosen: dict[str, object] = {
        "venue_url": venue_url,
        "mlflow_url": mlflow_url,
        "mode": mode,
        "venue": venue,
        "symbols": symbols,
        "timeframe": timeframe,
        "home": home,
    }
    if shadow:
        return _shadow(chosen, policy, bundle=bundle, journal=journal)
    settings = load_settings(**chosen)
    order = Order(
        settings=settings, seed=seed_of(settings, policy), environment=os.environ, bundle=bundle, journal=journal
    )
    return asyncio.run(run_worker(order))


def _shadow(chosen: dict[str, object], policy: Path | None, *, bundle: Path | None, journal: Path | None) -> int:
    from inference.bootstrap.policy_parts import policy_beside  # noqa: PLC0415 - as above
    from inference.bootstrap.shadow_process import ShadowOrder, run_shadow  # noqa: PLC0415 - as above

    if bundle is not None or journal is not None:
        raise SettingsError(
            "--shadow follows the challenger in MLflow and keeps a journal of its own: leave out --bundle and --journal"
        )
    settings = load_shadow_settings(**chosen)
    order = ShadowOrder(settings=settings, policy=policy_beside(settings, policy), environment=os.environ)
    return asyncio.run(run_shadow(order))


@audit.command(
    help_epilogue=help_end(
        "qtctl audit verify",
        "qtctl audit verify --journal /backup/journal.jsonl --json",
        "qtctl audit verify --anchor /mnt/safe/journal.anchor",
        statuses={0: "whole", 1: "damaged, or an anchor vouches for more; or there is no journal, or no such anchor"},
        as_json=True,
    )
)
def verify(
    *,
    journal: Journal = None,
    home: Home = None,
    anchor: Annotated[
        Path | None, Parameter(help="An anchor to compare with; by default QT_JOURNAL_ANCHOR for the home's own.")
    ] = None,
    mlflow_url: Mlflow = None,
    json: Json = False,
) -> int:
    """
    Check that no entry of the journal was changed, removed, reordered or cut off.

    The home's own journal is also held against its anchors: the file that QT_JOURNAL_ANCHOR names, and what the flow
    anchor keeps in MLflow, where that answers. What was cut off below one is found, whatever the home says; where the
    home says that it was put back from a backup, what the file vouched for before is named until somebody deletes it.
    """
    from inference.telemetry import anchors, audit_commands  # noqa: PLC0415 - as above

    places = anchors.places_of(anchor, own=journal is None, home=home_of(home), mlflow_url=mlflow_url)
    return audit_commands.verify(journal_of(journal, home), as_json=json, places=places)


@audit.command(
    help_epilogue=help_end(
        "qtctl audit tail --lines 50",
        "qtctl audit tail --json | jq '.[].type'",
        statuses={0: "printed", 1: _NO_JOURNAL},
        as_json=True,
    )
)
def tail(*, journal: Journal = None, home: Home = None, lines: Lines = 20, json: Json = False) -> int:
    """Print the newest entries of the journal."""
    from inference.telemetry import audit_commands  # noqa: PLC0415 - as above

    return audit_commands.tail(journal_of(journal, home), lines=lines, as_json=json)


@audit.command(
    help_epilogue=help_end(
        "qtctl audit trades",
        "qtctl audit trades --json | jq .pnl",
        statuses={0: "printed", 1: _NO_JOURNAL},
        as_json=True,
    )
)
def trades(*, journal: Journal = None, home: Home = None, json: Json = False) -> int:
    """Print every trade with its result, and what they came to."""
    from inference.telemetry import audit_commands  # noqa: PLC0415 - as above

    return audit_commands.trades(journal_of(journal, home), as_json=json)


@audit.command(
    help_epilogue=help_end(
        "qtctl audit slippage",
        "qtctl audit slippage --json | jq '.rows[].mean_bp'",
        statuses={0: "printed", 1: _NO_JOURNAL},
        as_json=True,
    )
)
def slippage(*, journal: Journal = None, home: Home = None, json: Json = False) -> int:
    """Print what executions cost against the price known when their order was sent, by purpose and type."""
    from inference.telemetry import audit_commands, slippage_command  # noqa: PLC0415 - as above

    path = journal_of(journal, home)
    audit_commands.require(path)
    return slippage_command.slippage(path, as_json=json)


@audit.command(
    help_epilogue=help_end(
        "qtctl audit compliance --since 2026-03-01T00:00",
        "qtctl audit compliance --json | jq .refusals",
        statuses={
            0: "printed",
            1: "there is no journal, or it is damaged, which the report says",
            2: "bad usage, no such moment",
        },
        as_json=True,
    )
)
def compliance(
    *,
    since: Annotated[
        str | None, Parameter(help="Of entries at or after this moment (UTC, 2026-03-01T12:00); by default all.")
    ] = None,
    journal: Journal = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Report who allowed what, by which rules, what lists and limits refused, stops, corrections and anchors."""
    from inference.telemetry import audit_commands, compliance_command  # noqa: PLC0415 - as above

    path = journal_of(journal, home)
    audit_commands.require(path)
    return compliance_command.compliance(path, since=since, as_json=json)


@audit.command(
    help_epilogue=help_end(
        "qtctl audit why BTC/USDT:USDT",
        "qtctl audit why 6f0c52d1a7e34b18 --home var --json",
        statuses={0: "told", 1: "there is no journal, or it holds no decision on the subject"},
        as_json=True,
    )
)
def why(subject: Subject, /, *, journal: Journal = None, home: Home = None, json: Json = False) -> int:
    """Tell the story of the newest decision on a symbol, or of one trace, in words."""
    from inference.telemetry import audit_commands  # noqa: PLC0415 - as above

    return audit_commands.why(journal_of(journal, home), subject, as_json=json)


@models.command(
    name="ls",
    help_epilogue=help_end(
        "qtctl models ls",
        "qtctl models ls --home var --json",
        statuses={0: "listed; an unusable bundle is listed as such", 1: "the folder of bundles cannot be read"},
        as_json=True,
    ),
)
def list_models(*, home: Home = None, json: Json = False) -> int:
    """List the verified bundles that are kept, the one that traded last marked."""
    from inference.telemetry import model_commands  # noqa: PLC0415 - as above

    return model_commands.list_bundles(home_of(home) / "bundles", as_json=json)


@models.command(
    help_epilogue=help_end(
        "qtctl models versions",
        "qtctl models versions --json | jq '.[] | select(.is_active == 1) | .metrics'",
        statuses={0: "listed", 1: "MLflow does not answer, or nothing was ever registered"},
        as_json=True,
    ),
)
def versions(*, mlflow_url: Mlflow = None, home: Home = None, json: Json = False) -> int:
    """List the registered versions: which is active, which in shadow, their labels and verdicts."""
    from inference.telemetry import model_versions  # noqa: PLC0415 - as above

    return model_versions.list_versions(_places(mlflow_url, home), as_json=json)


@models.command(
    help_epilogue=help_end(
        "qtctl models show 3f9a1c02",
        "qtctl models show 3f9a1c02 --json | jq .metrics",
        statuses={
            0: "shown",
            1: "the bundle cannot be read",
            2: "bad usage: an unknown option, or no bundle or several have such a digest",
        },
        as_json=True,
    )
)
def show(digest: Digest, /, *, home: Home = None, json: Json = False) -> int:
    """Show what a kept bundle says of itself."""
    from inference.telemetry import model_commands  # noqa: PLC0415 - as above

    return model_commands.show(home_of(home) / "bundles", digest, as_json=json)


@models.command(
    name="verify",
    help_epilogue=help_end(
        "qtctl models verify champion",
        "qtctl models verify 3 --json | jq .data_fingerprint",
        "qtctl models verify var/bundles/3f9a1c02",
        statuses={0: "the worker would trade it", 1: _NOT_TRUSTED, 2: _NO_SUCH_BUNDLE},
        as_json=True,
    ),
)
def verify_bundle(bundle: Reference, /, *, mlflow_url: Mlflow = None, home: Home = None, json: Json = False) -> int:
    """Check a bundle's digests, fingerprint, files and golden outputs, as the worker does before it trades."""
    from inference.telemetry import model_judging  # noqa: PLC0415 - as above

    return model_judging.verify(bundle, _places(mlflow_url, home), as_json=json)


@models.command(
    help_epilogue=help_end(
        "qtctl models diff previous champion",
        "qtctl models diff 3 4 --json | jq '.changes[] | select(.section == \"members\")'",
        statuses={0: "compared, whatever differs", 1: _NOT_TRUSTED, 2: _NO_SUCH_BUNDLE},
        as_json=True,
    ),
)
def diff(
    before: Reference, after: Reference, /, *, mlflow_url: Mlflow = None, home: Home = None, json: Json = False
) -> int:
    """Show what changed between two bundles: data, windows, inputs, members, weights, thresholds, metrics."""
    from inference.telemetry import model_judging  # noqa: PLC0415 - as above

    return model_judging.diff(before, after, _places(mlflow_url, home), as_json=json)


@models.command(
    help_epilogue=help_end(
        "qtctl models card champion",
        "qtctl models card var/bundles/3f9a1c02 --json | jq -r .card",
        statuses={0: "written", 1: _NOT_TRUSTED, 2: _NO_SUCH_BUNDLE},
        as_json=True,
    ),
)
def card(bundle: Reference, /, *, mlflow_url: Mlflow = None, home: Home = None, json: Json = False) -> int:
    """Write a bundle's model card as Markdown: what it is, what it learned from, how it did, its limits."""
    from inference.telemetry import model_judging  # noqa: PLC0415 - as above

    return model_judging.card(bundle, _places(mlflow_url, home), as_json=json)


def _places(mlflow_url: str | None, home: Path | None) -> Places:
    from inference.telemetry.model_reference import Places  # noqa: PLC0415 - as above

    return Places.of(home=home, mlflow_url=mlflow_url)


def home_of(given: Path | None) -> Path:
    """Return the home that was named, or else the environment's."""
    # Reading needs no venue, so the settings' rules about modes do not apply.
    return given or Path(os.environ.get("QUANTUM_HOME") or str(Settings.model_fields["home"].default))


def journal_of(given: Path | None, home: Path | None) -> Path:
    """Return the journal that was named, else that of the home."""
    return given or home_of(home) / "journal" / "journal.jsonl"
