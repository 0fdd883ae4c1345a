"""A journal of decisions on random states, written by the worker's own writer: what replays and damage are tried on."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from msgspec import UNSET, UnsetType

from inference.decision import decide
from inference.domain.decision import Approved, Candidate, RecentTrades, Snapshot, TradingState
from inference.domain.events import CandlesDecided
from inference.domain.market import Instrument, Quote
from inference.domain.policy import Policy
from inference.domain.position import Account, Position
from inference.domain.risk import BreakerState, BreakerView, RiskView
from inference.domain.signal import Direction, MemberPrediction, SignalScore
from inference.journal.writer import JournalWriter
from inference.signals.scoring import trace_id
from infra.prove.limits_drawn import drawn_bias, drawn_policy, drawn_resolution

NAMES = (
    "BTC",
    "ETH",
    "XRP",
    "SOL",
    "ADA",
    "BNB",
    "DOT",
    "LTC",
    "LINK",
    "AVAX",
    "UNI",
    "ATOM",
    "ETC",
    "XLM",
    "FIL",
    "NEAR",
)
SYMBOLS = tuple(f"{name}/USDT:USDT" for name in NAMES)
START_MS, STEP_MS = 1_750_000_200_000, 300_000
MANY = 12
"""So many positions of prices without an end make sums of decimals depend on their order."""
_TICK = Decimal("0.01")
_PLAIN = (Policy(), Policy(leverage=2, max_positions=2), Policy(confidence_threshold=0.6, max_exposure=Decimal(1)))
_LATE: dict[str, Any] = {
    "trading_windows": (),
    "days_off": (),
    "allowed_symbols": (),
    "max_positions": 20,
    "max_exposure": Decimal(2),
    "global_cooldown_seconds": 0,
    "max_entries_per_hour": None,
    "max_entries_per_day": None,
    "governor_min_confidence": 0.5,
    "min_liquidation_stops": Decimal(1),
}
_MEMBERS = ("lightgbm", "nhits", "patchtst", "xgboost")

_Value = TypeVar("_Value")


@dataclass(slots=True)
class Recorded:
    """
    What was written: candles, answers by their code (APPROVED among them), candles with `MANY` positions.

    `reordered` names the candles that come out differently once every mapping has another order: there should be none.
    """

    candles: int = 0
    crowded: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    reordered: list[int] = field(default_factory=list)

    @property
    def answers(self) -> int:
        """How many answers there are."""
        return self.codes.total()


def write_journal(path: Path, decided: int, seed: int) -> Recorded:
    """Record so many candles' decisions, each under a policy of its own."""
    rng, told = random.Random(seed), Recorded()
    with JournalWriter.open(path) as journal:
        for number in range(decided):
            close_ms = START_MS + STEP_MS * number
            now_ms = close_ms + rng.randrange(50, 900)
            policy = _policy(rng)
            snapshot = drawn_snapshot(rng, close_ms, now_ms)
            decisions = decide(snapshot, policy, now_ms)
            if decide(reordered(snapshot, rng), policy, now_ms) != decisions:
                told.reordered.append(number)
            told.candles += 1
            told.crowded += len(snapshot.positions) >= MANY
            told.codes.update("APPROVED" if isinstance(one, Approved) else one.code.value for one in decisions)
            journal.record(CandlesDecided.of(snapshot, policy, now_ms, decisions), timestamp_ms=now_ms)
    return told


