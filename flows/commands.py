"""The commands of qtctl that run flows: in this process, or as a run of their deployment."""

from __future__ import annotations

import importlib.util
import json as json_codec
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from feature_store.errors import QuantumError
from feature_store.terminal import OK, REFUSED, help_end
from flows.settings import FlowSettings, TimeframeName, TrainingSize, VenueName

# Prefect itself is imported where a flow runs, so its absence is said here: qtctl then does not offer these commands.
if importlib.util.find_spec("prefect") is None:
    raise ModuleNotFoundError("Flows need Prefect: pip install 'quantum-trader[pipeline]'", name="prefect")


_FAILED = "failed: Prefect, MLflow or the venue does not answer, or a stored file is damaged"
_UNUSABLE = "bad usage: an unknown option, or a venue, symbol, timeframe or setting that cannot be used"
_NO_VERSION = "failed: Prefect or MLflow does not answer, or there is no such version"
_REFUSED = "refused: the version did not pass the gates, and the champion stays"


def _app(name: str, *examples: str, statuses: dict[int, str]) -> App:
    return App(name=name, help_format="plaintext", help_epilogue=help_end(*examples, statuses=statuses, as_json=True))


ingest = _app(
    "ingest",
    "qtctl ingest",
    "qtctl ingest --symbols BTC/USDT:USDT,ETH/USDT:USDT --days 90",
    "qtctl ingest --venue binanceusdm --days 30 --json | jq add",
    statuses={0: "the lake holds every closed candle of the venue", 1: _FAILED, 2: _UNUSABLE},
)
features = _app(
    "features",
    "qtctl features",
    "qtctl features --symbols BTC/USDT:USDT --timeframe 5m",
    statuses={
        0: "the features of every chosen series are stored",
        1: "failed: Prefect does not answer, or a stored file is damaged",
        2: "bad usage: an unknown option or setting, or a series of which no candle is stored",
    },
)
train = _app(
    "train",
    "qtctl train",
    "qtctl train --size quick --days 14",
    statuses={
        0: "a candidate is registered as challenger",
        1: "failed: Prefect or MLflow does not answer, or a stored file is damaged",
        2: "bad usage: an unknown option or setting, or too few candles are stored",
    },
)
shadow = _app(
    "shadow",
    "qtctl shadow",
    "qtctl shadow 3 --json",
    statuses={0: "scored, whatever the score", 1: _NO_VERSION},
)
promote = _app(
    "promote",
    "qtctl promote",
    "qtctl promote 3 --json | jq .reasons",
    statuses={0: "promoted: the version is champion", 1: _NO_VERSION, 3: _REFUSED},
)
rollback = _app(
    "rollback",
    "qtctl rollback",
    "qtctl rollback --json | jq .version",
    statuses={
        0: "the previous version trades again",
        1: "failed: Prefect or MLflow does not answer, or none was replaced",
    },
)
retrain = _app(
    "retrain",
    "qtctl retrain",
    "qtctl retrain --deployment",
    "qtctl retrain --days 60 --size quick --json | jq .promoted",
    statuses={
        0: "a new version was promoted",
        1: "failed: a step, or with --deployment the run; the message is its own",
        2: _UNUSABLE,
        3: _REFUSED,
    },
)

AsJson = Annotated[bool, Parameter(name="--json", negative=())]


class OrchestratorUnavailableError(QuantumError):
    """No Prefect server answers, so no flow can run."""


@ingest.default
def _ingest(
    *,
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
    days: int | None = None,
    repair: Annotated[bool, Parameter(negative=())] = False,
    json: AsJson = False,
) -> int:
    """
    Bring the candle lake up to the venue's present: closed candles only, and only what is new.

    Args:
        venue: sandbox, binanceusdm, binance or bitfinex; by default QT_VENUE, else sandbox.
        symbols: Unified names separated by commas, or all; by default QT_SYMBOLS, else all.
        timeframe: Duration of a candle; by default QT_TIMEFRAME, else 5m.
        days: How far back a series goes that is not stored yet; by default QT_DAYS, else 30.
        repair: Set damaged files aside and fetch gaps again.
        json: Print the result, or the error, as one JSON document and nothing else.
    """
    chosen: dict[str, Any] = {"venue": venue, "symbols": symbols, "timeframe": timeframe, "days": days}

    def run() -> Any:
        import asyncio  # noqa: PLC0415 - Prefect reads its environment at import, and --help stays quick

        from flows.ingest import ingest as flow  # noqa: PLC0415 - as above

        return asyncio.run(flow(**chosen, repair=repair))

    return _execute(run, chosen, as_json=json, sentence=_ingested)


