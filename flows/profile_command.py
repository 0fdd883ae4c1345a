"""`qtctl features profile`: what features are like, month by month, without a flow run."""

from __future__ import annotations

import json as json_codec
import sys
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from feature_store.terminal import OK, help_end
from flows.settings import FlowSettings, TimeframeName, VenueName

profile = App(
    name="profile",
    help_format="plaintext",
    help_epilogue=help_end(
        "qtctl features profile",
        "qtctl features profile --symbols BTC/USDT:USDT --month 2026-03",
        "qtctl features profile --inputs --json | jq '.[] | select(.missing > 0)'",
        statuses={
            0: "the profiles are up to date and shown",
            1: "failed: a stored file is damaged",
            2: "bad usage: an unknown option or setting, or a series or month that is not stored",
        },
        as_json=True,
    ),
)
_COLUMNS = ("name", "missing", "zero", "mean", "std", "5 %", "median", "95 %")
_WIDTH = 110
Flag = Annotated[bool, Parameter(negative=())]


@profile.default
def _profile(
    *,
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
    month: str | None = None,
    inputs: Flag = False,
    json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """
    Measure the features of every stored month that is new or changed, and show what they are like.

    Several months and series are summed up: counts, range, missing and zero exactly, quantiles to 0.8 % of the value.

    Args:
        venue: sandbox, binanceusdm, binance or bitfinex; by default QT_VENUE, else sandbox.
        symbols: Unified names separated by commas, or all that are stored; by default QT_SYMBOLS, else all.
        timeframe: Duration of a candle; by default QT_TIMEFRAME, else 5m.
        month: The month to show, as 2026-03; by default all of them together.
        inputs: Show what models read; by default the 49 features.
        json: Print the figures, or the error, as one JSON document and nothing else; by default a table.
    """
    from flows.frames import stored_series  # noqa: PLC0415 - as above
    from flows.profiling import document, rows, summary, update  # noqa: PLC0415 - as above

    settings = FlowSettings.of(venue=venue, symbols=symbols, timeframe=timeframe)
    series = stored_series(settings.candle_lake(), settings)
    for one in track(series, "Profiles", console=Console(file=sys.stderr), disable=json, transient=True):
        update(settings, one)
    found = summary(settings, series, month, "input" if inputs else "feature")
    if json:
        print(json_codec.dumps(document(found)))  # noqa: T201 - a command speaks to the person who typed it
        return OK
    title = f"{len(series)} series of {settings.venue}, {month or 'all months'}, {found[0].candles} candles"
    table = Table(*(Column(name, no_wrap=True) for name in _COLUMNS), title=title, box=None)
    for row in rows(found):
        table.add_row(*(str(row[name]) for name in _COLUMNS))
    # Where there is less room, lines are broken by the terminal and numbers stay whole.
    Console(width=max(Console().width, _WIDTH)).print(table)
    return OK