def drawn_snapshot(rng: random.Random, close_ms: int, now_ms: int) -> Snapshot:
    """Return a state of sixteen symbols with every optional part now and then, its mappings in the worker's order."""
    prices = {symbol: Decimal(rng.randrange(100, 5_000_000)) / 7 / 100 for symbol in SYMBOLS}
    count = rng.choice([0, 2, MANY, MANY, MANY + 1])
    held = sorted(rng.sample(SYMBOLS, count))
    free = [symbol for symbol in SYMBOLS if symbol not in held]
    waiting = sorted(rng.sample(free, rng.randrange(0, 2)))
    asked = sorted({*rng.sample(free, 3), rng.choice(SYMBOLS)})
    equity = Decimal(rng.randrange(960_000, 1_010_000)) / 7
    return Snapshot(
        candle_close_ms=close_ms,
        trading_state=rng.choices(list(TradingState), [36, 1, 1])[0],
        account=_account(rng, equity),
        candidates=tuple(_candidate(rng, symbol, prices[symbol], close_ms) for symbol in asked),
        positions={symbol: _position(rng, symbol, prices[symbol], equity, close_ms) for symbol in held},
        in_flight={symbol: equity / rng.choice([30, 70, 110]) for symbol in waiting},
        heat={symbol: equity * rng.randrange(1, 9) / 7000 for symbol in sorted({*held, *waiting})},
        instruments={symbol: _instrument(symbol) for symbol in asked},
        quotes={symbol: _quote(rng, symbol, prices[symbol], close_ms) for symbol in asked if rng.random() < 0.98},
        last_entry_ms={symbol: close_ms - rng.randrange(20 * STEP_MS) for symbol in held},
        incomplete={"NEW/USDT:USDT": "warm-up: 12 of 400 candles"} if rng.random() < 0.1 else {},
        timeframe_ms=STEP_MS,
        bias=drawn_bias(rng) if rng.random() < 0.2 else UNSET,
        risk=_risk(rng, now_ms) if rng.random() < 0.9 else UNSET,
        recent=_recent(rng, now_ms) if rng.random() < 0.9 else UNSET,
        resolution=drawn_resolution(rng, SYMBOLS) if rng.random() < 0.3 else UNSET,
    )


def _policy(rng: random.Random) -> Policy:
    """Return plain rules, any at all, or any that leave the first refusals out, so that the last guards are reached."""
    if rng.random() < 0.2:
        return rng.choice(_PLAIN)
    drawn = drawn_policy(rng)
    if rng.random() < 0.3:
        return drawn
    tight = {
        "max_correlated_exposure": rng.choice([None, Decimal("0.2"), Decimal("0.4")]),
        "max_btc_beta": rng.choice([None, Decimal("0.2"), Decimal("0.5")]),
    }
    return replace(drawn, **_LATE, **tight)


def reordered(snapshot: Snapshot, rng: random.Random) -> Snapshot:
    """Return the same state with every mapping in another order."""

    def mixed(given: Mapping[str, _Value]) -> dict[str, _Value]:
        items = list(given.items())
        rng.shuffle(items)
        return dict(items)

    risk, recent, resolution = snapshot.risk, snapshot.recent, snapshot.resolution
    if not isinstance(risk, UnsetType):
        risk = replace(risk, clusters=mixed(risk.clusters), betas=mixed(risk.betas))
    if not isinstance(recent, UnsetType):
        recent = replace(recent, entered_ms=mixed(recent.entered_ms), lost_ms=mixed(recent.lost_ms))
    if not isinstance(resolution, UnsetType):
        resolution = replace(resolution, caps=mixed(resolution.caps), vetoes=mixed(resolution.vetoes))
    return replace(
        snapshot,
        candidates=tuple(rng.sample(snapshot.candidates, len(snapshot.candidates))),
        positions=mixed(snapshot.positions),
        in_flight=mixed(snapshot.in_flight),
        heat=mixed(snapshot.heat),
        instruments=mixed(snapshot.instruments),
        quotes=mixed(snapshot.quotes),
        last_entry_ms=mixed(snapshot.last_entry_ms),
        incomplete=mixed(snapshot.incomplete),
        risk=risk,
        recent=recent,
        resolution=resolution,
    )


