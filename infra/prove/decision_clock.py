"""Time the way from closed candles to decisions; run in the worker's environment, it prints one JSON object."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np

from feature_store.candle import CandleBlock
from feature_store.clock import monotonic
from feature_store.features.definition import INDEX, fingerprint
from feature_store.features.live import LiveFeatures
from inference.decision import decide
from inference.domain.decision import Candidate, Snapshot, TradingState
from inference.domain.policy import Policy
from inference.domain.position import Account
from inference.models.bundle import load_bundle
from inference.signals.scoring import signals
from inference.signals.used_features import UsedFeatures
from infra.prove.clock_market import STEP_MS, SYMBOLS, WARM_UP, instruments_of, open_times, quotes_of, walks

ATR = INDEX["atr_14"]


def main() -> int:
    """Warm up, then take candle after candle through features, ensemble and decision chain."""
    bundle = load_bundle(Path(sys.argv[1]), expected_fingerprint=fingerprint())
    measured = int(sys.argv[2])
    values = walks(WARM_UP + measured)
    times = open_times(values.shape[1])
    features = LiveFeatures(SYMBOLS)
    used = UsedFeatures(SYMBOLS, venue="sandbox", timeframe="5m", code="proof")
    for row, symbol in enumerate(SYMBOLS):
        features.advance(symbol, CandleBlock(times[:WARM_UP], values[row, :WARM_UP]))

    instruments = instruments_of(SYMBOLS)
    account = Account(equity=Decimal(10_000), day_start_equity=Decimal(10_000), peak_equity=Decimal(10_000))
    policy = Policy(confidence_threshold=0.5)
    took, decided = [], 0
    for at in range(WARM_UP, WARM_UP + measured):
        blocks = [CandleBlock(times[at : at + 1], values[row, at : at + 1]) for row in range(len(SYMBOLS))]
        closes_ms = int(times[at]) + STEP_MS
        quotes = quotes_of({symbol: values[row, at, 3] for row, symbol in enumerate(SYMBOLS)}, closes_ms)
        began = monotonic()
        atr = []
        for symbol, block in zip(SYMBOLS, blocks, strict=True):
            row = features.advance(symbol, block)[-1]
            used.keep(symbol, row)
            atr.append(float(row[ATR]))
        latest = features.latest()
        scores = bundle.score(
            latest.model_inputs,
            latest.windows,
            latest.returns.astype(np.float32),
            np.zeros(len(SYMBOLS), np.int64),
        )
        found = signals(
            scores,
            symbols=list(latest.symbols),
            feature_times_ms=[closes_ms] * len(SYMBOLS),
            venue="sandbox",
            model_version="proof",
            weights=bundle.weights,
        )
        candidates = tuple(
            Candidate(signal=signal, atr=atr[row], close=float(values[row, at, 3]), threshold=bundle.threshold)
            for row, signal in enumerate(found)
        )
        used.record(latest, range(len(SYMBOLS)), continuity=features.continuity, candle_close_ms=closes_ms)
        snapshot = Snapshot(
            candle_close_ms=closes_ms,
            trading_state=TradingState.ACTIVE,
            account=account,
            candidates=candidates,
            positions={},
            in_flight={},
            heat={},
            instruments=instruments,
            quotes=quotes,
            last_entry_ms={},
            timeframe_ms=STEP_MS,
        )
        decided += len(decide(snapshot, policy, closes_ms))
        took.append(1000 * (monotonic() - began))

    p50, p99 = np.quantile(took, [0.5, 0.99])
    print(json.dumps({"p50_ms": p50, "p99_ms": p99, "symbols": len(SYMBOLS), "decisions": decided}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
