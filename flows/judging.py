"""Judging stored candles against what was asked for, with all that this home knows of when symbols are traded."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from feature_store.absences import Span
from feature_store.candle import CandleBlock, Series
from feature_store.joins import listings_of
from feature_store.kinds.store import KindStore
from feature_store.lake import BACKFILL_DELAY_MS, CandleLake
from feature_store.past_lake import PastLake
from feature_store.sources.asking import believed
from feature_store.sources.evidence import judged_with_evidence
from feature_store.sources.listings import Listed, listing_of
from feature_store.standard import SeriesQuality, uncovered_by
from flows.universes import Members


def judged(
    lake: CandleLake, blocks: Mapping[Series, CandleBlock], asked: Span, members: Members | None = None
) -> dict[Series, SeriesQuality]:
    """
    Judge all series of one venue and timeframe together, by the candles that were asked for.

    When a symbol was listed is known from the venue, as it answered an ingest, and from recorded filters. With
    `members`, what counts is when the universe had it in: a symbol that left is not expected after its last candle.

    Raises:
        BadInputError: The series are of more than one venue or timeframe.
        CorruptFileError: A stored file is damaged.
    """
    recorded = _recorded(lake, blocks)
    if members is None:
        return judged_with_evidence(lake, blocks, asked, recorded)
    listed = {one: _membership(members, one, asked, recorded.get(one)) for one in blocks}
    return judged_with_evidence(lake, blocks, asked, listed)


def _recorded(lake: CandleLake, blocks: Mapping[Series, CandleBlock]) -> dict[Series, Listed]:
    """Return what the recorded filters say, as they were seen last; of a lake of the past, as they had been by then."""
    last, until_ms = {}, lake.moment_ms if isinstance(lake, PastLake) else None
    for venue in {one.venue for one in blocks}:
        for said in listings_of(KindStore(lake.root, lake.place), venue):
            if until_ms is not None and said.available_at_ms > until_ms:
                continue
            last[venue, said.symbol] = Listed(said.listed_ms, said.delisted_ms is not None)
    return {one: last[one.venue, one.symbol] for one in blocks if (one.venue, one.symbol) in last}


def _membership(members: Members, series: Series, asked: Span, recorded: Listed | None) -> Listed:
    joined_ms = [
        one.available_at_ms
        for one in members.universes
        if one.available_at_ms < asked.end_ms and series.symbol in one.universe.symbols
    ]
    is_over = not members.included(series, np.array([asked.end_ms + BACKFILL_DELAY_MS], np.int64))[0]
    since_ms = min(joined_ms, default=None)
    return Listed(since_ms, is_over or (recorded is not None and recorded.is_over))


def fewest_absent_before(lake: CandleLake, blocks: Mapping[Series, CandleBlock], asked: Span) -> int:
    """Return how many candles every series lacks at the beginning of what was asked for, for no known reason."""
    recorded = _recorded(lake, blocks)
    absent = []
    for one, block in blocks.items():
        noted, confirmed = listing_of(lake, one), believed(lake, one) or ()
        since_ms = noted.since_ms or (recorded[one].since_ms if one in recorded else None)
        step = one.timeframe.milliseconds
        ends = uncovered_by(block, asked, step, listed_ms=since_ms, is_over=False, confirmed=confirmed)
        absent.append(ends.before + ends.late if len(block) else ends.after)
    return min(absent, default=0)
