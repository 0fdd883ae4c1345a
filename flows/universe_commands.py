"""`qtctl universe`: which symbols were in, at any past moment, and why; no server is needed."""

from __future__ import annotations

import importlib.util
import json as json_codec
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from feature_store.errors import BadInputError, UnknownSymbolError
from feature_store.terminal import OK, help_end
from flows.settings import FlowSettings, TimeframeName, VenueName

# The lake is read through DuckDB: where that is missing, qtctl does not offer these commands.
if importlib.util.find_spec("duckdb") is None:
    raise ModuleNotFoundError("Universes need DuckDB: pip install 'quantum-trader[pipeline]'", name="duckdb")

_NONE = "failed: no universe was known at that moment, or a stored file is damaged"
_UNUSABLE = "bad usage: an unknown option, or a moment, symbol or rule that cannot be used, or no candle is stored"
_WIDTH = 130
AsJson = Annotated[bool, Parameter(name="--json", negative=())]
Flag = Annotated[bool, Parameter(negative=())]

universe = App(
    name="universe",
    help=(
        "Choose the symbols to trade week by week from what was known then, and say why each is in or out.\n\n"
        "The rules are in the TOML file that QT_UNIVERSE names; without it, those of the policy (`qtctl policy show "
        "--section universe`), by default layer-1 and layer-2 coins and megacaps that trade enough, 100 at most. A "
        "file changes what it names: in its table [universe] mode (l1l2-top, all or list), symbols, max_symbols and "
        "lists (a file of lists beside it); in [universe.filters] min_volume_24h, min_liquidity (the quote that "
        "changes hands in the week's median hour), min_age_days, max_silence_minutes, "
        "blacklist, whitelist and quotes."
    ),
    help_format="plaintext",
    help_epilogue=help_end(
        "qtctl universe build",
        "qtctl universe why BTC/USDT:USDT --at 2026-03-01",
        statuses={0: "answered", 1: _NONE, 2: _UNUSABLE},
        as_json=True,
    ),
)


def _part(name: str, *examples: str, done: str) -> App:
    end = help_end(*examples, statuses={0: done, 1: _NONE, 2: _UNUSABLE}, as_json=True)
    return App(name=name, help_format="plaintext", help_epilogue=end)


_show = _part(
    "show",
    "qtctl universe show",
    "qtctl universe show --at 2026-03-01T12:00 --json | jq '.symbols'",
    done="shown",
)
_build = _part(
    "build",
    "qtctl universe build",
    "qtctl universe build --again --json | jq '.symbols | length'",
    done="every week that the lake reaches is stored",
)
_history = _part("history", "qtctl universe history", "qtctl universe history --json | jq '.[-1].left'", done="shown")
_why = _part(
    "why",
    "qtctl universe why BTC/USDT:USDT",
    "qtctl universe why CVC/USDT --venue binance --at 2022-12-20",
    done="told, whether the symbol is in or out",
)
for _one in (_show, _build, _history, _why):
    universe.command(_one)


@_show.default
def _shown(
    *,
    at: str | None = None,
    venue: VenueName | None = None,
    timeframe: TimeframeName | None = None,
    json: AsJson = False,
) -> int:
    """
    Show the universe in force at a moment: every known symbol, by rank or with the filter that refused it.

    Args:
        at: Moment in UTC, as 2026-03-01 or 2026-03-01T12:00; by default the newest stored candle's.
        venue: sandbox, binanceusdm, binance or bitfinex; by default QT_VENUE, else sandbox.
        timeframe: Duration of the candles it was made from; by default QT_TIMEFRAME, else 5m.
        json: Print the universe, or the error, as one JSON document and nothing else; by default a table.
    """
    from flows.universe_text import summary, verdict_rows  # noqa: PLC0415 - --help stays quick

    stored = _stored(FlowSettings.of(venue=venue, timeframe=timeframe), at)
    if json:
        return _printed(_document(stored))
    _print_table(verdict_rows(stored.universe))
    print(summary(stored))  # noqa: T201 - a command speaks to the person who typed it
    return OK


