"""A worker's decisions, evaluators and executions at the matching engine, along prices to which something happens."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from flows.replay.execution import InstantExecution
from inference.decision import decide, due_exits
from inference.domain.decision import Approved, Candidate, Snapshot, TradingState
from inference.domain.events import AccountMarked, PositionFoundChanged
from inference.domain.health import HealthLevel
from inference.domain.market import Instrument, Quote
from inference.domain.policy import Policy
from inference.domain.risk import RiskView
from inference.domain.signal import Direction, SignalScore
from inference.domain.trade import ExitReason
from inference.portfolio.correlation import CoMovement, co_movement
from inference.risk.emergency import EmergencyInputs, Evaluator, Trip, bases_of, evaluate, positions_to_close
from inference.risk.errors import ErrorCounts
from inference.supervision.account_marks import account_of, marked
from infra.sandbox.audit import is_protected
from infra.sandbox.engine.book import BookModel
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.fees import Fees
from infra.sandbox.engine.instrument import Instrument as VenueInstrument
from infra.sandbox.engine.instrument import instrument_for_price
from infra.sandbox.engine.model import OrderRequest, OrderType, Side
from infra.sandbox.engine.state import new_state

Floats = npt.NDArray[np.float64]
START_MS = 1_767_574_800_000
STEP_MS = 300_000
_RANGE_CANDLES = 14
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """
    Prices of symbols, and what the venue does beside.

    `ticks` holds for each candle the prices within it, [moments, symbols]. `funding` are rates that are settled as a
    candle opens, `delisted` symbols that the venue settles and takes away then, `dead` candles that nobody is told of.
    """

    symbols: tuple[str, ...]
    ticks: tuple[Floats, ...]
    funding: dict[int, Decimal] = field(default_factory=dict)
    delisted: dict[int, str] = field(default_factory=dict)
    dead: range = range(0)


@dataclass(slots=True)
class Seen:
    """What came of a story."""

    start_equity: Decimal = _ZERO
    least_equity: Decimal = _ZERO
    most_positions: int = 0
    entries: int = 0
    entries_stopped: int = 0
    trips: list[Trip] = field(default_factory=list)
    denied: Counter[str] = field(default_factory=Counter)
    denied_last: Counter[str] = field(default_factory=Counter)
    open_at_end: tuple[str, ...] = ()
    # Most positions that at some price, or after some candle's orders, had no stop at the venue for all they held.
    unprotected: int = 0

    @property
    def loss(self) -> Decimal:
        """The deepest fall of equity from the start, as a fraction of it."""
        return 1 - self.least_equity / self.start_equity

    @property
    def state(self) -> str:
        """In which state it ended: who stopped it, the limit that holds entries back, or ACTIVE."""
        if self.trips:
            return f"HALTED by {self.trips[0].evaluator.value}"
        limit = next((one for one in ("DAILY_DRAWDOWN", "WEEKLY_DRAWDOWN") if self.denied_last[one]), "")
        return f"ACTIVE, held by {limit}" if limit else "ACTIVE"


class ScenarioWalk:
    """One worker along one story; it believes in every symbol at every candle, so that limits alone hold it back."""

    def __init__(self, story: Story, policy: Policy, *, balance: Decimal) -> None:
        """Begin with an empty account at the story's first prices."""
        self.story, self.policy, self.seen = story, policy, Seen()
        first = story.ticks[0][0]
        self._listed: dict[str, VenueInstrument] = {
            name: instrument_for_price(_native(name), name.split("/")[0], float(price), depth_notional=400_000)
            for name, price in zip(story.symbols, first, strict=True)
        }
        state = new_state(balance)
        state.leverage = {one.symbol: policy.leverage for one in self._listed.values()}
        self._exchange = Exchange(list(self._listed.values()), state, fees=Fees(), book=BookModel())
        self._execution = InstantExecution(self._exchange, policy, quote=self._quote, valid_ms=STEP_MS)
        self._names = {one.symbol: name for name, one in self._listed.items()}
        self._places = {name: place for place, name in enumerate(story.symbols)}
        self._mark: AccountMarked | None = None
        self._mark_ms = 0
        self._movement = CoMovement()
        self.seen.start_equity = self.seen.least_equity = self._equity = balance

    def run(self) -> Seen:
        """Walk to the end."""
        for row, ticks in enumerate(self.story.ticks):
            open_ms = START_MS + row * STEP_MS
            self._venue_does(row, ticks[0], open_ms)
            for moment, prices in enumerate(ticks):
                now_ms = open_ms + moment * STEP_MS // len(ticks)
                self._tick(prices, now_ms)
                self._watch(row, now_ms)
            self.seen.most_positions = max(self.seen.most_positions, len(self._execution.book.positions()))
            if row >= _RANGE_CANDLES and row not in self.story.dead:
                self._candle(row, open_ms + STEP_MS)
        self.seen.open_at_end = tuple(self._names[one.symbol] for one in self._exchange.state.open_positions())
        return self.seen

    # -- what the venue does -------------------------------------------------------------------------------------------

    def _venue_does(self, row: int, prices: Floats, now_ms: int) -> None:
        if rate := self.story.funding.get(row):
            self._tick(prices, now_ms)
            self._exchange.settle_funding({one.symbol: rate for one in self._listed.values()}, now_ms=now_ms)
        name = self.story.delisted.get(row)
        if name is not None:
            self._settle(name, now_ms)

    def _settle(self, name: str, now_ms: int) -> None:
        """Close a symbol's position as the venue does that takes it away, and let the worker find that."""
        native = self._listed[name].symbol
        for held in [one for one in self._exchange.state.open_positions() if one.symbol == native]:
            side = Side.SELL if held.quantity > 0 else Side.BUY
            request = OrderRequest(native, side, OrderType.MARKET, abs(held.quantity), reduce_only=True)
            self._exchange.submit(request, now_ms=now_ms)
        price = self._exchange.state.last_prices[native]
        for trade in self._execution.book.active_in(native):
            found = PositionFoundChanged(
                trade_id=trade.plan.trade_id, symbol=native, open_quantity=_ZERO, price=price, reason="delisted"
            )
            self._execution.book.apply(found)
        self._execution.hear(now_ms=now_ms)
        self._execution.leave(native, ExitReason.EXTERNAL, now_ms=now_ms)
        del self._listed[name]

    def _tick(self, prices: Floats, now_ms: int) -> None:
        told = {
            one.symbol: one.price(round(float(prices[self._places[name]]) / float(one.tick)))
            for name, one in self._listed.items()
        }
        self._exchange.state.last_prices.update(told)
        self._exchange.tick(told, now_ms=now_ms)
        self._exchange.liquidate_if_needed(now_ms=now_ms)
        self._execution.hear(now_ms=now_ms)
        self._look_for_stops()
        equity = self._exchange.margin().balance
        self.seen.least_equity = min(self.seen.least_equity, equity)
        self._equity = equity

    def _look_for_stops(self) -> None:
        bare = sum(not is_protected(self._exchange, one) for one in self._exchange.state.open_positions())
        self.seen.unprotected = max(self.seen.unprotected, bare)

    # -- what the worker does ------------------------------------------------------------------------------------------

    def _watch(self, row: int, now_ms: int) -> None:
        """Ask the evaluators, as the worker does several times a second, and do what a trip asks for."""
        equity = self._equity
        mark = self._mark or marked(None, now_ms, equity=equity, now_ms=now_ms)
        account = replace(account_of(mark), equity=equity)
        since = START_MS + self.story.dead.start * STEP_MS + STEP_MS
        verdict = evaluate(
            EmergencyInputs(
                account=account,
                account_age_seconds=1.0,
                bases=bases_of(account, reset_equity=None, same_day=False, same_week=False),
                health=HealthLevel.HEALTHY,
                health_seconds=0.0,
                errors=ErrorCounts(),
                feed_overdue_seconds=max(0.0, (now_ms - since) / 1000) if row in self.story.dead else 0.0,
            ),
            self.policy,
        )
        for trip in verdict.trips:
            if all(one.evaluator is not trip.evaluator for one in self.seen.trips):
                self.seen.trips.append(trip)
                self._close(trip, now_ms)

    def _close(self, trip: Trip, now_ms: int) -> None:
        book = self._execution.book
        closing = positions_to_close(
            trip.actions,
            positions=book.positions(),
            quotes={} if trip.evaluator is Evaluator.DATA_FEED else self._quotes(now_ms),
            heat=book.heat(),
            reduce_share=self.policy.emergency_reduce_share,
        )
        for native in closing:
            self._execution.leave(native, ExitReason.EMERGENCY, now_ms=now_ms)

    def _candle(self, row: int, now_ms: int) -> None:
        self._correlate(row)
        equity = self._exchange.margin().balance
        self._mark = marked(self._mark, self._mark_ms, equity=equity, now_ms=now_ms)
        self._mark_ms = now_ms
        snapshot = self._snapshot(row, now_ms)
        decisions = decide(snapshot, self.policy, now_ms)
        self.seen.denied_last.clear()
        for decision in decisions:
            if isinstance(decision, Approved):
                self.seen.entries += 1
                self.seen.entries_stopped += bool(self.seen.trips)
                self._execution.enter(decision, now_ms=now_ms)
            else:
                self.seen.denied[decision.code.value] += 1
                self.seen.denied_last[decision.code.value] += 1
        positions = self._execution.book.positions()
        for native in due_exits(positions, candle_close_ms=now_ms, policy=self.policy, timeframe_ms=STEP_MS):
            self._execution.leave(native, ExitReason.TIME_BARRIER, now_ms=now_ms)
        self._look_for_stops()

    def _correlate(self, row: int) -> None:
        if row % 12 and self._movement.clusters:
            return
        rows = range(max(0, row - 288), row + 1)
        times = np.array([START_MS + one * STEP_MS for one in rows], np.int64)
        closes = np.array([self.story.ticks[one][-1] for one in rows])
        self._movement = co_movement(
            {one.symbol: (times, closes[:, self._places[name]]) for name, one in self._listed.items()},
            last_open_ms=int(times[-1]),
            step_ms=STEP_MS,
            window=288,
            threshold=float(self.policy.correlation_threshold),
        )

    def _snapshot(self, row: int, now_ms: int) -> Snapshot:
        assert self._mark is not None
        book = self._execution.book
        stopped = f"{self.seen.trips[0].evaluator.value}: {self.seen.trips[0].reason}" if self.seen.trips else ""
        return Snapshot(
            candle_close_ms=now_ms,
            trading_state=TradingState.HALTED if self.seen.trips else TradingState.ACTIVE,
            account=account_of(self._mark),
            candidates=tuple(self._candidate(name, row, now_ms) for name in self._listed),
            positions=book.positions(),
            in_flight=book.in_flight(),
            heat=book.heat(),
            instruments={one.symbol: _instrument(one) for one in self._listed.values()},
            quotes=self._quotes(now_ms),
            last_entry_ms=dict(book.last_entry_ms),
            timeframe_ms=STEP_MS,
            risk=RiskView(emergency=stopped, clusters=self._movement.clusters, betas=self._movement.betas),
        )

    def _candidate(self, name: str, row: int, now_ms: int) -> Candidate:
        place, native = self._places[name], self._listed[name].symbol
        recent = [ticks[:, place] for ticks in self.story.ticks[row - _RANGE_CANDLES + 1 : row + 1]]
        signal = SignalScore(
            symbol=native, direction=Direction.LONG, probability=0.8, expected_return=0.05, members=(), consensus=1,
            model_version="scenario", feature_time_ms=now_ms, trace_id=f"{native}-{now_ms}",
        )  # fmt: skip
        atr = float(np.mean([one.max() - one.min() for one in recent]))
        return Candidate(signal=signal, atr=atr, close=float(recent[-1][-1]), threshold=0.6)

    def _quotes(self, now_ms: int) -> dict[str, Quote]:
        return {one.symbol: self._quote(one.symbol, now_ms) for one in self._listed.values()}

    def _quote(self, native: str, now_ms: int) -> Quote:
        one, last, book = (
            self._exchange.instruments[native],
            self._exchange.state.last_prices[native],
            self._exchange.book,
        )
        return Quote(
            symbol=native,
            bid=book.best(one, last, Side.SELL),
            ask=book.best(one, last, Side.BUY),
            event_time_ms=now_ms,
        )


def _instrument(one: VenueInstrument) -> Instrument:
    return Instrument(
        symbol=one.symbol,
        price_tick=one.tick,
        quantity_step=one.step,
        min_quantity=one.step,
        max_quantity=one.max_market_quantity,
        min_notional=one.min_notional,
    )


def _native(name: str) -> str:
    return name.replace("/", "").split(":")[0]