@features.default
def _features(
    *,
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
    json: AsJson = False,
) -> int:
    """
    Compute the 49 features of every stored candle and store them for audit.

    Args:
        venue: sandbox, binanceusdm, binance or bitfinex; by default QT_VENUE, else sandbox.
        symbols: Unified names separated by commas, or all that are stored; by default QT_SYMBOLS, else all.
        timeframe: Duration of a candle; by default QT_TIMEFRAME, else 5m.
        json: Print the result, or the error, as one JSON document and nothing else.
    """
    chosen: dict[str, Any] = {"venue": venue, "symbols": symbols, "timeframe": timeframe}

    def run() -> Any:
        from flows.features import features as flow  # noqa: PLC0415 - see _ingest

        return flow(**chosen)

    return _execute(run, chosen, as_json=json, sentence=lambda done: f"Stored features of {len(done)} series.")


@train.default
def _train(
    *,
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
    days: int | None = None,
    size: TrainingSize | None = None,
    json: AsJson = False,
) -> int:
    """
    Train a candidate from the candle lake, log it to MLflow and register it as challenger.

    Args:
        venue: sandbox, binanceusdm, binance or bitfinex; by default QT_VENUE, else sandbox.
        symbols: Unified names separated by commas, or all that are stored; by default QT_SYMBOLS, else all.
        timeframe: Duration of a candle; by default QT_TIMEFRAME, else 5m.
        days: How many days, counted back from the newest stored candle; by default QT_DAYS, else 30.
        size: full, quick or tiny (tiny only tries the machinery); by default QT_SIZE, else full.
        json: Print the result, or the error, as one JSON document and nothing else.
    """
    chosen: dict[str, Any] = {"venue": venue, "symbols": symbols, "timeframe": timeframe, "days": days, "size": size}

    def run() -> Any:
        from flows.train import train as flow  # noqa: PLC0415 - see _ingest

        return flow(**chosen)

    return _execute(run, chosen, as_json=json, sentence=_registered)


@shadow.default
def _shadow(version: str | None = None, *, json: AsJson = False) -> int:
    """
    Score a version on the candles that were locked away from its training, beside baselines and the champion.

    Args:
        version: Number of the version; by default the one that the alias challenger points at.
        json: Print the result, or the error, as one JSON document and nothing else.
    """

    def run() -> Any:
        from flows.shadow import shadow as flow  # noqa: PLC0415 - see _ingest

        return flow(version=version)

    return _execute(run, {}, as_json=json, sentence=lambda done: f"Scored in shadow: {len(done)} figures, see MLflow.")


@promote.default
def _promote(version: str | None = None, *, json: AsJson = False) -> int:
    """
    Judge a version by mlflow/gates.yaml and point the alias champion at it, or refuse it and say why.

    Args:
        version: Number of the version; by default the one that the alias challenger points at.
        json: Print the result, or the error, as one JSON document and nothing else.
    """

    def run() -> Any:
        from flows.promote import promote as flow  # noqa: PLC0415 - see _ingest

        return flow(version=version)

    return _execute(run, {}, as_json=json, sentence=_judged)


@rollback.default
def _rollback(*, json: AsJson = False) -> int:
    """
    Let the aliases champion and previous change places; the worker follows within one candle.

    Args:
        json: Print the result, or the error, as one JSON document and nothing else.
    """

    def run() -> Any:
        from flows.rollback import rollback as flow  # noqa: PLC0415 - see _ingest

        return flow()

    return _execute(
        run, {}, as_json=json, sentence=lambda done: f"Version {done.version} trades, {done.replaced} rests."
    )


