"""The candle that `prove-chain-latency` times asks of every rule: what it measures is no way that was cut short."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from inference.decision import decide
from inference.domain.decision import Approved, Candidate, DenyCode
from inference.domain.signal import Direction, MemberPrediction, SignalScore
from inference.supervision.risk_watch import RiskWatch
from infra.prove.chain_scene import (
    ENTERING,
    OPEN,
    Desk,
    full_policy,
    met_the_limits,
    sure_of_themselves,
    unhindered,
)
from infra.prove.clock_market import STEP_MS, SYMBOLS, WARM_UP, quotes_of, walks
from tests.worker_values import T0

CLOSE_MS = T0 - T0 % STEP_MS


@pytest.fixture(scope="module")
def scene():
    """Return a way to decide the candle under a policy: the snapshot and the decisions."""
    values = walks(WARM_UP)
    opened = np.arange(CLOSE_MS - STEP_MS * WARM_UP, CLOSE_MS, STEP_MS, dtype=np.int64)
    closes = {symbol: float(values[row, -1, 3]) for row, symbol in enumerate(SYMBOLS)}
    member = MemberPrediction(name="xgboost", expected_return=0.001, weight=1.0)
    unsure = [
        Candidate(
            signal=SignalScore(
                symbol=symbol, direction=Direction.FLAT, probability=0.5, expected_return=0.0001 * (-1) ** row,
                members=(member,) * 4, consensus=4, model_version="1", feature_time_ms=CLOSE_MS, trace_id=f"t{row}",
            ),
            atr=0.3, close=closes[symbol], threshold=0.5,
        )
        for row, symbol in enumerate(SYMBOLS)
    ]  # fmt: skip

    def decided(policy):
        risk = RiskWatch(
            policy=lambda: policy, timeframe_ms=STEP_MS, note=lambda _kind, _detail: None, monotonic=lambda: 0.0,
            closes=lambda: {name: (opened, values[row, :, 3]) for row, name in enumerate(SYMBOLS)},
        )  # fmt: skip
        desk = Desk.of(closes, risk, policy, opened_ms=CLOSE_MS - STEP_MS)
        snapshot = desk.snapshot(
            sure_of_themselves(unsure), quotes_of(closes, CLOSE_MS), close_ms=CLOSE_MS, step_ms=STEP_MS
        )
        return snapshot, decide(snapshot, policy, CLOSE_MS)

    return decided


def test_every_input_of_a_decision_is_there(scene):
    """Clusters and betas of all symbols, a day of trades, and a committee whose word counts."""
    snapshot, _ = scene(full_policy(SYMBOLS))

    assert set(snapshot.risk.clusters) == set(snapshot.risk.betas) == set(SYMBOLS)
    assert set(snapshot.recent.entered_ms) == set(SYMBOLS)
    assert snapshot.resolution.enforced
    assert len(snapshot.resolution.votes) == 5
    assert len(snapshot.positions) + len(snapshot.in_flight) == OPEN + ENTERING


def test_candidates_come_as_far_as_the_limits(scene):
    """Whoever has no position yet is asked for counts and slots; some are approved, the rest finds no slot left."""
    _, decisions = scene(full_policy(SYMBOLS))

    ends = Counter("approved" if isinstance(one, Approved) else one.code for one in decisions)
    assert ends[DenyCode.POSITION_OPEN] == OPEN + ENTERING
    assert ends["approved"] >= 1
    assert sum(map(met_the_limits, decisions)) == len(SYMBOLS) - OPEN - ENTERING


def test_where_no_limit_hinders_all_are_approved(scene):
    """The worst of candles for the clock: each approval adds to what the next one is held against."""
    _, decisions = scene(unhindered(full_policy(SYMBOLS)))

    assert sum(isinstance(one, Approved) for one in decisions) == len(SYMBOLS) - OPEN - ENTERING