@_build.default
def _built(
    *,
    again: Flag = False,
    venue: VenueName | None = None,
    timeframe: TimeframeName | None = None,
    json: AsJson = False,
) -> int:
    """
    Choose the universe of every week that the candle lake reaches and that is not stored yet.

    Args:
        again: Judge stored weeks once more, too, and keep what differs as a new revision; by default they stay.
        venue: sandbox, binanceusdm, binance or bitfinex; by default QT_VENUE, else sandbox.
        timeframe: Duration of the candles to sum; by default QT_TIMEFRAME, else 5m.
        json: Print the result, or the error, as one JSON document and nothing else.
    """
    from flows.universe_text import lacking, summary  # noqa: PLC0415 - --help stays quick
    from flows.universes import build_universes, newest_universe, without_candles  # noqa: PLC0415 - as above

    settings = FlowSettings.of(venue=venue, timeframe=timeframe)
    columns = (TextColumn("universe"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=Console(file=sys.stderr), disable=json) as bar:
        task = bar.add_task("reading candles", total=1.0)
        built = build_universes(
            settings, again=again, progress=lambda doing, share: bar.update(task, completed=share, description=doing)
        )
        bar.update(task, completed=1.0)
    newest = built[-1] if built else newest_universe(settings)
    absent = without_candles(settings)
    if json:
        return _printed({"weeks": len(built), "without candles": absent} | _document(newest))
    print(f"Judged {len(built)} weeks. {summary(newest)}.")  # noqa: T201 - as above
    if absent:
        print(f"{lacking(absent)}.")  # noqa: T201 - as above
    return OK


@_history.default
def _past(*, venue: VenueName | None = None, timeframe: TimeframeName | None = None, json: AsJson = False) -> int:
    """
    List every stored week and revision, oldest first: how many symbols were in, who joined and who left.

    Args:
        venue: sandbox, binanceusdm, binance or bitfinex; by default QT_VENUE, else sandbox.
        timeframe: Duration of the candles they were made from; by default QT_TIMEFRAME, else 5m.
        json: Print the list, or the error, as one JSON document and nothing else; by default a table.
    """
    from flows.universe_text import changes  # noqa: PLC0415 - --help stays quick
    from flows.universes import NoUniverseError, stored_universes  # noqa: PLC0415 - as above

    settings = FlowSettings.of(venue=venue, timeframe=timeframe)
    rows = changes(stored_universes(settings))
    if not rows:
        raise NoUniverseError(
            f"No universe of {settings.venue} {settings.timeframe} by these rules is stored; run 'qtctl universe build'"
        )
    if json:
        return _printed(rows)
    _print_table([row | {name: ", ".join(row[name]) or "-" for name in ("joined", "left")} for row in rows])
    return OK


@_why.default
def _reason(
    symbol: str,
    /,
    *,
    at: str | None = None,
    venue: VenueName | None = None,
    timeframe: TimeframeName | None = None,
    json: AsJson = False,
) -> int:
    """
    Tell why a symbol was in the universe at a moment, or which filter refused it with which numbers.

    Args:
        symbol: The unified name, such as BTC/USDT:USDT.
        at: Moment in UTC, as 2026-03-01 or 2026-03-01T12:00; by default the newest stored candle's.
        venue: sandbox, binanceusdm, binance or bitfinex; by default QT_VENUE, else sandbox.
        timeframe: Duration of the candles it was made from; by default QT_TIMEFRAME, else 5m.
        json: Print the verdict, or the error, as one JSON document and nothing else.
    """
    import msgspec  # noqa: PLC0415 - --help stays quick

    from flows.universe_text import why  # noqa: PLC0415 - as above

    settings = FlowSettings.of(venue=venue, timeframe=timeframe)
    stored = _stored(settings, at)
    verdict = stored.universe.verdict(symbol)
    if verdict is None:
        known = [one.symbol for one in stored.universe.verdicts]
        raise UnknownSymbolError(symbol, f"the universe of {settings.venue}", known)
    if json:
        return _printed(msgspec.to_builtins(verdict) | {"included": verdict.is_included})
    print(why(stored, verdict))  # noqa: T201 - as above
    return OK


def _stored(settings: FlowSettings, at: str | None) -> Any:
    from flows.universes import newest_universe, universe_at  # noqa: PLC0415 - --help stays quick

    return newest_universe(settings) if at is None else universe_at(settings, _moment_ms(at))


def _moment_ms(text: str) -> int:
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        raise BadInputError(
            f"--at needs a moment in UTC such as 2026-03-01 or 2026-03-01T12:00, was {text!r}"
        ) from None
    return int((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp() * 1000)


def _document(stored: Any) -> dict[str, Any]:
    import msgspec  # noqa: PLC0415 - --help stays quick

    document: dict[str, Any] = {"symbols": list(stored.universe.symbols)} | msgspec.to_builtins(stored)
    return document


def _print_table(rows: list[dict[str, Any]]) -> None:
    table = Table(*rows[0]) if rows else Table()
    for row in rows:
        table.add_row(*map(str, row.values()))
    console = Console()
    # A pipe has no width of its own.
    Console(width=None if console.is_terminal else _WIDTH).print(table)


def _printed(document: Any) -> int:
    print(json_codec.dumps(document))  # noqa: T201 - a command speaks to the person who typed it
    return OK
