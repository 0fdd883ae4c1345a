"""The commands of qtctl that fill the lake and make features of it."""

from __future__ import annotations

import importlib.util
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from feature_store.errors import BadInputError
from flows.feature_commands import catalogue, check, labels
from flows.profile_command import profile
from flows.query_commands import export, query
from flows.running import FAILED, UNUSABLE, AsJson, app, execute
from flows.settings import FlowSettings, TimeframeName, VenueName
from flows.skew_command import skew

# Prefect itself is imported where a flow runs, so its absence is said here: qtctl then does not offer these commands.
if importlib.util.find_spec("prefect") is None:
    raise ModuleNotFoundError("Flows need Prefect: pip install 'quantum-trader[pipeline]'", name="prefect")


ingest = app(
    "ingest",
    "qtctl ingest",
    "qtctl ingest --symbols BTC/USDT:USDT,ETH/USDT:USDT --days 90",
    "qtctl ingest --venue binanceusdm --days 30 --json | jq add",
    "qtctl ingest --timeframe 1m --derive 5m,15m,1h,4h,1d",
    "qtctl ingest --from ~/freqtrade/user_data/data",
    "qtctl ingest --from minutes.csv --venue binance --symbols BTC/USDT --timeframe 1m --derive 5m,1h",
    "qtctl ingest --from btc.csv --columns ts=unix:s --venue binance --symbols BTC/USDT --timeframe 5m",
    "qtctl ingest --from https://data.binance.vision --symbols BTC/USDT --days 90",
    "qtctl ingest --sources rss,coingecko",
    "qtctl ingest --report --days 90 --json | jq '.[] | select(.verdict != \"sound\")'",
    "qtctl ingest --kinds funding,mark,open-interest --days 30",
    "qtctl ingest --kinds funding,trades --from ~/binance-archive",
    statuses={
        0: "the lake holds every closed candle of the venue, or of what was imported",
        1: f"{FAILED}, or fewer candles came than were asked for; the other series are stored",
        2: UNUSABLE,
        3: "some files to import were refused or are not there, with their reasons; the others are imported",
    },
)
features = app(
    "features",
    "qtctl features",
    "qtctl features --symbols BTC/USDT:USDT --timeframe 5m",
    "qtctl features catalogue",
    "qtctl features check my_features.py",
    "qtctl features labels --days 90",
    "qtctl features profile --month 2026-03",
    "qtctl features query 'SELECT symbol, max(rsi_14) FROM features GROUP BY symbol'",
    "qtctl features export /tmp/features",
    "qtctl features skew",
    statuses={
        0: "the features of every chosen series are stored",
        1: "failed: Prefect does not answer, or a stored file is damaged",
        2: "bad usage: an unknown option or setting, or a series of which no candle is stored",
    },
)
for _command in (catalogue, check, export, labels, profile, query, skew):
    features.command(_command)
SourceKind = Literal["binance-archive", "freqtrade", "recording"]


