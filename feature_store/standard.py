"""Whether a series is good enough to learn from, and the figures that decide it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from feature_store.absences import (
    WITNESSES,
    Absence,
    Cause,
    Span,
    absences,
    candles_in_each,
    candles_within,
    joined,
    span_of,
)
from feature_store.candle import CandleBlock, Series
from feature_store.ticks import SuspectTick, suspect_ticks

if TYPE_CHECKING:
    import numpy.typing as npt

MOST_UNEXPLAINED = 0.2
"""Share of candles that may be absent without an outage: beyond it most windows of features straddle a hole."""
MOST_SUSPECT = 0.001
"""Share of candles that may be suspect: a hundred times what recorded markets show, so the source is at fault."""
FEW_SUSPECT = 3
"""So many suspect candles are forgiven in any series, however short."""
MOST_UNCOVERED = 0.05
"""
Share of the candles asked for that may be absent at the ends of a series for no known reason.

Less than for holes: what is learned is cut in time, so that an end that is absent takes its part of one window, and the
newest twentieth is as much as a model is judged on in the end. The open day and a run that is under way stay below it.
"""
FEW_UNCOVERED = 2
"""So many are forgiven in any series: the first may have opened before, the last may not be served yet."""


@dataclass(frozen=True, slots=True)
class Uncovered:
    """
    Candles that were asked for and lie before the first or after the last one that is there, for no known reason.

    `late` are those before the first one where a listing is not known: perhaps it did not trade yet.
    """

    before: int = 0
    after: int = 0
    late: int = 0


@dataclass(frozen=True, slots=True)
class Doubt:
    """
    Of what is absent, what the venue has not answered for until it has said often enough that it does not have it.

    A page of candles with some on both sides of a hole is the venue's answer on the hole, as where nobody traded. What
    is left to doubt are the ends of a series, and holes that no page reaches across.

    Args:
        ends: Candles at the ends that are absent, and that the venue had the time to confirm.
        page_ms: How long a page of candles is; no longer hole is taken for the venue's answer.
        until_ms: What opens later is too young: the venue had no time to confirm it.
    """

    ends: int
    page_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class SeriesQuality:
    """
    What is absent from a series within its listing, and which of its candles are suspect.

    `expected` counts from its first to its last candle, and what is uncovered. `unconfirmed` are the absent ones that
    the venue has not answered for; see `Doubt`.
    """

    series: Series
    expected: int
    found: int
    absent: tuple[Absence, ...]
    suspects: tuple[SuspectTick, ...]
    uncovered: Uncovered = Uncovered()
    unconfirmed: int = 0

    @property
    def outage(self) -> int:
        """Candles that the whole venue lacks."""
        return self._absent(Cause.OUTAGE)

    @property
    def unexplained(self) -> int:
        """Candles that are absent for want of trades, or for a reason that is not known."""
        return self._absent(Cause.UNEXPLAINED)

    @property
    def faults(self) -> tuple[str, ...]:
        """Why the series should not be learned from, a sentence each; none, if it is good enough."""
        sentences = []
        short = self.uncovered.before + self.uncovered.after
        if short > forgiven(self.expected):
            ends = {"before the first": self.uncovered.before, "after the last": self.uncovered.after}
            where = " and ".join(f"{count} {end} that is stored" for end, count in ends.items() if count)
            sentences.append(
                f"{self.series.symbol} covers {self.expected - short} of {self.expected} candles asked for; nothing is "
                f"known that explains why {where} are absent; ingest more with 'qtctl ingest --days', or ask for fewer "
                "with --days"
            )
        if self.unexplained > MOST_UNEXPLAINED * self.expected:
            sentences.append(
                f"{self.series.symbol} lacks {self.unexplained} of {self.expected} candles without an outage of the "
                f"venue, more than {MOST_UNEXPLAINED:.0%}; fetch them again with 'qtctl ingest --repair'"
            )
        if len(self.suspects) > max(FEW_SUSPECT, MOST_SUSPECT * self.found):
            first = self.suspects[0]
            sentences.append(
                f"{self.series.symbol} has {len(self.suspects)} suspect prices in {self.found} candles (the first at "
                f"{first.open_time_ms} ms: {first.fault}, {first.usual_ranges:.0f} usual ranges), more than "
                f"{MOST_SUSPECT:.1%}; compare them with another source"
            )
        return tuple(sentences)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What should be known of the series although it is good enough, a sentence each."""
        if not self.found and self.expected > forgiven(self.expected) and self.shortfall is None:
            return (f"{self.series.symbol} has none of {self.expected} candles asked for; perhaps it is too young",)
        if self.uncovered.late <= forgiven(self.expected + self.uncovered.late):
            return ()
        late = f"{self.series.symbol} begins {self.uncovered.late} candles later than asked for"
        return (f"{late}; when it was listed is not known",)

    @property
    def shortfall(self) -> str | None:
        """
        Say that a venue gave fewer candles than were asked for and has not confirmed it; None where it did.

        A late beginning of a series whose listing is not known is none, nor is one without any candle: nobody can say
        how many there should be.
        """
        if self.unconfirmed <= forgiven(self.expected):
            return None
        return (
            f"{self.series.symbol} has {self.found} of {self.expected} candles asked for, and the venue has not "
            f"confirmed of {self.unconfirmed} that it has none"
        )

    def _absent(self, cause: Cause) -> int:
        return sum(one.candles for one in self.absent if one.cause is cause)


