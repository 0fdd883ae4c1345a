"""`qtctl lake`: what is stored, whether it is whole, and putting it in order; no server is needed."""

from __future__ import annotations

import json as json_codec
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from feature_store.errors import BadInputError
from feature_store.lake_text import as_json, bar, chosen, has_news, named, opened, repaired, table, tell_repair
from feature_store.terminal import FAILED, OK, help_end

if TYPE_CHECKING:
    from feature_store.beside import Flaw, Mended
    from feature_store.inspection import Finding
    from feature_store.upkeep import Repaired

Kinds = Annotated[str | None, Parameter(name="--kinds")]
AsJson = Annotated[bool, Parameter(name="--json", negative=())]
_UNUSABLE = "bad usage: an unknown option, or a series that is not stored, or a QT_LAKE that cannot be used"
_NOT_READ = "failed: a file is damaged or may not be read, or the object store of QT_LAKE does not answer"

lake = App(
    name="lake",
    help="Look at the lake of candles and other market data, check it, and put it in order.",
    help_format="plaintext",
    help_epilogue=help_end(
        "qtctl lake ls", "qtctl lake check", "qtctl lake repair", statuses={0: "done", 1: _NOT_READ, 2: _UNUSABLE}
    ),
)


def _end(*examples: str, statuses: dict[int, str]) -> str:
    return help_end(*examples, statuses={2: _UNUSABLE, **statuses}, as_json=True)


@lake.command(
    name="ls",
    help_epilogue=_end(
        "qtctl lake ls",
        "qtctl lake ls --kinds funding,trades,observations",
        "qtctl lake ls --symbols BTC/USDT:USDT --json | jq '.[0].missing'",
        statuses={0: "shown", 1: "shown, but some files are damaged or may not be read"},
    ),
)
def list_series(
    *,
    kinds: Kinds = None,
    venue: str | None = None,
    symbols: str | None = None,
    timeframe: str | None = None,
    json: AsJson = False,
) -> int:
    """
    Show what is stored: one line for each series, and for each kind of market data and source beside them.

    Args:
        kinds: Candles, observations, and what 'qtctl ingest --kinds' takes, by commas; by default all.
        venue: Only this venue's, or this source's of observations; by default all.
        symbols: Unified names separated by commas; by default all.
        timeframe: Duration of a candle; by default all.
        json: Print the result, or the error, as one JSON document and nothing else.
    """
    store, _ = opened()
    from feature_store.beside import listed_beside  # noqa: PLC0415 - --help stays quick
    from feature_store.listing import listed  # noqa: PLC0415 - as above

    series, beside = chosen(store, kinds, venue, symbols, timeframe)
    total = len(series) + len(beside)
    with bar("read", quiet=json) as show:
        every = [listed(store, one) for number, one in enumerate(series) if show(number, total, one.symbol)]
        every += [listed_beside(one) for at, one in enumerate(beside, len(series)) if show(at, total, one.name)]
    rows = [row for row in every if row.files]
    if json:
        print(json_codec.dumps([row.as_json() for row in rows]))  # noqa: T201 - a command speaks to who typed it
    elif rows:
        table(
            (
                "kind",
                "venue",
                "timeframe",
                "symbol",
                "files",
                "rows",
                "size",
                "first",
                "last",
                "missing",
                "corrections",
                "",
            ),
            [row.cells() for row in rows],
        )
    else:
        print(f"Nothing is stored in {store.place}; run: qtctl ingest")  # noqa: T201 - as above
    return FAILED if any(row.damaged for row in rows) else OK


