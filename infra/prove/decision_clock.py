"""Time the way from closed candles to decisions; run in the worker's environment, it prints one JSON object."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np

from feature_store.candle import CandleBlock, Timeframe
from feature_store.clock import monotonic
from feature_store.features.definition import INDEX, fingerprint
from feature_store.features.live import LiveFeatures
from inference.decision import decide
from inference.domain.decision import Candidate, Snapshot, TradingState
from inference.domain.market import Instrument, Quote
from inference.domain.policy import Policy
from inference.domain.position import Account
from inference.models.bundle import load_bundle
from inference.signals.scoring import signals
from inference.signals.used_features import UsedFeatures

SYMBOLS = tuple(f"S{number:03}/USDT:USDT" for number in range(100))
WARM_UP = 400
STEP_MS = Timeframe.M5.milliseconds
ATR = INDEX["atr_14"]


def walks(candles: int) -> np.ndarray:
    """Return seeded random walks as candle values [symbols, candles, 5]."""
    rng = np.random.default_rng(5)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.002, (len(SYMBOLS), candles)), axis=1))
    opened = np.concatenate([np.full((len(SYMBOLS), 1), 100.0), close[:, :-1]], axis=1)
    reach = np.abs(rng.normal(0, 0.001, (2, *close.shape)))
    high = np.maximum(opened, close) * (1 + reach[0])
    low = np.minimum(opened, close) * (1 - reach[1])
    volume = rng.lognormal(3, 0.5, close.shape)
    return np.stack([opened, high, low, close, volume], axis=2)


def main() -> int:
    """Warm up, then take candle after candle through features, ensemble and decision chain."""
    bundle = load_bundle(Path(sys.argv[1]), expected_fingerprint=fingerprint())
    measured = int(sys.argv[2])
    values = walks(WARM_UP + measured)
    times = np.arange(values.shape[1], dtype=np.int64) * STEP_MS + 1_700_000_100_000
    features = LiveFeatures(SYMBOLS)
    used = UsedFeatures(SYMBOLS, venue="sandbox", timeframe="5m", code="proof")
    for row, symbol in enumerate(SYMBOLS):
        features.advance(symbol, CandleBlock(times[:WARM_UP], values[row, :WARM_UP]))

    tick = Decimal("0.01")
    instruments = {
        symbol: Instrument(
            symbol=symbol,
            price_tick=tick,
            quantity_step=Decimal("0.001"),
            min_quantity=Decimal("0.001"),
            max_quantity=Decimal(10_000),
            min_notional=Decimal(5),
        )
        for symbol in SYMBOLS
    }
    account = Account(equity=Decimal(10_000), day_start_equity=Decimal(10_000), peak_equity=Decimal(10_000))
    policy = Policy(confidence_threshold=0.5)
    took, decided = [], 0
    for at in range(WARM_UP, WARM_UP + measured):
        blocks = [CandleBlock(times[at : at + 1], values[row, at : at + 1]) for row in range(len(SYMBOLS))]
        closes_ms = int(times[at]) + STEP_MS
        quotes = {
            symbol: Quote(
                symbol=symbol,
                bid=Decimal(str(round(values[row, at, 3], 2))),
                ask=Decimal(str(round(values[row, at, 3], 2))) + tick,
                event_time_ms=closes_ms,
            )
            for row, symbol in enumerate(SYMBOLS)
        }
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
