"""Judging stored series with all that is known: what the venue said, and what its other series and timeframes show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from feature_store.absences import Absence, Cause, Span, absences, joined, span_of, witnesses_needed
from feature_store.candle import CandleBlock, Series
from feature_store.derived import BASE
from feature_store.lake import CandleLake
from feature_store.silences import ASKED_APART_MS, BELIEVED_AFTER, together
from feature_store.sources.asking import believed
from feature_store.sources.ccxt_candles import page_of
from feature_store.sources.deriving import is_derived
from feature_store.sources.listings import Listed, listing_of
from feature_store.standard import Doubt, SeriesQuality, Uncovered, qualities, uncovered_by

Spans = dict[Series, tuple[Span, ...]]

_NEAR_MS = 30 * 86_400_000
"""The lake keeps a file a month: reading twice from one costs more than reading what lies between."""


def judged_with_evidence(
    lake: CandleLake,
    blocks: Mapping[Series, CandleBlock],
    asked: Span | None = None,
    listed: Mapping[Series, Listed] | None = None,
) -> dict[Series, SeriesQuality]:
    """
    Judge all series of one venue and timeframe together.

    An outage is one only where no stored series of the venue and timeframe has a candle, those included that were not
    asked about, where those that were listed then are enough of what the venue lists (`witnesses_needed`; how many it
    lists is known from the last ingest), where the venue, asked again, had no candle, and where no shorter timeframe
    shows that it traded. Symbols that are not stored cannot bear witness.

    Args:
        lake: Where the series are, and what the venue said of them.
        blocks: The candles of each series.
        asked: From when on, up to when candles were asked for; nothing is expected beyond what is there, if None.
        listed: What is known of when each is traded, beside what the venue said when it was asked for candles.

    Raises:
        BadInputError: The series are of more than one venue or timeframe.
        CorruptFileError: A stored file is damaged.
    """
    confirmed = _confirmed(lake, blocks)
    facts = {one: _together((listed or {}).get(one), listing_of(lake, one)) for one in blocks}
    least = witnesses_needed(max((fact.venue_lists or 0 for fact in facts.values()), default=0))
    spans = {one: span_of(one, block) for one, block in blocks.items()}
    witnesses = _witnesses(lake, blocks, _silent(absences(blocks, spans, confirmed=confirmed, least=1)), spans)
    confirmed |= _confirmed(lake, witnesses)
    uncovered: dict[Series, Uncovered] = {}
    doubts: dict[Series, Doubt] = {}
    if asked is not None:
        uncovered = {one: _ends(one, blocks[one], asked, facts[one], confirmed) for one in blocks}
        doubts = {one: _doubt(lake, one, blocks[one], asked, facts[one], confirmed) for one in blocks}

    def judged(traded_ms: np.ndarray[tuple[int], np.dtype[np.int64]] | None = None) -> dict[Series, SeriesQuality]:
        return qualities(
            blocks,
            spans,
            confirmed=confirmed,
            traded_ms=traded_ms,
            uncovered=uncovered,
            doubts=doubts,
            witnesses=witnesses,
            least=least,
        )

    found = judged()
    outages = _silent({one: quality.absent for one, quality in found.items()})
    traded_ms = _traded_ms(lake, next(iter(blocks), None), outages)
    return found if len(traded_ms) == 0 else judged(traded_ms)


def _confirmed(lake: CandleLake, series: Mapping[Series, CandleBlock]) -> Spans:
    said = {one: believed(lake, one) for one in series}
    return {one: spans for one, spans in said.items() if spans is not None}


def _together(given: Listed | None, noted: Listed) -> Listed:
    if given is None:
        return noted
    since_ms = noted.since_ms if given.since_ms is None else given.since_ms
    return Listed(since_ms, given.is_over or noted.is_over, noted.venue_lists)


def _ends(series: Series, block: CandleBlock, asked: Span, fact: Listed, confirmed: Spans) -> Uncovered:
    return uncovered_by(
        block,
        asked,
        series.timeframe.milliseconds,
        listed_ms=fact.since_ms,
        is_over=fact.is_over,
        confirmed=confirmed.get(series, ()),
    )


def _doubt(lake: CandleLake, series: Series, block: CandleBlock, asked: Span, fact: Listed, confirmed: Spans) -> Doubt:
    """Return what the venue has yet to answer for; one that was never seen to trade may not be listed yet."""
    until_ms = asked.end_ms - BELIEVED_AFTER * ASKED_APART_MS
    ends = _ends(series, block, Span(asked.start_ms, until_ms), fact, confirmed)
    is_listed = len(block) > 0 or fact.since_ms is not None or lake.first_open_time_ms(series) is not None
    fetched = BASE if is_derived(lake, series) else series.timeframe
    page_ms = page_of(series) * fetched.milliseconds
    return Doubt(ends.before + ends.after if is_listed else 0, page_ms, until_ms)


def _silent(found: Mapping[Series, Sequence[Absence]]) -> tuple[Span, ...]:
    """Return when all series were silent that were looked at."""
    every = [one for absent in found.values() for one in absent if one.cause is Cause.OUTAGE]
    return joined([Span(one.start_ms, one.end_ms) for one in every])


def _witnesses(
    lake: CandleLake, blocks: Mapping[Series, CandleBlock], silent: Sequence[Span], listed: Spans
) -> dict[Series, CandleBlock]:
    """
    Return what the venue's other series hold of some stretches of time, and add when each of them counts.

    Each counts from its first to its last candle: where it was not recorded it says nothing.
    """
    example = next(iter(blocks), None)
    if example is None or not silent:
        return {}
    market = (example.venue, example.timeframe)
    found = {}
    for one in lake.series():
        if one in blocks or (one.venue, one.timeframe) != market:
            continue
        first, last = lake.first_open_time_ms(one), lake.last_open_time_ms(one)
        if first is None or last is None:
            continue
        own = Span(first, last + one.timeframe.milliseconds)
        cut = joined([Span(max(own.start_ms, span.start_ms), min(own.end_ms, span.end_ms)) for span in silent])
        if cut:
            found[one] = _read(lake, one, cut)
            listed[one] = cut
    return found


def _read(lake: CandleLake, series: Series, spans: Sequence[Span]) -> CandleBlock:
    """Return the candles of some stretches of time; what lies between two that are near comes with them."""
    return CandleBlock.empty().concat(
        *[lake.read(series, one.start_ms, one.end_ms) for one in together(spans, _NEAR_MS)]
    )


def _traded_ms(
    lake: CandleLake, example: Series | None, spans: Sequence[Span]
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return when candles of shorter timeframes open within some stretches, at the same venue."""
    times = [np.empty(0, np.int64)]
    if example is not None and spans:
        length = example.timeframe.milliseconds
        shorter = [one for one in lake.series() if one.venue == example.venue and one.timeframe.milliseconds < length]
        times += [lake.read(one, span.start_ms, span.end_ms).open_time_ms for one in shorter for span in spans]
    return np.unique(np.concatenate(times))