@retrain.default
def _retrain(
    *,
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
    days: int | None = None,
    size: TrainingSize | None = None,
    deployment: Annotated[bool, Parameter(negative=())] = False,
    json: AsJson = False,
) -> int:
    """
    Make the next model: ingest, features, train, shadow, promote.

    Args:
        venue: sandbox, binanceusdm, binance or bitfinex; by default QT_VENUE, else sandbox.
        symbols: Unified names separated by commas, or all; by default QT_SYMBOLS, else all.
        timeframe: Duration of a candle; by default QT_TIMEFRAME, else 5m.
        days: How many days of candles to train and judge on; by default QT_DAYS, else 30.
        size: full, quick or tiny (tiny only tries the machinery); by default QT_SIZE, else full.
        deployment: Let the Prefect worker run it, and follow it here.
        json: Print the result, or the error, as one JSON document and nothing else.
    """
    chosen: dict[str, Any] = {"venue": venue, "symbols": symbols, "timeframe": timeframe, "days": days, "size": size}

    def run() -> Any:
        from flows.retrain import retrain as flow  # noqa: PLC0415 - see _ingest

        return flow(**chosen)

    def run_by_worker() -> Any:
        import asyncio  # noqa: PLC0415 - see _ingest

        from flows.following import run_and_follow  # noqa: PLC0415 - see _ingest
        from flows.venue import refuse_unlisted  # noqa: PLC0415 - see _ingest

        asyncio.run(refuse_unlisted(FlowSettings.of(**chosen)))
        return run_and_follow("retrain/retrain", {k: v for k, v in chosen.items() if v is not None}, quiet=json)

    if deployment:
        return _execute(run_by_worker, chosen, as_json=json, sentence=_judged, here=False)
    return _execute(run, chosen, as_json=json, sentence=_judged)


def _execute(
    run: Callable[[], Any],
    chosen: dict[str, Any],
    *,
    as_json: bool,
    sentence: Callable[[Any], str],
    here: bool = True,
) -> int:
    """Run a flow with what was chosen, here with its progress shown, and say what came of it: in a sentence or JSON."""
    # What cannot be used is told before there is a flow run to fail.
    _reach_prefect(FlowSettings.of(**chosen))
    from flows.following import shown_in_terminal  # noqa: PLC0415 - see _ingest

    with shown_in_terminal(quiet=as_json or not here):
        done = run()
    shown = json_codec.dumps(msgspec.to_builtins(done)) if as_json else sentence(done)
    print(shown)  # noqa: T201 - a command speaks to the person who typed it
    return REFUSED if getattr(done, "promoted", True) is False else OK


def _reach_prefect(settings: FlowSettings) -> None:
    """
    Point this process at the Prefect server that runs, before Prefect is imported.

    Raises:
        OrchestratorUnavailableError: None is known, or it does not answer.
    """
    url = os.environ.get("PREFECT_API_URL")
    if not url and (stack := settings.address("prefect-server")):
        url = f"{stack}/api"
    if not url:
        raise OrchestratorUnavailableError(
            "No Prefect server is known; start the stack with 'qtctl up', or set PREFECT_API_URL to a server's address"
        )
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):  # noqa: S310 - the address is the operator's own
            pass
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise OrchestratorUnavailableError(
            f"Prefect at {url} does not answer ({error}); start it with 'qtctl up', or set PREFECT_API_URL"
        ) from error
    os.environ["PREFECT_API_URL"] = url
    os.environ.setdefault("PREFECT_HOME", str(settings.home / "prefect"))
    os.environ.setdefault("DO_NOT_TRACK", "1")
    # The server keeps every line; the terminal shows progress, and at the end one sentence.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


def _ingested(added: dict[str, int]) -> str:
    return f"Ingested {sum(added.values())} new candles of {len(added)} series."


def _registered(done: Any) -> str:
    return f"Registered version {done.version}, run {done.run_id}."


def _judged(done: Any) -> str:
    if done.promoted:
        return f"Version {done.version} was promoted: it is champion and trades."
    return "\n".join([f"Version {done.version} was refused:", *(f"  {reason}" for reason in done.reasons)])
