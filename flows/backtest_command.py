"""`qtctl backtest`: a version traded on stored candles, and sweeps over the rules it is traded by."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from feature_store.errors import BadInputError
from flows.running import AsJson, app, execute
from flows.settings import FlowSettings, TimeframeName, VenueName

# See flows/commands.py.
if importlib.util.find_spec("prefect") is None:
    raise ModuleNotFoundError("Flows need Prefect: pip install 'quantum-trader[pipeline]'", name="prefect")

backtest = app(
    "backtest",
    "qtctl backtest",
    "qtctl backtest champion --start 2026-02-01 --end 2026-02-15",
    "qtctl backtest 3 --policy policy.toml --balance 50000",
    "qtctl backtest --sweep stop_atr_multiple=2,3,4 --sweep max_holding_candles=6,12,24",
    "qtctl backtest --policy cautious.toml --sweep breaker_losses=3,5,none --engine word",
    "qtctl backtest --bundle ./bundle --json | jq .figures.sharpe",
    statuses={
        0: "traded, whatever came of it",
        1: "failed: Prefect or MLflow does not answer, or a stored file is damaged",
        2: "bad usage: an unknown version, rule or option, or a window without candles",
    },
)


@backtest.default
def _backtest(
    version: str | None = None,
    *,
    bundle: Path | None = None,
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
    start: str | None = None,
    end: str | None = None,
    policy: Path | None = None,
    balance: str = "10000",
    spread_bps: str = "1",
    maker_fee: str = "0.0002",
    sweep: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    engine: Literal["fast", "word"] = "fast",
    out: Path | None = None,
    json: AsJson = False,
) -> int:
    """
    Trade a version on stored candles, by the worker's own decisions at the sandbox exchange's matching engine.

    Prints a table per symbol, one per exit reason, and totals with their bounds: inside a candle nobody knows whether
    stop or target came first. Entries are worked as the policy's entry_style and entry_patience_seconds say: what rests
    fills at its own price once a price of the candle's path lies beyond it, never where the price only touches it, and
    is looked at each ten seconds of market time; both bounds begin after the entry. Trades, equity, the report and a
    tear sheet are written to a folder and logged to MLflow.

    Args:
        version: Number, or champion, challenger, previous; by default the champion, else the challenger.
        bundle: Folder of a bundle to trade instead of a registered version; by default MLflow is asked.
        venue: sandbox, binanceusdm, binance or bitfinex; by default QT_VENUE, else sandbox.
        symbols: Unified names separated by commas; by default QT_SYMBOLS, else those that the model was trained on.
        timeframe: Duration of a candle, the model's own; by default QT_TIMEFRAME, else 5m.
        start: First date or moment of UTC; by default from where the model has seen nothing.
        end: Last date or moment, exclusive; by default the newest stored candle.
        policy: TOML file with trading rules, which may name an exit profile of the home; by default the built-in ones.
        balance: What the account holds at the start, in quote currency.
        spread_bps: Spread between bid and ask in basis points; whoever takes pays the policy's taker_fee.
        maker_fee: Fee of what rested before it filled, as a fraction of notional.
        sweep: A rule and its values, as stop_atr_multiple=2,3,4; every combination of all of them is tried.
        engine: What walks sweeps and bounds, by default fast: it refuses by name what needs memory of past trades;
            word is the worker's own decisions, every rule, in minutes for each set.
        out: Folder for what is written; by default one of its own in QUANTUM_HOME/backtests.
        json: Print the result, or the error, as one JSON document and nothing else.
    """
    if version is not None and bundle is not None:
        raise BadInputError("Name a version or --bundle, not both")
    from flows.backtest_asked import Asked  # noqa: PLC0415 - --help stays quick

    paths = {"policy": policy, "bundle": bundle, "out": out}
    given: dict[str, Any] = {
        name: None if one is None else str(one.expanduser().resolve()) for name, one in paths.items()
    }
    window: dict[str, Any] = {
        "balance": balance, "spread_bps": spread_bps, "maker_fee": maker_fee, "sweep": sweep,
        "start": start, "end": end, "engine": engine,
    }  # fmt: skip
    chosen: dict[str, Any] = {"venue": venue, "symbols": symbols, "timeframe": timeframe}
    # What cannot be used is told before a server is needed.
    Asked.of(FlowSettings.of(**chosen), policy=given["policy"], **window)

    def run() -> Any:
        from flows.backtest import backtest as flow  # noqa: PLC0415 - see flows/commands.py

        return flow(version=version, **given, **window, **chosen)

    from flows.backtest_report import terminal_text  # noqa: PLC0415 - as above

    return execute(run, chosen, as_json=json, sentence=terminal_text)