def _account(rng: random.Random, equity: Decimal) -> Account:
    day, week = (equity * rng.choice([995, 1000, 1005, 1011]) / rng.choice([999, 1001]) for _ in range(2))
    return Account(
        equity=equity,
        day_start_equity=day,
        peak_equity=max(day, equity, week),
        week_start_equity=week if rng.random() < 0.9 else UNSET,
    )


def _risk(rng: random.Random, now_ms: int) -> RiskView:
    known = sorted(rng.sample(SYMBOLS, rng.randrange(13, 17)))
    breaker = BreakerView(
        state=rng.choice(list(BreakerState)),
        reason="3 losses in a row, the limit is 3",
        until_ms=now_ms + rng.randrange(-STEP_MS, STEP_MS),
        is_tried=rng.random() < 0.3,
    )
    return RiskView(
        emergency="MANUAL: drill" if rng.random() < 0.02 else "",
        missing="DATA_FEED" if rng.random() < 0.02 else "",
        breaker=breaker if rng.random() < 0.15 else None,
        clusters={symbol: rng.choice(SYMBOLS[:4]) for symbol in known},
        betas={symbol: rng.uniform(-0.5, 2.5) for symbol in known},
    )


def _recent(rng: random.Random, now_ms: int) -> RecentTrades:
    return RecentTrades(
        entered_ms={
            symbol: tuple(sorted(now_ms - rng.randrange(86_400_000) for _ in range(rng.randrange(1, 3))))
            for symbol in sorted(rng.sample(SYMBOLS, rng.randrange(4)))
        },
        lost_ms={symbol: now_ms - rng.randrange(20_000_000) for symbol in sorted(rng.sample(SYMBOLS, 4))},
    )


def _candidate(rng: random.Random, symbol: str, price: Decimal, close_ms: int) -> Candidate:
    expected = rng.gauss(0, 0.01)
    members = {name: expected + rng.gauss(0, 0.004) for name in _MEMBERS}
    signal = SignalScore(
        symbol=symbol,
        direction=Direction.LONG if expected > 0 else Direction.SHORT,
        probability=rng.uniform(0.5, 0.95),
        expected_return=expected,
        members=tuple(
            MemberPrediction(name=name, expected_return=value, weight=0.25) for name, value in members.items()
        ),
        consensus=sum((value > 0) == (expected > 0) for value in members.values()),
        model_version="7",
        feature_time_ms=close_ms if rng.random() < 0.97 else close_ms - STEP_MS,
        trace_id=trace_id(venue="sandbox", symbol=symbol, feature_time_ms=close_ms, model_version="7"),
        regime=rng.choice(["trend", "range", "high_volatility", "crash", "unknown"]),
    )
    close = float(price)
    return Candidate(signal=signal, atr=close * rng.uniform(0.0005, 0.01), close=close, threshold=0.55)


def _position(rng: random.Random, symbol: str, price: Decimal, equity: Decimal, close_ms: int) -> Position:
    # An average of fills has no end either.
    entry = price * rng.randrange(97, 104) / 99
    return Position(
        symbol=symbol,
        direction=Direction.LONG if rng.random() < 0.5 else Direction.SHORT,
        quantity=(equity * rng.randrange(1, 16) / 170 / entry).quantize(Decimal("0.001")) + Decimal("0.001"),
        entry_price=entry,
        entry_time_ms=close_ms - STEP_MS * rng.randrange(1, 14),
        trade_id=f"{symbol}-{close_ms}",
    )


def _quote(rng: random.Random, symbol: str, price: Decimal, close_ms: int) -> Quote:
    bid = price.quantize(_TICK)
    return Quote(symbol=symbol, bid=bid, ask=bid + _TICK * rng.randrange(1, 40), event_time_ms=close_ms)


def _instrument(symbol: str) -> Instrument:
    return Instrument(
        symbol=symbol,
        price_tick=_TICK,
        quantity_step=Decimal("0.001"),
        min_quantity=Decimal("0.001"),
        max_quantity=Decimal(1_000_000),
        min_notional=Decimal(5),
    )