@lake.command(
    name="check",
    help_epilogue=_end(
        "qtctl lake check",
        "qtctl lake check --kinds book,observations",
        "qtctl lake check --timeframe 1h --derived",
        "qtctl lake check --symbols BTC/USDT:USDT --json | jq '.findings[].remedy'",
        statuses={0: "whole: nothing is to be done", 1: "something is wrong; each line says what to do"},
    ),
)
def check(
    *,
    kinds: Kinds = None,
    venue: str | None = None,
    symbols: str | None = None,
    timeframe: str | None = None,
    derived: Annotated[bool, Parameter(negative=())] = False,
    json: AsJson = False,
) -> int:
    """
    Read every file and say what is wrong: damage, disorder, other months' or series' candles, leftovers of the killed.

    Market data beside candles and what other sources said are read alike, and what was made of the candles (features,
    their state). Nothing is changed.

    Args:
        kinds: Candles, observations, and what 'qtctl ingest --kinds' takes, by commas; by default all.
        venue: Only this venue's, or this source's of observations; by default all.
        symbols: Unified names separated by commas; by default all.
        timeframe: Duration of a candle; by default all.
        derived: Derive longer candles from their stored minutes again, and compare; by default they are only read.
        json: Print the result, or the error, as one JSON document and nothing else.
    """
    from feature_store.beside import inspect_beside  # noqa: PLC0415 - --help stays quick
    from feature_store.inspection import inspect, inspect_derived  # noqa: PLC0415 - as above

    candles, features = opened()
    series, beside = chosen(candles, kinds, venue, symbols, timeframe)
    total = len(series) + len(beside)
    found: list[Finding | Flaw] = []
    with bar("check", quiet=json) as show:
        for number, one in enumerate(series):
            show(number, total, one.symbol)
            found += inspect(candles, features, one)
            found += inspect_derived(candles, one) if derived else ()
        for number, other in enumerate(beside, len(series)):
            show(number, total, f"{other.name} {other.subject.symbol}")
            found += inspect_beside(other)
    problems = [finding for finding in found if finding.is_problem]
    if json:
        counts = {"series": len(series), "beside": len(beside)}
        shown = {**counts, "whole": not problems, "findings": [as_json(one) for one in found]}
        print(json_codec.dumps(shown))  # noqa: T201 - a command speaks to who typed it
        return FAILED if problems else OK
    for finding in found:
        wrong = as_json(finding)["kind"]
        print(f"{finding.place}\n  {wrong}: {finding.found}; {finding.remedy}")  # noqa: T201 - as above
    said = f"{len(problems)} files need something done" if problems else "Whole"
    print(f"{said}: {len(series)} series and {len(beside)} beside them in {candles.place}.")  # noqa: T201 - as above
    return FAILED if problems else OK


@lake.command(
    name="compact",
    help_epilogue=_end(
        "qtctl lake compact",
        "qtctl lake compact --drop-revisions-older-than 365",
        statuses={0: "every month is one file in one piece", 1: _NOT_READ},
    ),
)
def compact_files(
    *,
    venue: str | None = None,
    symbols: str | None = None,
    timeframe: str | None = None,
    drop_revisions_older_than: int | None = None,
    everything: Annotated[bool, Parameter(name="--all", negative=())] = False,
    json: AsJson = False,
) -> int:
    """
    Write months anew that are not one piece: one row group, zstd, statistics; take files that are no month into theirs.

    No candle changes, and no revision is dropped unless asked for. Only candles are touched: files of other market data
    and of other sources are in one piece as they are, and keep all of their revisions.

    Args:
        venue: Only this venue's; by default all.
        symbols: Unified names separated by commas; by default all.
        timeframe: Duration of a candle; by default all.
        drop_revisions_older_than: Forget what was corrected more than so many days ago; by default all is kept.
        everything: Write all months anew, also those that are in one piece.
        json: Print the result, or the error, as one JSON document and nothing else.
    """
    from feature_store import clock  # noqa: PLC0415 - --help stays quick
    from feature_store.upkeep import DAY_MS, put_together  # noqa: PLC0415 - as above

    days = drop_revisions_older_than
    if days is not None and days < 0:
        raise BadInputError(f"--drop-revisions-older-than takes days from 0 on, was {days}")
    candles, _ = opened()
    series, _ = chosen(candles, "candles", venue, symbols, timeframe)
    before_ms = None if days is None else clock.utc_now_ms() - days * DAY_MS
    months = rows = saved = absorbed = 0
    refused: list[str] = []
    with bar("compact", quiet=json) as show:
        for number, one in enumerate(series):
            show(number, len(series), one.symbol)
            done = put_together(candles, one, forget_before_ms=before_ms, everything=everything)
            months += len(done.months)
            rows += sum(month.rows_dropped for month in done.months)
            saved += sum(month.bytes_before - month.bytes_after for month in done.months)
            absorbed += done.absorbed
            refused += done.refused
    if json:
        shown = {"months": months, "revisions_dropped": rows, "bytes_saved": saved, "rows_taken_in": absorbed}
        print(json_codec.dumps({**shown, "refused": refused}))  # noqa: T201 - a command speaks to who typed it
    else:
        print(  # noqa: T201 - as above
            f"Wrote {months} months anew, {saved} bytes smaller; dropped {rows} revisions, took in {absorbed} rows."
        )
        for reason in refused:
            print(reason, file=sys.stderr)  # noqa: T201 - as above
    return FAILED if refused else OK


