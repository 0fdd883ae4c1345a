"""
The final word of a backtest: the worker's own decisions, candle by candle, at the sandbox's own matching engine.

Decisions are `inference.decision.decide`, exits `due_exits`, orders the worker's own book and next step, fills and fees
the engine's; only the clock is virtual. At each close the order of events is that of the wire: the first price of the
new candle, funding, then the decision on what closed, entries and exits at that price, and the candle's further prices.
An entry that rests fills at its own price once a price lies beyond it, never at the touch, and is looked at by the
worker at each price of the candle.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from msgspec import UNSET

from flows.replay.execution import InstantExecution
from flows.replay.market import RATE_UNIT, Floats, Intrabar, ScoredMarket, VenueCosts
from flows.replay.outcome import END_OF_DATA, BacktestRun, BacktestTrade
from flows.replay.risk import ReplayedRisk
from flows.replay.ways import Way, holding_way, resting_way
from inference.decision import decide, due_exits
from inference.domain.decision import Approved, Candidate, Decision, Snapshot, TradingState
from inference.domain.events import AccountMarked
from inference.domain.exit_profile import BUILT_IN, ExitProfile
from inference.domain.market import Instrument, Quote
from inference.domain.policy import Policy
from inference.domain.signal import Direction
from inference.domain.trade import ExitReason, TradeResult
from inference.policy.exit_profiles import usable_exit_profile
from inference.risk.emergency import Trip, positions_to_close
from inference.signals.scoring import signals
from inference.supervision.account_marks import account_of, marked
from infra.sandbox.engine import path
from infra.sandbox.engine.book import BookModel
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.fees import Fees
from infra.sandbox.engine.instrument import Instrument as VenueInstrument
from infra.sandbox.engine.model import STOPS, Side
from infra.sandbox.engine.position import cents
from infra.sandbox.engine.state import new_state

VENUE = "backtest"


def replay(
    market: ScoredMarket,
    policy: Policy,
    *,
    balance: Decimal,
    costs: VenueCosts | None = None,
    intrabar: Intrabar = Intrabar.PATH,
    exits: Mapping[str, ExitProfile] = BUILT_IN,
    progress: Callable[[float], None] = lambda _: None,
) -> BacktestRun:
    """
    Trade a market as the worker would have, and close what is open at the last candle.

    Args:
        market: Candles and opinions.
        policy: The rules, all of them.
        balance: What the account holds at the start, in quote currency.
        costs: What the venue charges.
        intrabar: In which order a candle's extremes came.
        exits: The exit profiles that the policy may name.
        progress: Told the fraction done.

    Raises:
        PolicyError: The policy names an exit profile that there is not, or that has no target.
    """
    walk = _Walk(market, policy, balance=balance, costs=costs or VenueCosts(), intrabar=intrabar, exits=exits)
    for row in range(1, len(market)):
        if not walk.candle(row):
            break
        if row % 256 == 0:
            progress(row / len(market))
    return walk.end()


@dataclass(frozen=True, slots=True)
class _Scores:
    """Opinions of one candle, as `signals` reads them."""

    expected_return: Floats
    probability_up: Floats

    @property
    def members(self) -> dict[str, Floats]:
        return {}

    @property
    def consensus(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.zeros(len(self.expected_return), np.int64)


class _Walk:
    def __init__(
        self,
        market: ScoredMarket,
        policy: Policy,
        *,
        balance: Decimal,
        costs: VenueCosts,
        intrabar: Intrabar,
        exits: Mapping[str, ExitProfile] = BUILT_IN,
    ) -> None:
        self._market, self._policy, self._intrabar = market, policy, intrabar
        self._exits = usable_exit_profile(policy, exits)
        state = new_state(balance)
        state.leverage = dict.fromkeys(market.symbols, policy.leverage)
        self._exchange = Exchange(
            market.instruments,
            state,
            fees=Fees(maker=costs.maker_fee, taker=costs.taker_fee),
            book=BookModel(spread_bps=costs.spread_bps, gap_bps=costs.gap_bps),
        )
        self._risk = ReplayedRisk(market, policy)
        self._execution = InstantExecution(
            self._exchange, policy, quote=self._quote, valid_ms=market.timeframe_ms, told=self._risk.hear
        )
        self._instruments = {one.symbol: _instrument(one) for one in market.instruments}
        self._scored = np.isfinite(market.probability_up)
        self._account: AccountMarked | None = None
        self._account_ms = 0
        self._denied: Counter[str] = Counter()
        self._approved = 0
        self._funding = {int(time_ms): row for row, time_ms in enumerate(market.funding_time_ms)}
        self._equity = np.full(len(market) + 1, np.nan)
        self._exposure = np.zeros(len(market) + 1)
        self._equity[0] = float(balance)
        self._rows = 1
        self._liquidated_ms: int | None = None
        self._set_prices(market.close[0])

    def candle(self, row: int) -> bool:
        """Walk through one candle; False where the account is gone."""
        now_ms = int(self._market.open_time_ms[row])
        self._first_price(row, now_ms)
        if self._exchange.liquidate_if_needed(now_ms=now_ms):
            self._execution.hear(now_ms=now_ms)
            self._liquidated_ms = now_ms
            return False
        mark = self._mark(row, now_ms)
        trip = self._risk.trip(mark, now_ms)
        if trip is not None:
            self._act(trip, now_ms)
        snapshot = self._snapshot(row, now_ms, mark)
        decisions = decide(snapshot, self._policy, now_ms)
        self._count(decisions)
        for decision in decisions:
            if isinstance(decision, Approved):
                self._execution.enter(decision, now_ms=now_ms)
        due = due_exits(
            self._execution.book.timed(),
            candle_close_ms=now_ms,
            policy=self._policy,
            timeframe_ms=self._market.timeframe_ms,
        )
        for symbol in due:
            self._execution.leave(symbol, ExitReason.TIME_BARRIER, now_ms=now_ms)
        if self._exits is not None:
            self._execution.observe(self._closes(row - 1), now_ms=now_ms)
        self._further_prices(row, now_ms)
        self._set_prices(self._market.close[row])
        self._rows = row + 1
        return True

    def end(self) -> BacktestRun:
        """Close what is open, and say what came of it all."""
        market = self._market
        end_ms = int(market.open_time_ms[self._rows - 1]) + market.timeframe_ms
        self._execution.give_up(now_ms=end_ms)
        closed_before = len(self._execution.results)
        if self._liquidated_ms is None:
            for symbol in sorted(self._execution.book.positions()):
                self._execution.leave(symbol, ExitReason.OPERATOR, now_ms=end_ms)
        self._equity[self._rows] = float(self._exchange.margin().balance)
        funding = {(one.symbol, one.opened_ms): one.funding for one in self._exchange.state.trips}
        trades = [
            _trade(
                result,
                funding.get((result.symbol, result.opened_at_ms), Decimal(0)),
                END_OF_DATA if place >= closed_before else result.reason.value,
            )
            for place, (_, result) in enumerate(self._execution.results)
            if result.reason is not ExitReason.NOT_ENTERED
        ]
        return BacktestRun(
            trades=tuple(sorted(trades, key=lambda one: (one.closed_ms, one.symbol, one.opened_ms))),
            time_ms=np.append(market.open_time_ms[: self._rows], end_ms),
            equity=self._equity[: self._rows + 1],
            exposure=self._exposure[: self._rows + 1],
            denied=dict(self._denied),
            approved=self._approved,
            liquidated_ms=self._liquidated_ms,
            stopped_ms=self._risk.stopped_ms,
        )

    def _first_price(self, row: int, now_ms: int) -> None:
        opened = self._market.open[row]
        active = self._exchange.active_symbols()
        prices = {
            instrument.symbol: instrument.price(int(opened[place]))
            for place, instrument in enumerate(self._market.instruments)
            if opened[place] > 0
        }
        self._exchange.state.last_prices.update(prices)
        self._exchange.tick({one: price for one, price in prices.items() if one in active}, now_ms=now_ms)
        self._execution.hear(now_ms=now_ms)
        self._execution.watch(now_ms=now_ms)
        boundary = self._funding.get(now_ms)
        if boundary is not None:
            rates = self._market.funding_rate[boundary]
            self._exchange.settle_funding(
                {
                    symbol: Decimal(int(rate)) / RATE_UNIT
                    for symbol, rate in zip(self._market.symbols, rates, strict=True)
                    if rate
                },
                now_ms=now_ms,
            )

    def _set_prices(self, ticks: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> None:
        last = self._exchange.state.last_prices
        for instrument, price in zip(self._market.instruments, ticks.tolist(), strict=True):
            if price > 0:
                last[instrument.symbol] = instrument.price(price)

    def _closes(self, row: int) -> dict[str, Decimal]:
        prices = zip(self._market.instruments, self._market.close[row].tolist(), strict=True)
        return {instrument.symbol: instrument.price(ticks) for instrument, ticks in prices if ticks > 0}

    def _mark(self, row: int, now_ms: int) -> AccountMarked:
        exchange = self._exchange
        equity = exchange.margin().balance
        self._account = marked(self._account, self._account_ms, equity=equity, now_ms=now_ms)
        self._account_ms = now_ms
        self._risk.hear(self._account, now_ms)
        self._equity[row] = float(equity)
        last = exchange.state.last_prices
        self._exposure[row] = float(
            sum(abs(one.quantity) * last[one.symbol] for one in exchange.state.open_positions())
        )
        return self._account

    def _act(self, trip: Trip, now_ms: int) -> None:
        """Do what an emergency stop does: end entries, and close what it closes at the price in force."""
        self._execution.give_up(now_ms=now_ms)
        book = self._execution.book
        positions = book.positions()
        closing = positions_to_close(
            trip.actions,
            positions=positions,
            quotes={symbol: self._quote(symbol, now_ms) for symbol in positions},
            heat=book.heat(),
            reduce_share=self._policy.emergency_reduce_share,
        )
        for symbol in sorted(closing):
            self._execution.leave(symbol, ExitReason.EMERGENCY, now_ms=now_ms)

    def _snapshot(self, row: int, now_ms: int, mark: AccountMarked) -> Snapshot:
        book, market = self._execution.book, self._market
        candidates = self._candidates(row - 1, now_ms)
        return Snapshot(
            candle_close_ms=now_ms,
            trading_state=TradingState.ACTIVE,
            account=account_of(mark),
            candidates=candidates,
            positions=book.positions(),
            in_flight=book.in_flight(),
            heat=book.heat(),
            instruments=self._instruments,
            quotes={one.signal.symbol: self._quote(one.signal.symbol, now_ms) for one in candidates},
            last_entry_ms=dict(book.last_entry_ms),
            timeframe_ms=market.timeframe_ms,
            risk=self._risk.view(row, now_ms),
            recent=book.recent(now_ms) if self._policy.counts_trades else UNSET,
            exits=UNSET if self._exits is None else self._exits,
        )

    def _candidates(self, row: int, now_ms: int) -> tuple[Candidate, ...]:
        market = self._market
        places = np.flatnonzero(self._scored[row])
        given = signals(
            _Scores(market.expected_return[row, places], market.probability_up[row, places]),
            symbols=[market.symbols[place] for place in places],
            feature_times_ms=[now_ms] * len(places),
            venue=VENUE,
            model_version=market.model_version,
            weights={},
            regimes=None if market.regimes is None else market.regimes[row, places].tolist(),
        )
        return tuple(
            Candidate(
                signal=signal,
                atr=float(market.atr[row, place]),
                close=float(market.instruments[place].price(int(market.close[row, place]))),
                threshold=market.threshold,
            )
            for signal, place in zip(given, places.tolist(), strict=True)
        )

    def _quote(self, symbol: str, now_ms: int) -> Quote:
        instrument = self._exchange.instruments[symbol]
        last = self._exchange.state.last_prices[symbol]
        book = self._exchange.book
        return Quote(
            symbol=symbol,
            bid=book.best(instrument, last, Side.SELL),
            ask=book.best(instrument, last, Side.BUY),
            event_time_ms=now_ms,
        )

    def _count(self, decisions: tuple[Decision, ...]) -> None:
        for decision in decisions:
            if isinstance(decision, Approved):
                self._approved += 1
            else:
                self._denied[decision.code.value] += 1

    def _further_prices(self, row: int, now_ms: int) -> None:
        """Show the engine the prices inside a candle, of those symbols whose stop or target lies within it."""
        ways = self._while_entries_rest(row, now_ms) if self._execution.resting else {}
        market = self._market
        for symbol, position in sorted(self._execution.book.positions().items()):
            place = market.symbols.index(symbol)
            if not market.open[row, place] or not self._reaches(symbol, row, place):
                continue
            for step, ticks in ways[symbol] if symbol in ways else self._way(row, place, position.direction):
                at_ms = now_ms + step * path.STEP_MS
                self._exchange.tick({symbol: market.instruments[place].price(ticks)}, now_ms=at_ms)
                if self._execution.hear(now_ms=at_ms) and not self._exchange.open_algos(symbol):
                    break

    def _while_entries_rest(self, row: int, now_ms: int) -> dict[str, deque[tuple[int, int]]]:
        """
        Show the engine all prices that the account depends on, one by one, until no entry rests any more.

        Returns those that are still to come, by symbol.
        """
        market, execution = self._market, self._execution
        directions = {trade.symbol: trade.plan.direction for trade in execution.book.active()}
        places = {symbol: place for place, symbol in enumerate(market.symbols) if symbol in directions}
        ways = {
            symbol: deque(
                resting_way(market, row, place)
                if symbol in execution.resting
                else self._way(row, place, directions[symbol])
            )
            for symbol, place in places.items()
        }
        for step in range(1, market.timeframe_ms // path.STEP_MS):
            resting = execution.resting
            if not resting:
                break
            at_ms = now_ms + step * path.STEP_MS
            for symbol, way in ways.items():
                while way and way[0][0] <= step:
                    price = market.instruments[places[symbol]].price(way.popleft()[1])
                    self._exchange.tick({symbol: price}, now_ms=at_ms)
                    execution.hear(now_ms=at_ms)
            execution.watch(now_ms=at_ms)
            held = execution.book.positions()
            for symbol in set(resting).difference(execution.resting):
                ways[symbol] = deque(
                    self._way(row, places[symbol], directions[symbol], after=step) if symbol in held else ()
                )
        return ways

    def _way(self, row: int, place: int, direction: Direction, *, after: int = 0) -> Way:
        stop = self._stop_ticks
        return holding_way(self._market, row, place, direction, self._intrabar, stop_ticks=stop, after=after)

    def _reaches(self, symbol: str, row: int, place: int) -> bool:
        instrument = self._market.instruments[place]
        low, high = (instrument.price(int(side[row, place])) for side in (self._market.low, self._market.high))
        return any(low <= algo.trigger_price <= high for algo in self._exchange.open_algos(symbol))

    def _stop_ticks(self, place: int) -> int:
        instrument = self._market.instruments[place]
        stops = (one for one in self._exchange.open_algos(instrument.symbol) if one.type in STOPS)
        return int(next(stops).trigger_price / instrument.tick)


def _instrument(one: VenueInstrument) -> Instrument:
    """Return an instrument as the worker reads it from the venue's filters."""
    return Instrument(
        symbol=one.symbol,
        price_tick=one.tick,
        quantity_step=one.step,
        min_quantity=one.step,
        max_quantity=min(one.max_quantity, one.max_market_quantity),
        min_notional=one.min_notional,
    )


def _trade(result: TradeResult, funding: Decimal, reason: str) -> BacktestTrade:
    assert result.entry_price is not None
    assert result.exit_price is not None
    return BacktestTrade(
        symbol=result.symbol,
        direction=result.direction,
        reason=reason,
        quantity=result.quantity,
        entry_price=result.entry_price,
        exit_price=result.exit_price,
        # An average price has no last digit; money is what the venue keeps of it.
        pnl=cents(result.pnl),
        fees=cents(result.fees),
        funding=funding,
        opened_ms=result.opened_at_ms,
        closed_ms=result.closed_at_ms,
    )
