"""A worker's world made up at random: signals, fills, crashes, policies, and the limits that none may break."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

from msgspec import UNSET

from inference.decision import decide, due_exits
from inference.domain.decision import Approved, Candidate, Snapshot, TradingState
from inference.domain.events import (
    AccountMarked,
    Event,
    ExitRequested,
    Noted,
    OrderIntended,
    OrderRefused,
    OrderReported,
    TradeClosed,
    TradePlanned,
)
from inference.domain.market import Instrument, Quote
from inference.domain.order import OrderReport, OrderStatus, Purpose
from inference.domain.policy import EntryStyle, Policy
from inference.domain.risk import BreakerState, RiskView
from inference.domain.signal import Direction, SignalScore
from inference.domain.trade import ExitReason
from inference.execution.book import Book, Trade
from inference.execution.next_step import next_step
from inference.execution.planning import trade_plan
from inference.execution.result import trade_result
from inference.execution.steps import intent_of
from inference.journal.codec import chained, event_of
from inference.risk.breaker import Breaker, after, as_of
from inference.supervision.account_marks import account_of, marked
from inference.supervision.emergency_record import RESET, STOPPED, EmergencyRecord
from infra.prove.limits_checks import Scene, broken
from infra.prove.limits_drawn import drawn_bias, drawn_policy, drawn_resolution

SYMBOLS = tuple(f"{name}/USDT:USDT" for name in ("BTC", "ETH", "SOL", "XRP", "ADA", "BNB", "DOT", "LTC"))
START_MS = 1_750_000_200_000
STEP_MS = 300_000
_ZERO = Decimal(0)

Sight = Callable[[Snapshot, Policy], tuple[Snapshot, Policy]]
"""What a chain is shown of a snapshot and a policy: all of it, or what a test of this proof leaves out."""


class World:
    """One life of many short ones: `step` lets something happen, decides, and says what was broken."""

    def __init__(self, seed: int, *, see: Sight = lambda snapshot, policy: (snapshot, policy)) -> None:
        """Begin with an empty account, a policy and prices drawn by the seed; `see` is what the chain decides on."""
        self.see = see
        self.rng = random.Random(seed)
        self.seen: Counter[str] = Counter()
        self.policy = drawn_policy(self.rng)
        self.now_ms = START_MS + self.rng.randrange(0, 40) * STEP_MS
        self.prices = {name: Decimal(self.rng.randrange(100, 5_000_000)) / 100 for name in SYMBOLS}
        self.instruments = {name: self._instrument(name) for name in SYMBOLS}
        self.wallet = Decimal(self.rng.choice([50, 1_000, 5_000, 20_000, 1_000_000]))
        self.journal: list[tuple[Event, int]] = []
        self.book, self.breaker, self.record = Book(), Breaker(), EmergencyRecord()
        self.mark: AccountMarked | None = None
        self.mark_ms = 0
        self.clusters = {name: self.rng.choice(SYMBOLS[:3]) for name in SYMBOLS[: self.rng.randrange(5, 9)]}
        self.betas = {name: round(self.rng.uniform(-0.5, 2.5), 3) for name in self.clusters}
        # By its own count: neither the book nor a crash has a part in it.
        self.entered: list[tuple[str, int]] = []
        self.lost: dict[str, int] = {}
        self._number = 0

    def step(self) -> list[str]:
        """Let time, market, venue, people and the process do something; then decide; return what was broken."""
        rng = self.rng
        self.now_ms += rng.choice([1, 1, 1, 1, 2, 12, 300, 2_016]) * STEP_MS
        for name in SYMBOLS:
            move = Decimal(rng.choice([-40, -5, -2, -1, 0, 0, 1, 2, 5, 40])) / 1000
            self.prices[name] = max(self.instruments[name].price_tick * 50, self.prices[name] * (1 + move))
        self._market_takes()
        if rng.random() < 0.08:
            # A deposit, a withdrawal, or what somebody else lost on the account.
            self.wallet *= rng.choice(
                [Decimal("0.7"), Decimal("0.9"), Decimal("0.95"), Decimal("0.97"), Decimal("1.2")]
            )
        if rng.random() < 0.08:
            self.policy = drawn_policy(rng)
            self.seen["policy changes"] += 1
        # A stop does not last for most of a life.
        if rng.random() < (0.4 if self.record.standing else 0.03):
            self._person()
        if rng.random() < 0.08:
            self._crash()
        if self.mark is not None and self.mark.equity < self.mark.peak_equity * Decimal("0.9") and rng.random() < 0.3:
            # Somebody has looked, and lets it begin anew: a life below its wall decides nothing any more.
            self.mark = None
        self._mark()
        snapshot = self._snapshot()
        decisions = decide(*self.see(snapshot, self.policy), self.now_ms)
        wrong = broken(self.scene(snapshot), decisions) + self._blocked(snapshot)
        for decision in decisions:
            if isinstance(decision, Approved):
                self._enter(decision)
                self.seen["entries"] += 1
            else:
                self.seen[f"denied {decision.code.value}"] += 1
        return wrong

    # -- what happens --------------------------------------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        self.journal.append((event, self.now_ms))
        self._apply(event, self.now_ms, self.policy)

    def _apply(self, event: Event, at_ms: int, policy: Policy) -> None:
        self.book.apply(event)
        earlier, self.breaker = self.breaker, after(self.breaker, event, at_ms, policy)
        if isinstance(event, Noted):
            self.record.visit(event, at_ms)
        if self.breaker.state is not earlier.state:
            self.seen[f"breaker {self.breaker.state.value}"] += 1

    def _person(self) -> None:
        """Stop, or let go on."""
        self._number += 1
        if self.record.standing:
            detail = {"key": f"{self._number}", "stops": " ".join(self.record.standing), "equity": "1"}
            self._tell(Noted(event_type=RESET, detail=detail))
        else:
            self._tell(Noted(event_type=STOPPED, detail={"key": f"{self._number}", "evaluator": "MANUAL"}))
            self.seen["stops"] += 1

    def _crash(self) -> None:
        """Die, and know again what the journal's text says."""
        self.seen["crashes"] += 1
        told, self.journal = self.journal, []
        self.book, self.breaker, self.record = Book(), Breaker(), EmergencyRecord()
        for event, at_ms in told:
            entry = chained(event, seq=1, timestamp_ms=at_ms, trace_id="", previous="")
            again = event_of(entry)
            self.journal.append((again, at_ms))
            self._apply(again, at_ms, self.policy)

    def _market_takes(self) -> None:
        """Fill, refuse or leave open what is in flight, and end what is over, late and in part as it comes."""
        for key in [one.plan.trade_id for one in self.book.active()]:
            entry = self.book.trades[key].of(Purpose.ENTRY)
            if entry and entry[-1].may_exist and self.rng.random() < 0.6:
                self._answer(self.book.trades[key])
            trade = self.book.trades[key]
            leaves = trade.exit_reason is not None or self.rng.random() < 0.25
            if trade.open_quantity > 0 and leaves:
                self._leave(trade, self.rng.choice([Decimal(1), Decimal(1), Decimal("0.5")]))
            trade = self.book.trades[key]
            if trade.open_quantity == 0 and not trade.is_entering and not trade.is_counted:
                result = trade_result(trade, closed_at_ms=self.now_ms, taker_fee=self.policy.taker_fee)
                self._tell(TradeClosed(trade_id=key, result=result))
                self.wallet += result.pnl
                if result.pnl < 0:
                    self.lost[trade.symbol] = self.now_ms

    def _answer(self, trade: Trade) -> None:
        order = trade.of(Purpose.ENTRY)[-1]
        key, fate = order.intent.client_order_id, self.rng.random()
        if fate < 0.15:
            self._tell(
                OrderRefused(client_order_id=key, code=self.rng.choice(["-2019", "NOTHING_HAPPENED"]), message="")
            )
            return
        share = Decimal(1) if fate < 0.75 else Decimal("0.5")
        filled = self.instruments[trade.symbol].round_quantity(trade.plan.quantity * share)
        status = OrderStatus.FILLED if share == 1 else OrderStatus.EXPIRED
        self._report(trade, key, status, filled)

    def _leave(self, trade: Trade, share: Decimal) -> None:
        quantity = self.instruments[trade.symbol].round_quantity(trade.open_quantity * share) or trade.open_quantity
        intent = intent_of(trade, Purpose.EXIT, quantity)
        self._tell(OrderIntended(intent=intent))
        self._report(trade, intent.client_order_id, OrderStatus.FILLED, quantity)

    def _report(self, trade: Trade, key: str, status: OrderStatus, filled: Decimal) -> None:
        self._number += 1
        report = OrderReport(
            client_order_id=key, venue_order_id=str(self._number), symbol=trade.symbol, status=status, filled=filled,
            average_price=self.prices[trade.symbol], event_time_ms=self.now_ms,
        )  # fmt: skip
        self._tell(OrderReported(report=report))

    def _enter(self, approved: Approved) -> None:
        plan = trade_plan(
            approved, candle_close_ms=self.now_ms, now_ms=self.now_ms, style=EntryStyle.MARKET, patience_ms=0,
            arrival_price=None,
        )  # fmt: skip
        self._tell(TradePlanned(plan=plan))
        self.entered.append((plan.symbol, self.now_ms))
        trade = self.book.trades[plan.trade_id]
        self._tell(OrderIntended(intent=intent_of(trade, Purpose.ENTRY, plan.quantity)))
        if self.rng.random() < 0.8:
            self._answer(self.book.trades[plan.trade_id])

    def _mark(self) -> None:
        unrealised = sum((self._profit(trade) for trade in self.book.active()), _ZERO)
        equity = self.wallet + unrealised
        self.mark = marked(self.mark, self.mark_ms, equity=equity, now_ms=self.now_ms)
        self.mark_ms = self.now_ms
        self._tell(self.mark)

    def _profit(self, trade: Trade) -> Decimal:
        if trade.open_quantity == 0 or trade.entry_price is None:
            return _ZERO
        return (self.prices[trade.symbol] - trade.entry_price) * trade.signed_quantity

    # -- what is decided on --------------------------------------------------------------------------------------------

    def _instrument(self, name: str) -> Instrument:
        return Instrument(
            symbol=name,
            price_tick=Decimal("0.01"),
            quantity_step=self.rng.choice([Decimal("0.00001"), Decimal("0.001"), Decimal(1)]),
            min_quantity=Decimal("0.00001"),
            max_quantity=self.rng.choice([Decimal(1), Decimal(1000)]),
            min_notional=Decimal(5),
        )

    def _snapshot(self) -> Snapshot:
        assert self.mark is not None
        self.breaker = as_of(self.breaker, self.now_ms, self.policy)
        breaker = None if self.breaker.state is BreakerState.CLOSED else self.breaker.view
        rng = self.rng
        # What is not known is held against entries: now and then the counts are not.
        is_counted = self.policy.counts_trades and rng.random() < 0.97
        return Snapshot(
            candle_close_ms=self.now_ms,
            trading_state=rng.choices(list(TradingState), [18, 1, 1])[0],
            account=account_of(self.mark),
            candidates=tuple(self._candidate(name) for name in rng.sample(SYMBOLS, rng.randrange(1, 6))),
            positions=dict(sorted(self.book.positions().items())),
            in_flight=dict(sorted(self.book.in_flight().items())),
            heat=dict(sorted(self.book.heat().items())),
            instruments=self.instruments,
            quotes={name: self._quote(name) for name in SYMBOLS},
            last_entry_ms=dict(self.book.last_entry_ms),
            timeframe_ms=STEP_MS,
            risk=RiskView(
                emergency="drill" if self.record.standing else "",
                missing="DATA_FEED" if rng.random() < 0.03 else "",
                breaker=breaker,
                clusters=self.clusters,
                betas=self.betas,
            ),
            bias=drawn_bias(rng) if rng.random() < 0.2 else UNSET,
            recent=self.book.recent(self.now_ms) if is_counted else UNSET,
            resolution=drawn_resolution(rng, SYMBOLS) if rng.random() < 0.3 else UNSET,
        )

    def _candidate(self, name: str) -> Candidate:
        rng, self._number = self.rng, self._number + 1
        direction = rng.choice([Direction.LONG, Direction.LONG, Direction.SHORT, Direction.SHORT, Direction.FLAT])
        expected = rng.choice([0.0, 0.01, 0.02, 0.1, 0.1]) * (-1 if direction is Direction.SHORT else 1)
        signal = SignalScore(
            symbol=name, direction=direction, probability=rng.uniform(0.48, 1.0), expected_return=expected, members=(),
            consensus=1, model_version="limits", feature_time_ms=self.now_ms, trace_id=f"{self.now_ms}-{self._number}",
            regime=rng.choice(["unknown", "trending_calm"]),
        )  # fmt: skip
        close = float(self.prices[name])
        atr = close * rng.choices([0.0, 0.0005, 0.002, 0.01, 0.05, 5.0], [1, 5, 10, 8, 2, 1])[0]
        return Candidate(signal=signal, atr=atr, close=close, threshold=rng.choice([0.5, 0.6]))

    def _quote(self, name: str) -> Quote:
        price, tick = self.prices[name], Decimal("0.01")
        bid = (price / tick).to_integral_value() * tick
        return Quote(symbol=name, bid=bid, ask=bid + tick * self.rng.randrange(0, 4), event_time_ms=self.now_ms)

    # -- what must hold ------------------------------------------------------------------------------------------------

    def scene(self, snapshot: Snapshot) -> Scene:
        """Return what a decision on a snapshot is held against."""
        return Scene(
            snapshot=snapshot,
            policy=self.policy,
            now_ms=self.now_ms,
            is_stopped=bool(self.record.standing),
            entered=self.entered,
            lost=self.lost,
        )

    def _blocked(self, snapshot: Snapshot) -> list[str]:
        """Return exits that something blocks: no state, stop, breaker or limit may."""
        limit_ms = self.policy.max_holding_candles * STEP_MS
        overdue = {
            name
            for name, one in snapshot.positions.items()
            if self.now_ms >= one.entry_time_ms - one.entry_time_ms % STEP_MS + limit_ms
        }
        due = set(due_exits(snapshot.positions, candle_close_ms=self.now_ms, policy=self.policy, timeframe_ms=STEP_MS))
        wrong = [f"time barrier: {name} not left in time" for name in overdue ^ due]
        for trade in self.book.active():
            if trade.open_quantity > 0:
                if next_step(replace(trade, exit_reason=ExitReason.EMERGENCY)) is None:
                    wrong.append(f"exits: {trade.symbol} cannot be left")
                if trade.symbol in due:
                    self._tell(ExitRequested(trade_id=trade.plan.trade_id, reason=ExitReason.TIME_BARRIER))
        return wrong