@lake.command(
    name="repair",
    help_epilogue=_end(
        "qtctl lake repair",
        "qtctl lake repair --json | jq '.[].to_fetch'",
        statuses={0: "nothing damaged is left where it is read", 1: "something is left that only you can mend"},
    ),
)
def repair_files(
    *,
    kinds: Kinds = None,
    venue: str | None = None,
    symbols: str | None = None,
    timeframe: str | None = None,
    json: AsJson = False,
) -> int:
    """
    Set damaged files aside under names that say why, remove what killed writers left, and say what to fetch again.

    Nothing that can be read is lost: a file that is set aside keeps its content. Of filters, books and other sources
    nobody tells the past again.

    Args:
        kinds: Candles, observations, and what 'qtctl ingest --kinds' takes, by commas; by default all.
        venue: Only this venue's, or this source's of observations; by default all.
        symbols: Unified names separated by commas; by default all.
        timeframe: Duration of a candle; by default all.
        json: Print the result, or the error, as one JSON document and nothing else.
    """
    from feature_store.beside import mend  # noqa: PLC0415 - --help stays quick
    from feature_store.upkeep import repair  # noqa: PLC0415 - as above

    candles, features = opened()
    series, beside = chosen(candles, kinds, venue, symbols, timeframe)
    total = len(series) + len(beside)
    with bar("repair", quiet=json) as show:
        mended = [repair(candles, features, one) for at, one in enumerate(series) if show(at, total, one.symbol)]
        others = [mend(one) for at, one in enumerate(beside, len(series)) if show(at, total, one.name)]
    done: list[Repaired | Mended] = [*mended, *others]
    left = sum(len(one.left) for one in done)
    if json:
        print(json_codec.dumps([repaired(one) for one in done if has_news(one)]))  # noqa: T201 - as above
        return FAILED if left else OK
    for one in filter(has_news, done):
        tell_repair(one)
    aside = sum(len(one.set_aside) for one in done)
    print(f"Set aside {aside} files, removed {sum(one.swept for one in done)} leftovers, {left} left.")  # noqa: T201
    return FAILED if left else OK


@lake.command(
    name="retain",
    help_epilogue=_end(
        "qtctl lake retain --keep-days 365",
        "qtctl lake retain --keep-days 30 --kinds trades,book",
        "qtctl lake retain --keep-days 90 --timeframe 1m --json | jq '.[].months'",
        statuses={0: "older months are gone", 1: _NOT_READ},
    ),
)
def retain_months(
    *,
    keep_days: int | None = None,
    kinds: str = "candles",
    venue: str | None = None,
    symbols: str | None = None,
    timeframe: str | None = None,
    json: AsJson = False,
) -> int:
    """
    Remove files that lie wholly before the last days of their market: months of candles, or what --kinds names.

    The state of the features is stored first, so that those with an infinite memory keep their values. Days count back
    from the newest candle of the venue and timeframe, or the newest row of the kind and venue. Trades lie in hours,
    books in days, other kinds in months. Filters and what other sources said are never touched, nor is a kind that is
    not named.

    Args:
        keep_days: How many days stay, at least; by default nothing is removed, and the number asked for.
        kinds: Candles, trades, book, or others of 'qtctl ingest --kinds', by commas; by default candles.
        venue: Only this venue's; by default all.
        symbols: Unified names separated by commas; by default all.
        timeframe: Duration of a candle; by default all.
        json: Print the result, or the error, as one JSON document and nothing else.
    """
    from feature_store.beside import let_go  # noqa: PLC0415 - --help stays quick
    from feature_store.upkeep import retain  # noqa: PLC0415 - as above

    if keep_days is None or keep_days < 1:
        found = "nothing" if keep_days is None else keep_days
        raise BadInputError(f"Say how many days stay, from 1 on: --keep-days 365; found {found}")
    candles, features = opened()
    series, beside = chosen(candles, kinds, venue, symbols, timeframe)
    with bar("retain", quiet=json) as show:
        others = let_go(candles, beside, keep_days, show)
        done = retain(candles, features, series, keep_days, show)
    if json:
        shown = [{**named(one.series), "months": one.months, "candles": one.candles} for one in done]
        shown += [{**one.holding.named(), "files": one.files, "rows": one.rows} for one in others]
        print(json_codec.dumps(shown))  # noqa: T201 - a command speaks to who typed it
        return OK
    if series or not beside:
        months, gone = sum(len(one.months) for one in done), sum(one.candles for one in done)
        print(f"Removed {months} months of {len(done)} series, {gone} candles.")  # noqa: T201 - as above
    if beside:
        files, rows = sum(len(one.files) for one in others), sum(one.rows for one in others)
        print(f"Removed {files} files of market data beside candles, {rows} rows.")  # noqa: T201 - as above
    return OK
