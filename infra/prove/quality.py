"""Recorded candles: what is absent and why, and which prices are suspect, against DuckDB and what is known."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from feature_store.absences import WITNESSES, Absence, Cause, Span, absences, gaps_in, joined, span_of
from feature_store.audit import AbsentRows, absent_rows, candle_files, rows_apart
from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.lake import CandleLake
from feature_store.sources.recorded import import_file, read_file, unified_name
from feature_store.store import FeatureStore
from feature_store.ticks import SuspectTick, suspect_ticks
from infra.prove.proof import Proof, Size

BAR = (
    "absent rows and outages equal an independent SQL scan, every known outage and bad tick that is recorded is found, "
    "no row is invented or lost; in full size at least one of each is recorded"
)
CI_BYTES = 1_600_000
"""In CI: recordings of an hour, and others up to this size."""
_HORIZON = 12

Spans = dict[Series, tuple[Span, ...]]
Market = tuple[str, Timeframe]


@dataclass(frozen=True, slots=True)
class KnownTick:
    """A bad tick that whoever recorded the candles named; the rule that flags ticks does not know of it."""

    series: Series
    start_ms: int
    end_ms: int
    low: float = float("inf")
    """The tick is there where a low is at most this."""

    def recorded_in(self, block: CandleBlock) -> tuple[int, ...]:
        """Return the open times of the candles that are meant."""
        part = block.since(self.start_ms).until(self.end_ms)
        return tuple(part.open_time_ms[part.values[:, 2] <= self.low].tolist())


def _day_ms(year: int, month: int, day: int, minute: int = 0) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp() * 1000) + minute * 60_000


_MINUTE_OF_PERL = 100
KNOWN = (
    KnownTick(Series("binance", "LINK/USDT", Timeframe.H1), _day_ms(2020, 3, 12), _day_ms(2020, 3, 14), low=0.0001),
    KnownTick(Series("bitfinex", "BTC/USD", Timeframe.H1), _day_ms(2013, 4, 1), _day_ms(2013, 5, 1), low=0.01),
    KnownTick(
        Series("binance", "PERL/USDT", Timeframe.M5),
        _day_ms(2022, 12, 28, _MINUTE_OF_PERL),
        _day_ms(2022, 12, 28, _MINUTE_OF_PERL + 5),
    ),
)
KNOWN_OUTAGES = (("binance", Span(_day_ms(2023, 3, 24), _day_ms(2023, 3, 25))),)


@dataclass(slots=True)
class Tally:
    """What was found in all markets together."""

    rows: int
    absent: int = 0
    outages: int = 0
    differing: int = 0
    suspects: int = 0
    known: int = 0
    known_flagged: int = 0
    named: int = 0
    known_outages: int = 0
    known_outages_found: int = 0
    frame_rows: int = 0
    frame_rows_invented: int = 0


def prove(size: Size) -> Proof:
    """Import MARKET_DATA_DIR into a lake of its own, in CI its smaller recordings, and judge what came of it."""
    folder = os.environ.get("MARKET_DATA_DIR")
    if not folder:
        figure = "MARKET_DATA_DIR names no folder: set it to a folder of recorded candles"
        return Proof(name="quality", figure=figure, bar=BAR, holds=False)
    paths = recordings(Path(folder), size)
    if not paths:
        figure = f"{folder} holds no Parquet file of recorded candles"
        return Proof(name="quality", figure=figure, bar=BAR, holds=False)
    with tempfile.TemporaryDirectory(prefix="prove-quality-") as home:
        return judged(paths, Path(home), size=size)


def recordings(folder: Path, size: Size) -> list[Path]:
    """Return the recordings to judge: all of them, or the small ones."""
    paths = candle_files(folder)
    small = [path for path in paths if path.stat().st_size <= CI_BYTES or "_1h_" in path.name]
    return small if size is Size.CI and small else paths


def judged(paths: Sequence[Path], home: Path, *, size: Size) -> Proof:
    """Import recordings, and hold every report against the independent scan; in full size, also what is known."""
    lake = CandleLake(home / "lake")
    spans: Spans = {}
    for path in paths:
        import_file(lake, path)
        for recorded, block in read_file(path):
            one = Series(*unified_name(recorded.venue, recorded.symbol), recorded.timeframe)
            spans[one] = joined((*spans.get(one, ()), *span_of(one, block)))
    expected = absent_rows(paths)
    apart = rows_apart(lake, paths)
    tally = Tally(rows=sum(lake.coverage(one).candles for one in lake.series()))
    markets = sorted({(one.venue, one.timeframe) for one in spans})
    details = [_judge_market(lake, market, spans, expected, tally) for market in markets]
    details += _known_lines(tally, lake)
    details += [f"{one} is among the recordings: that it is found is not proved here" for one in _unproved(tally)]
    others = tally.suspects - tally.known_flagged
    figure = (
        f"{tally.rows} candles of {len(spans)} series: {tally.absent} absent, {tally.outages} of them in outages, "
        f"{tally.differing} differ from SQL; known outages found {tally.known_outages_found} of {tally.known_outages}, "
        f"known bad ticks flagged {tally.known_flagged} of {tally.known}; "
        f"{others} others flagged ({1e6 * others / max(tally.rows, 1):.1f} in a million); "
        f"{apart.invented + tally.frame_rows_invented} invented, {apart.lost} lost"
    )
    holds = (
        tally.rows > 0
        and tally.differing == 0
        and tally.known_flagged == tally.known
        and tally.known_outages_found == tally.known_outages
        and (size is Size.CI or not _unproved(tally))
        and apart.invented == apart.lost == tally.frame_rows_invented == 0
    )
    return Proof(name="quality", figure=figure, bar=BAR, holds=holds, details=tuple(details))


def _judge_market(
    lake: CandleLake, market: Market, spans: Spans, expected: Mapping[Series, AbsentRows], tally: Tally
) -> str:
    members = [one for one in spans if (one.venue, one.timeframe) == market]
    blocks = lake.read_many(members)
    found = absences(blocks, spans)
    for one in members:
        sql = expected.get(one, AbsentRows((), ()))
        reported = sum(gap.candles for gap in gaps_in(one, blocks[one], spans[one]))
        tally.differing += len(set(_times(found[one], one)) ^ set(sql.open_time_ms))
        tally.differing += len(set(_times(found[one], one, Cause.OUTAGE)) ^ set(sql.outage_ms))
        tally.differing += abs(reported - len(sql.open_time_ms))
        tally.absent += len(sql.open_time_ms)
        tally.outages += len(sql.outage_ms)
        ticks = suspect_ticks(blocks[one], one.timeframe)
        tally.suspects += len(ticks)
        _count_known(one, blocks[one], ticks, tally)
    _count_outages(market, spans, found, tally)
    _count_frame(lake, members[0], blocks[members[0]], tally)
    return _line(market, len(members), found)


def _times(found: Sequence[Absence], series: Series, cause: Cause | None = None) -> list[int]:
    step = series.timeframe.milliseconds
    return [time for one in found if cause in (None, one.cause) for time in range(one.start_ms, one.end_ms, step)]


def _count_outages(market: Market, spans: Spans, found: Mapping[Series, Sequence[Absence]], tally: Tally) -> None:
    """Count the known outages of a venue that at least two of its series were recorded through, and those found."""
    for venue, day in KNOWN_OUTAGES:
        through = [one for one in found if any(_covers(span, day) for span in spans[one])]
        if venue != market[0] or len(through) < WITNESSES:
            continue
        tally.known_outages += 1
        tally.known_outages_found += any(
            one.cause is Cause.OUTAGE and day.start_ms <= one.start_ms < day.end_ms
            for series in through
            for one in found[series]
        )


def _covers(span: Span, day: Span) -> bool:
    return span.start_ms <= day.start_ms and day.end_ms <= span.end_ms


def _count_known(series: Series, block: CandleBlock, ticks: Sequence[SuspectTick], tally: Tally) -> None:
    flagged = {tick.open_time_ms for tick in ticks}
    for tick in KNOWN:
        if tick.series == series:
            times = tick.recorded_in(block)
            tally.named += bool(times)
            tally.known += len(times)
            tally.known_flagged += len(flagged & set(times))


def _count_frame(lake: CandleLake, series: Series, block: CandleBlock, tally: Tally) -> None:
    """Count the rows that a training frame shows and no candle stands behind."""
    end_ms = (block.last_open_time_ms or 0) + series.timeframe.milliseconds
    with tempfile.TemporaryDirectory() as features:
        frame = FeatureStore(Path(features)).training_frame(lake, [series], 0, end_ms, _HORIZON)[series]
    close = dict(zip(block.open_time_ms.tolist(), block.values[:, 3].tolist(), strict=True))
    shown = zip(frame.open_time_ms.tolist(), frame.close.tolist(), strict=True)
    tally.frame_rows += len(frame)
    tally.frame_rows_invented += sum(close.get(time) != price for time, price in shown)


def _line(market: Market, members: int, found: Mapping[Series, Sequence[Absence]]) -> str:
    outages = {(one.start_ms, one.end_ms) for every in found.values() for one in every if one.cause is Cause.OUTAGE}
    unexplained = sum(one.candles for every in found.values() for one in every if one.cause is Cause.UNEXPLAINED)
    longest = max(outages, key=lambda span: span[1] - span[0], default=None)
    text = f"{market[0]} {market[1]}, {members} series: {len(outages)} outages, {unexplained} candles unexplained"
    if longest is None:
        return text
    begin = datetime.fromtimestamp(longest[0] / 1000, UTC)
    return f"{text}; the longest outage {begin:%Y-%m-%d %H:%M} for {(longest[1] - longest[0]) // 60_000} min"


def _unproved(tally: Tally) -> list[str]:
    """Return what of the known things was not there to be found."""
    there = {"no known bad tick": tally.known, "no known outage": tally.known_outages}
    return [what for what, count in there.items() if not count]


def _known_lines(tally: Tally, lake: CandleLake) -> list[str]:
    stored = set(lake.series())
    lines = [
        f"{tick.series.symbol} {tick.series.timeframe}: its known bad tick is not among the recordings judged here"
        for tick in KNOWN
        if tick.series not in stored
    ]
    return [
        *lines,
        f"{tally.named} of {len(KNOWN)} named bad ticks recorded; {tally.frame_rows} rows of frames compared",
    ]
