"""Opinions on live candles: each matures once, whatever comes in which order, twice, or after a restart."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.replay.live_figures import daily_points, live_figures
from flows.replay.maturing import LiveRows, Seen, matured
from inference.domain.shadow import Role
from tests.shadow_support import CHALLENGER, CHAMPION, OTHER, START_MS, STEP_MS, SYMBOLS, market, opinion, scored

HORIZON = 3
_value = st.one_of(st.none(), st.sampled_from([-0.004, -0.001, 0.0, 0.002, 0.005]))
_price = st.one_of(st.none(), st.sampled_from([99.0, 99.5, 100.0, 101.0]))
_column = st.lists(_value, min_size=3, max_size=3)


@st.composite
def recordings(draw) -> list[Seen]:
    """Return candles in order, some missing as when nothing ran, with one challenger or another, or none."""
    seen = []
    for number in sorted(draw(st.sets(st.integers(0, 14), min_size=1))):
        said = [opinion(Role.CHAMPION, CHAMPION, draw(_column))] if draw(st.booleans()) else []
        digest = draw(st.sampled_from([None, CHALLENGER, CHALLENGER, OTHER]))
        if digest:
            said.append(opinion(Role.CHALLENGER, digest, draw(_column)))
        seen.append(scored(number, draw(st.lists(_price, min_size=3, max_size=3)), tuple(said)))
    return seen


def outcomes(rows: LiveRows) -> dict[tuple[int, int], tuple[float, ...]]:
    """Return every outcome by candle and symbol, exactly."""
    columns = (rows.bid_in, rows.ask_in, rows.ours.bid_out, rows.ours.ask_out, np.nan_to_num(rows.ours.expected, nan=9))
    keys = zip(rows.close_ms.tolist(), rows.series.tolist(), strict=True)
    return dict(zip(keys, zip(*(one.tolist() for one in columns), strict=True), strict=True))


def by_digest(seen: list[Seen]) -> dict[str, dict]:
    return {rows.ours.digest: outcomes(rows) for rows in matured(seen)}


@settings(max_examples=60, deadline=None)
@given(recordings())
def test_every_prediction_matures_at_most_once_and_as_shown(seen):
    """A row is one symbol and candle, its prices are those of its own candle and of the one a horizon later."""
    at = {one.event.candle_close_ms: one.event for one in seen}
    for rows in matured(seen):
        keys = Counter(zip(rows.close_ms.tolist(), rows.series.tolist(), strict=True))
        assert set(keys.values()) <= {1}
        said = 0
        for (close_ms, series), (bid, ask, bid_out, ask_out, _) in outcomes(rows).items():
            first, last = at[close_ms], at[close_ms + HORIZON * STEP_MS]
            assert (bid, ask) == (float(first.bid[series]), float(first.ask[series]))
            assert (bid_out, ask_out) == (float(last.bid[series]), float(last.ask[series]))
        for one in (event.opinions for event in at.values()):
            told = {role.role: role for role in one}
            if (ours := told.get(Role.CHALLENGER)) is not None and ours.digest == rows.ours.digest:
                theirs = told.get(Role.CHAMPION)
                both = zip(ours.expected_return, theirs.expected_return if theirs else [None] * 3, strict=True)
                said += sum(a is not None or b is not None for a, b in both)
        assert len(rows) + rows.pending + rows.unpriced == said


@settings(max_examples=60, deadline=None)
@given(recordings(), st.integers(0, 1000))
def test_order_and_repetition_change_nothing(seen, seed):
    """Two journals of two lives, read in any order and in part twice, give the same outcomes."""
    chaos = random.Random(seed)
    again = [replace(one, recorded_ms=one.recorded_ms + 5) for one in seen if chaos.random() < 0.3]
    mixed = [*seen, *again]
    chaos.shuffle(mixed)

    assert by_digest(mixed) == by_digest(seen)
    assert [live_figures(rows) for rows in matured(mixed)] == [live_figures(rows) for rows in matured(seen)]


@settings(max_examples=60, deadline=None)
@given(recordings(), st.integers(0, 15))
def test_what_has_matured_stays(seen, count):
    """Later candles add outcomes and change none, whichever challenger they are of."""
    earlier, later = by_digest(seen[:count]), by_digest(seen)

    for digest, known in earlier.items():
        assert known.items() <= later[digest].items()


def test_days_that_are_over_are_told_alike_for_ever():
    """Of a day that has matured every figure is the same, to the bit, once another day has been added."""
    seen = market(700, edge=0.3)
    one, two = (daily_points(matured(part)[-1]) for part in (seen[:400], seen))

    first_day = START_MS // 86_400_000
    over = [point for point in one if point.step == first_day]
    assert over == [point for point in two if point.step == first_day]
    assert {point.step for point in two} == {first_day, first_day + 1, first_day + 2}
    assert daily_points(matured(seen)[-1], since_day=first_day + 1) == tuple(p for p in two if p.step > first_day)
    assert len(SYMBOLS) == 3