@ingest.default
def _ingest(
    *,
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
    days: int | None = None,
    derive: str | None = None,
    repair: Annotated[bool, Parameter(negative=())] = False,
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    kind: SourceKind | None = None,
    columns: str | None = None,
    sources: str | None = None,
    kinds: str | None = None,
    report: Annotated[bool, Parameter(negative=())] = False,
    json: AsJson = False,
) -> int:
    """
    Bring the candle lake up to the venue's present: closed candles only, and only what is new.

    With --from, import candles that you already have instead; this needs no stack. With --kinds, it is other
    market data instead of candles, of the venue or at --from.

    All symbols and timeframes of a folder are taken, unless options choose; --venue renames where they come from.

    Args:
        venue: sandbox, binanceusdm, binance or bitfinex; by default QT_VENUE, else sandbox.
        symbols: Unified names separated by commas, or all; by default QT_SYMBOLS, else all.
        timeframe: Duration of a candle; by default QT_TIMEFRAME, else 5m.
        days: How far back a series goes that is not stored yet; by default QT_DAYS, else 30.
        derive: Longer candles to make of minutes, as 5m,1h; needs --timeframe 1m, or --from; by default QT_DERIVE.
        repair: Set damaged files aside and ask again for all of the days; with --from, differences as corrections.
        from_: File, folder or address to import from; by default nothing is imported, the venue is asked.
        kind: What lies there: binance-archive, freqtrade or recording; by default recognised by the files.
        columns: Which column of a CSV or Parquet file is which, as ts=Date:iso,open=Open; by default named as ours.
        sources: Ask coingecko, rss, social (by commas) instead of a venue; by default the venue is asked.
        kinds: Of funding, mark, index, open-interest, filters, trades, book, or all; by default candles are fetched.
        report: Fetch nothing; say what is absent and suspect in what is stored. By default candles are fetched.
        json: Print the result, or the error, as one JSON document and nothing else.
    """
    chosen: dict[str, Any] = {"venue": venue, "symbols": symbols, "timeframe": timeframe, "days": days}
    chosen["derive"] = derive
    if report:
        from flows.reporting import report_in_terminal  # noqa: PLC0415 - --help stays quick

        return report_in_terminal(FlowSettings.of(**chosen), as_json=json)
    if sources is not None:
        from flows.asking import ask, require_usable, told  # noqa: PLC0415 - --help stays quick

        require_usable(sources)
        return execute(lambda: ask(sources), chosen, as_json=json, sentence=told)
    if kinds is not None and derive is not None:
        raise BadInputError("--derive makes longer candles of minutes; it does not go with --kinds")
    if from_ is not None:
        from flows.importing import Wanted, import_in_terminal  # noqa: PLC0415 - --help stays quick

        wanted = Wanted(from_, kind, venue, symbols, timeframe, columns, again=repair, derive=derive)
        if kinds is not None:
            from flows.importing_kinds import import_kinds_in_terminal  # noqa: PLC0415 - as above

            return import_kinds_in_terminal(wanted, kinds, FlowSettings.of(**chosen), as_json=json)
        return import_in_terminal(wanted, FlowSettings.of(**chosen), as_json=json)
    if kind is not None or columns is not None:
        raise BadInputError("--kind and --columns say what is at --from; name that too")
    if kinds is not None:
        places = {name: chosen[name] for name in ("venue", "symbols", "timeframe", "days")}
        return _market_data(places | {"kinds": kinds, "repair": repair}, as_json=json)
    from flows.venue import chosen_derivations  # noqa: PLC0415 - --help stays quick

    # What cannot be used is told before a server is needed.
    chosen_derivations(FlowSettings.of(**chosen), derive)

    def run() -> Any:
        import asyncio  # noqa: PLC0415 - Prefect reads its environment at import, and --help stays quick

        from flows.ingest import ingest as flow  # noqa: PLC0415 - as above

        return asyncio.run(flow(**chosen, repair=repair))

    return execute(run, chosen, as_json=json, sentence=_ingested)


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

    return execute(run, chosen, as_json=json, sentence=lambda done: f"Stored features of {len(done)} series.")


def _market_data(chosen: dict[str, Any], *, as_json: bool) -> int:
    from feature_store.sources.kind_offers import named_kinds  # noqa: PLC0415 - --help stays quick

    named_kinds(chosen["kinds"])

    def run() -> Any:
        import asyncio  # noqa: PLC0415 - see _ingest

        from flows.market_data import market_data as flow  # noqa: PLC0415 - see _ingest

        return asyncio.run(flow(**chosen))

    places = {name: value for name, value in chosen.items() if name not in ("kinds", "repair")}
    return execute(run, places, as_json=as_json, sentence=_stored)


def _ingested(added: dict[str, int]) -> str:
    return f"Ingested {sum(added.values())} new candles of {len(added)} series."


def _stored(added: dict[str, int]) -> str:
    return f"Stored {', '.join(f'{rows} new rows of {kind}' for kind, rows in added.items())}."
