"""`qtctl features query` and `qtctl features export`: features of the whole lake, for SQL and for other programs."""

from __future__ import annotations

import json as json_codec
import math
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from feature_store.errors import BadInputError
from feature_store.terminal import OK, help_end
from flows.settings import FlowSettings, TimeframeName, VenueName

if TYPE_CHECKING:
    import pyarrow as pa

AsJson = Annotated[bool, Parameter(name="--json", negative=())]
_MOST_SHOWN = 40
_STATUSES = {
    1: "failed: a file of candles is damaged",
    2: "bad usage: an unknown option or setting, nothing is stored, SQL that cannot run, or no place to write to",
}

query = App(
    name="query",
    help_format="plaintext",
    help_epilogue=help_end(
        "qtctl features query 'SELECT symbol, avg(rsi_14) FROM features GROUP BY symbol'",
        "qtctl features query \"SELECT * FROM features WHERE open_time >= '2026-03-01'\" --json | jq length",
        "qtctl features query \"COPY (SELECT * FROM features) TO 'march.parquet'\" --symbols BTC/USDT:USDT",
        statuses={0: "the rows are shown", **_STATUSES},
        as_json=True,
    ),
)
export = App(
    name="export",
    help_format="plaintext",
    help_epilogue=help_end(
        "qtctl features export /tmp/features",
        "qtctl features export /tmp/features --symbols BTC/USDT:USDT,ETH/USDT:USDT --timeframe 1h",
        statuses={0: "the files are written", **_STATUSES},
        as_json=True,
    ),
)


@query.default
def _query(
    sql: str,
    /,
    *,
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
    json: AsJson = False,
) -> int:
    """
    Ask the features of all stored candles in SQL; DuckDB answers, the kernel computes what it reads. No server needed.

    The table is called features: venue, symbol, timeframe, open_time and available_at (UTC), and the 49 of 'qtctl
    features catalogue', the candle's own prices among them; NULL during warm-up. Nothing is stored but what the SQL
    itself writes (COPY).

    Args:
        sql: Query in DuckDB's dialect.
        venue: sandbox, binanceusdm, binance or bitfinex; by default QT_VENUE, else sandbox.
        symbols: Unified names separated by commas, or all that are stored; by default QT_SYMBOLS, else all.
        timeframe: Duration of a candle; by default QT_TIMEFRAME, else 5m.
        json: Print the rows, or the error, as one JSON document and nothing else; by default a table of the first.
    """
    from feature_store.feature_query import FeatureTable, answer  # noqa: PLC0415 - --help stays quick
    from feature_store.lake_text import bar  # noqa: PLC0415 - as above
    from feature_store.store import FeatureStore  # noqa: PLC0415 - as above
    from flows.frames import stored_series  # noqa: PLC0415 - as above

    settings = FlowSettings.of(venue=venue, symbols=symbols, timeframe=timeframe)
    lake = settings.candle_lake()
    series = stored_series(lake, settings)
    with bar("query", quiet=json) as show:
        table = FeatureTable(
            lake,
            series,
            FeatureStore(settings.features).warmed,
            lambda one: show(series.index(one), len(series), one.symbol),
        )
        found = answer(sql, table)
    if json:
        rows = [{name: _plain(value) for name, value in row.items()} for row in found.to_pylist()]
        print(json_codec.dumps(rows))  # noqa: T201 - a command speaks to who typed it
    else:
        _show(found)
    return OK


@export.default
def _export(
    folder: Path,
    /,
    *,
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
    json: AsJson = False,
) -> int:
    """
    Write the features of all stored candles as Parquet, a file for each series, for other programs to read.

    The fastest way out: not compressed, and not kept in step with the lake afterwards, as what 'qtctl features' stores
    is. Two series at a time, in memory that does not grow with their number. No server needed.

    Args:
        folder: Where the files go; those of the same names are replaced.
        venue: sandbox, binanceusdm, binance or bitfinex; by default QT_VENUE, else sandbox.
        symbols: Unified names separated by commas, or all that are stored; by default QT_SYMBOLS, else all.
        timeframe: Duration of a candle; by default QT_TIMEFRAME, else 5m.
        json: Print what was written, or the error, as one JSON document and nothing else.
    """
    from feature_store.feature_stream import FeatureStream  # noqa: PLC0415 - --help stays quick
    from feature_store.lake_text import bar  # noqa: PLC0415 - as above
    from feature_store.store import FeatureStore  # noqa: PLC0415 - as above
    from flows.frames import stored_series  # noqa: PLC0415 - as above

    settings = FlowSettings.of(venue=venue, symbols=symbols, timeframe=timeframe)
    lake = settings.candle_lake()
    series = stored_series(lake, settings)
    stream = FeatureStream(lake, folder, warmed=FeatureStore(settings.features).warmed)
    try:
        with bar("export", quiet=json) as show:
            candles = stream.run(series, lambda one, _: show(series.index(one) + 1, len(series), one.symbol))
    except OSError as error:
        raise BadInputError(f"Cannot write into {folder} ({error.strerror}); name another folder") from error
    done = {"folder": str(folder), "files": len(series), "candles": candles}
    shown = json_codec.dumps(done) if json else f"Wrote {len(series)} files, {candles} candles, into {folder}."
    print(shown)  # noqa: T201 - see _query
    return OK


def _show(found: pa.Table) -> None:
    from feature_store.lake_text import table  # noqa: PLC0415 - --help stays quick

    rows = [tuple(_text(value) for value in row.values()) for row in found.slice(0, _MOST_SHOWN).to_pylist()]
    table(tuple(found.column_names), rows)
    if len(found) > _MOST_SHOWN:
        print(f"The first {_MOST_SHOWN} of {len(found)} rows; --json prints all, COPY writes a file.")  # noqa: T201


def _plain(value: Any) -> Any:
    """Return what JSON can say: moments as ISO 8601, and nothing for what is no number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat()
    return value if value is None or isinstance(value, int | str | bool) else str(value)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.8g}" if math.isfinite(value) else "-"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return "-" if value is None else str(value)
