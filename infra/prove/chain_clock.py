"""Time features, models and the whole chain, as the worker calls them; run as a module in the worker's environment."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from feature_store.candle import CLOSE, CandleBlock, Timeframe
from feature_store.clock import monotonic
from feature_store.features.definition import fingerprint
from feature_store.features.live import LiveFeatures
from inference.decision import decide
from inference.domain.bias import BiasRules
from inference.domain.decision import Approved
from inference.feed.batches import CandleBatch
from inference.feed.followed import FollowedFeatures
from inference.feed.rebuilding import Behind
from inference.models.bundle import load_bundle
from inference.signals.used_features import UsedFeatures
from inference.supervision.model_supervisor import ModelSupervisor
from inference.supervision.model_watch import ActiveModel
from inference.supervision.risk_watch import Closes, RiskWatch
from inference.supervision.scored_candle import Scoring
from infra.prove.chain_scene import Desk, full_policy, met_the_limits, sure_of_themselves, unhindered
from infra.prove.clock_market import STEP_MS, SYMBOLS, WARM_UP, open_times, quotes_of, walks

_KEPT = 400


def main() -> int:
    """Warm up, then take candle after candle from its close to decisions; print one JSON object."""
    bundle = load_bundle(Path(sys.argv[1]), expected_fingerprint=fingerprint())
    measured = int(sys.argv[2])
    values = walks(WARM_UP + measured)
    times = open_times(values.shape[1])
    features = LiveFeatures(SYMBOLS)
    used = UsedFeatures(SYMBOLS, venue="sandbox", timeframe="5m", code="proof")
    followed = FollowedFeatures(features, keep=used.keep)
    model = ActiveModel(bundle=bundle, version="proof", gated=True, source="proof")
    scoring = Scoring(model, venue="sandbox", timeframe_ms=STEP_MS, monotonic=monotonic)
    policy = full_policy(SYMBOLS)
    supervisor = ModelSupervisor(BiasRules(), policy, timeframe=Timeframe.M5, on_event=lambda _kind, _detail: None)
    followed.advance(_batch(values, times, slice(0, WARM_UP)), Behind())
    at = WARM_UP

    def closes() -> Closes:
        newest = slice(max(0, at - _KEPT), at)
        return {symbol: (times[newest], values[row, newest, CLOSE]) for row, symbol in enumerate(SYMBOLS)}

    risk = RiskWatch(
        policy=lambda: policy,
        timeframe_ms=STEP_MS,
        closes=closes,
        note=lambda _kind, _detail: None,
        monotonic=monotonic,
    )
    before = _closes(values, at - 1), int(times[at - 1])
    desk = Desk.of(before[0], risk, policy, opened_ms=before[1])
    wide = Desk.of(before[0], risk, unhindered(policy), opened_ms=before[1])
    took: dict[str, list[float]] = {"whole": [], "chain": [], "prepared": [], "unhindered": []}
    ends: Counter[str] = Counter()
    for at in range(WARM_UP, WARM_UP + measured):
        close_ms = int(times[at]) + STEP_MS
        batch, quotes = _batch(values, times, slice(at, at + 1)), quotes_of(_closes(values, at), close_ms)
        began = monotonic()
        risk.prepare(close_ms)
        prepared = monotonic()
        known = followed.advance(batch, Behind())
        scored = scoring.score(known.latest, known.ready, followed.rows)
        used.record(known.latest, known.ready, continuity=features.continuity, candle_close_ms=close_ms)
        supervisor.watch(scored.candidates, close_ms=close_ms, horizon=bundle.horizon)
        opined = monotonic()
        # Not timed: real opinions are mostly refused early, and that is not the long way.
        candidates = sure_of_themselves(scored.candidates)
        asked = monotonic()
        snapshot = desk.snapshot(candidates, quotes, close_ms=close_ms, step_ms=STEP_MS)
        decisions = decide(snapshot, policy, close_ms)
        decided = monotonic()
        all_of_them = decide(
            wide.snapshot(candidates, quotes, close_ms=close_ms, step_ms=STEP_MS), wide.policy, close_ms
        )
        took["unhindered"].append(monotonic() - decided)
        took["prepared"].append(prepared - began)
        took["chain"].append(decided - asked)
        took["whole"].append(opined - prepared + decided - asked)
        ends["decisions"] += len(decisions)
        ends["met_the_limits"] += sum(map(met_the_limits, decisions))
        ends["approved"] += sum(isinstance(one, Approved) for one in decisions)
        ends["approved_unhindered"] += sum(isinstance(one, Approved) for one in all_of_them)

    quantiles = {
        f"{name}_p{percent}_ms": 1000 * float(np.quantile(some, percent / 100))
        for name, some in took.items()
        for percent in (50, 99)
    }
    print(json.dumps({**quantiles, **ends, "symbols": len(SYMBOLS), "candles": measured}))
    return 0


def _batch(values: np.ndarray, times: np.ndarray, span: slice) -> CandleBatch:
    blocks = {symbol: CandleBlock(times[span], values[row, span]) for row, symbol in enumerate(SYMBOLS)}
    return CandleBatch(close_time_ms=int(times[span][-1]) + STEP_MS, blocks=blocks, late=())


def _closes(values: np.ndarray, at: int) -> dict[str, float]:
    return {symbol: float(values[row, at, CLOSE]) for row, symbol in enumerate(SYMBOLS)}


if __name__ == "__main__":
    raise SystemExit(main())