def qualities(
    blocks: Mapping[Series, CandleBlock],
    listed: Mapping[Series, Sequence[Span]] | None = None,
    *,
    confirmed: Mapping[Series, Sequence[Span]] | None = None,
    traded_ms: npt.NDArray[np.int64] | None = None,
    uncovered: Mapping[Series, Uncovered] | None = None,
    doubts: Mapping[Series, Doubt] | None = None,
    witnesses: Mapping[Series, CandleBlock] | None = None,
    least: int = WITNESSES,
) -> dict[Series, SeriesQuality]:
    """
    Judge all series of one venue and timeframe together, since only together they tell what is an outage.

    Args:
        blocks: The candles of each series; one without any has nothing to be judged.
        listed: When each was listed; from its first to its last candle, where nothing is said.
        confirmed: Where the venue, asked again, had no candle; see `absences`.
        traded_ms: When the venue traded by a shorter timeframe; see `absences`.
        uncovered: What each lacks at its ends of what was asked for; nothing, where nothing is said.
        doubts: What of each the venue has yet to answer for; nothing, where nothing is said.
        witnesses: Other series of the venue, which are not judged themselves, with the listing that counts.
        least: How many must be silent at once for an outage; see `absences`.

    Raises:
        BadInputError: The series are of more than one venue or timeframe.
    """
    found = absences({**(witnesses or {}), **blocks}, listed, confirmed=confirmed, traded_ms=traded_ms, least=least)
    told = confirmed or {}
    result = {}
    for one, block in blocks.items():
        spans = joined((listed or {}).get(one, span_of(one, block)))
        expected = sum(span.end_ms - span.start_ms for span in spans) // one.timeframe.milliseconds
        ends = (uncovered or {}).get(one, Uncovered())
        result[one] = SeriesQuality(
            one,
            expected + ends.before + ends.after,
            len(block),
            found[one],
            suspect_ticks(block, one.timeframe),
            ends,
            _unconfirmed(found[one], told.get(one, ()), (doubts or {}).get(one), one),
        )
    return result


def uncovered_by(
    block: CandleBlock,
    asked: Span,
    step: int,
    *,
    listed_ms: int | None,
    is_over: bool,
    confirmed: Sequence[Span] = (),
) -> Uncovered:
    """
    Return which candles a series lacks at its ends of those that open in a stretch of time, for no known reason.

    Reasons are that it was listed later, that it is traded no more, and that the venue has confirmed that it has none.
    A series of which no listing is known may begin later than asked, and that is told and no fault: it may have been
    listed then, and whoever left such series out would never learn from a young one. An end is another matter. Series
    of a venue that goes on end together; one that ends before them has stopped being recorded, unless something says
    that it is traded no more.

    Args:
        block: What is there of the stretch.
        asked: From when on, up to when (exclusive) candles were asked for.
        step: Their duration in ms.
        listed_ms: When it was listed, if that is known.
        is_over: Whether it is traded no more.
        confirmed: Where the venue itself has no candle. Where that is most of an end, it is taken for all of it.
    """
    first, last = block.first_open_time_ms, block.last_open_time_ms
    begin_ms = max(asked.start_ms, listed_ms or asked.start_ms)
    tail = Span(begin_ms if last is None else last + step, asked.end_ms)
    after = _absent(tail, confirmed, step)
    # The newest hours of a silence are never confirmed yet: they follow from what is.
    if is_over or after <= candles_within(confirmed, tail, step):
        after = 0
    before = 0 if first is None else _absent(Span(begin_ms, min(first, asked.end_ms)), confirmed, step)
    return Uncovered(after=after, late=before) if listed_ms is None else Uncovered(before, after)


def _absent(span: Span, confirmed: Sequence[Span], step: int) -> int:
    return candles_within([span], span, step) - candles_within(confirmed, span, step)


def _unconfirmed(absent: Sequence[Absence], confirmed: Sequence[Span], doubt: Doubt | None, series: Series) -> int:
    if doubt is None:
        return 0
    step = series.timeframe.milliseconds
    holes = joined([Span(one.start_ms, one.end_ms) for one in absent])
    longer = [hole for hole in holes if hole.end_ms - hole.start_ms > doubt.page_ms]
    unexplained = [
        Span(one.start_ms, min(one.end_ms, doubt.until_ms)) for one in absent if one.cause is not Cause.OUTAGE
    ]
    counts = candles_in_each(longer, unexplained, step)
    told = candles_in_each(confirmed, [one for one, count in zip(unexplained, counts, strict=True) if count], step)
    return doubt.ends + int(counts.sum() - told.sum())


def forgiven(asked: int) -> float:
    """Return how many candles of so many asked for may be absent at the ends of a series."""
    return max(FEW_UNCOVERED, MOST_UNCOVERED * asked)


def present_shares(series: Series, block: CandleBlock, span: Span, parts: int) -> tuple[float, ...]:
    """Return the share of candles that are present in each of equal parts of a span, oldest first."""
    step = series.timeframe.milliseconds
    edges = np.linspace(span.start_ms, span.end_ms, parts + 1)
    expected = np.diff(np.ceil(edges / step))
    inside = np.diff(np.searchsorted(block.open_time_ms, edges))
    return tuple((inside / np.maximum(expected, 1)).tolist())
