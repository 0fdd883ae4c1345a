"""Values that decisions are made of: instruments, signals, candidates, snapshots and approvals, as is usual."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from inference.domain.decision import Approved, Candidate, Snapshot, TradingState
from inference.domain.market import Instrument, Quote
from inference.domain.position import Account
from inference.domain.signal import Direction, MemberPrediction, SignalScore

T0 = 1_750_000_200_000  # A multiple of five minutes.


def make_instrument(symbol: str = "BTC/USDT:USDT", **changes: Decimal) -> Instrument:
    values = {
        "price_tick": Decimal("0.1"),
        "quantity_step": Decimal("0.001"),
        "min_quantity": Decimal("0.001"),
        "max_quantity": Decimal(1000),
        "min_notional": Decimal(5),
    }
    return Instrument(symbol=symbol, **{**values, **changes})


def make_signal(symbol: str = "BTC/USDT:USDT", **changes: Any) -> SignalScore:
    values: dict[str, Any] = {
        "direction": Direction.LONG,
        "probability": 0.8,
        "expected_return": 0.01,
        "members": (MemberPrediction(name="xgboost", expected_return=0.01, weight=1.0),),
        "consensus": 1,
        "model_version": "1",
        "feature_time_ms": T0,
        "trace_id": f"trace-{symbol}",
    }
    return SignalScore(symbol=symbol, **{**values, **changes})


def make_candidate(symbol: str = "BTC/USDT:USDT", *, atr: float = 100.0, **changes: Any) -> Candidate:
    return Candidate(signal=make_signal(symbol, **changes), atr=atr, close=50_000.0, threshold=0.6)


def make_snapshot(candidates: tuple[Candidate, ...] | None = None, **changes: Any) -> Snapshot:
    given = (make_candidate(),) if candidates is None else candidates
    symbols = {one.signal.symbol for one in given}
    values: dict[str, Any] = {
        "candle_close_ms": T0,
        "trading_state": TradingState.ACTIVE,
        "account": Account(equity=Decimal(10_000), day_start_equity=Decimal(10_000), peak_equity=Decimal(10_000)),
        "candidates": given,
        "positions": {},
        "in_flight": {},
        "heat": {},
        "instruments": {symbol: make_instrument(symbol) for symbol in symbols},
        "quotes": {
            symbol: Quote(symbol=symbol, bid=Decimal(49_995), ask=Decimal(50_005), event_time_ms=T0)
            for symbol in symbols
        },
        "last_entry_ms": {},
    }
    return Snapshot(**{**values, **changes})


def make_approved(symbol: str = "BTC/USDT:USDT", *, quantity: str = "0.04", **changes: Any) -> Approved:
    direction = changes.pop("direction", Direction.LONG)
    sign = 1 if direction is Direction.LONG else -1
    values: dict[str, Any] = {
        "quantity": Decimal(quantity),
        "reference_price": Decimal(50_000),
        "stop_price": Decimal(50_000 - sign * 300),
        "target_price": Decimal(50_000 + sign * 400),
        "risk": Decimal(14),
        "signal": make_signal(symbol, direction=direction, trace_id=changes.pop("trace_id", f"trace-{symbol}")),
    }
    return Approved(symbol=symbol, direction=direction, **{**values, **changes})
