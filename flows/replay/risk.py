"""What risk looks at beside the account, in a backtest: the same stop, breaker and clusters as a worker's."""

from __future__ import annotations

import numpy as np

from flows.replay.market import ScoredMarket
from inference.domain.events import AccountMarked, Event
from inference.domain.health import HealthLevel
from inference.domain.policy import Policy
from inference.domain.risk import BreakerState, RiskView
from inference.portfolio.correlation import CoMovement, co_movement
from inference.risk.breaker import Breaker, after, as_of
from inference.risk.emergency import EmergencyInputs, Trip, bases_of, evaluate
from inference.risk.errors import ErrorCounts
from inference.supervision.account_marks import account_of


class ReplayedRisk:
    """
    The emergency stop by drawdown, the trading breaker and the co-movement of symbols over one walk.

    A worker looks at equity several times a second, a backtest where a candle opens. Nobody resets a stop in a
    backtest: once latched, nothing is entered any more, as with a worker that is left alone.
    """

    def __init__(self, market: ScoredMarket, policy: Policy) -> None:
        self.stopped_ms: int | None = None
        self._market, self._policy = market, policy
        self._emergency = ""
        self._breaker = Breaker()
        limits = (policy.max_correlated_exposure, policy.max_btc_beta, policy.governor_max_companions)
        self._correlates = policy.ranks_clusters or any(one is not None for one in limits)
        units = np.array([float(one.tick) for one in market.instruments])
        self._closes = (
            np.where(market.close > 0, market.close * units, np.nan) if self._correlates else np.empty((0, 0))
        )

    def hear(self, event: Event, at_ms: int) -> None:
        """Take in an event of execution or a mark of the account."""
        self._breaker = after(self._breaker, event, at_ms, self._policy)

    def trip(self, mark: AccountMarked, now_ms: int) -> Trip | None:
        """Return what the emergency stop does about the account's marks, the first time that it does anything."""
        if self._emergency:
            return None
        account = account_of(mark)
        verdict = evaluate(
            EmergencyInputs(
                account=account,
                account_age_seconds=0.0,
                bases=bases_of(account, reset_equity=None, same_day=False, same_week=False),
                health=HealthLevel.OPTIMAL,
                health_seconds=0.0,
                errors=ErrorCounts(in_row=0, failed=0, outcomes=0),
                feed_overdue_seconds=0.0,
            ),
            self._policy,
        )
        for trip in verdict.trips:
            self._emergency, self.stopped_ms = trip.reason, now_ms
            return trip
        return None

    def view(self, row: int, now_ms: int) -> RiskView:
        """Return what is known of risk where the candle of a row opens."""
        self._breaker = as_of(self._breaker, now_ms, self._policy)
        moves = self._co_movement(row, now_ms)
        return RiskView(
            emergency=self._emergency,
            breaker=None if self._breaker.state is BreakerState.CLOSED else self._breaker.view,
            clusters=moves.clusters,
            betas=moves.betas,
        )

    def _co_movement(self, row: int, now_ms: int) -> CoMovement:
        """Correlate what a worker has beforehand: the candles up to the one before the last that closed."""
        if not self._correlates or row < 2:
            return CoMovement()
        market, policy = self._market, self._policy
        window = slice(max(0, row - 2 - policy.correlation_window_candles), row - 1)
        times = market.open_time_ms[window]
        return co_movement(
            {symbol: (times, self._closes[window, place]) for place, symbol in enumerate(market.symbols)},
            last_open_ms=now_ms - 2 * market.timeframe_ms,
            step_ms=market.timeframe_ms,
            window=policy.correlation_window_candles,
            threshold=float(policy.correlation_threshold),
        )
