"""What a decision is told of risk: the emergency stop, the breaker, and how symbols move together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from inference.domain.events import AccountMarked, Event, Noted
from inference.domain.policy import Policy
from inference.domain.risk import BreakerState, RiskView
from inference.portfolio.correlation import CoMovement, co_movement
from inference.risk.breaker import EVENT_OF, Breaker, after, as_of
from inference.risk.errors import ErrorCounts, ExecutionErrors
from inference.supervision.account_marks import account_of, day_of, week_of

LIMIT_EXCEEDED = "risk.limit_exceeded"
Closes = Mapping[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]


class RiskWatch:
    """
    Keeps breaker and error counts from the events of execution, and correlations from candles, once a candle.

    `closes` gives the newest closes of each symbol by open time; `emergency` and `withheld` why nothing may be entered.
    """

    def __init__(
        self,
        *,
        policy: Callable[[], Policy],
        timeframe_ms: int,
        closes: Callable[[], Closes],
        note: Callable[[str, Mapping[str, str]], None],
        monotonic: Callable[[], float],
        breaker: Breaker | None = None,
    ) -> None:
        self.breaker = breaker or Breaker()
        self.co_movement = CoMovement()
        self.emergency: Callable[[], str] = lambda: ""
        self.withheld: Callable[[], str] = lambda: ""
        self._policy = policy
        self._timeframe_ms = timeframe_ms
        self._closes = closes
        self._note = note
        self._monotonic = monotonic
        self._errors = ExecutionErrors(window_seconds=policy().emergency_error_seconds)
        self._prepared_ms: int | None = None
        self._told: dict[str, tuple[str, int]] = {}

    def hear(self, event: Event, at_ms: int) -> None:
        """Take in an event of execution, and tell what the breaker makes of it."""
        self._errors.note(event, self._monotonic())
        if isinstance(event, AccountMarked):
            self._tell_limits(event, at_ms)
        if not isinstance(event, Noted):
            self._move(after(self.breaker, event, at_ms, self._policy()))

    def errors(self) -> ErrorCounts:
        """Return the outcomes of orders that were counted."""
        self._errors.window_seconds = self._policy().emergency_error_seconds
        return self._errors.counts(self._monotonic())

    def forget_errors(self) -> None:
        """Count orders' outcomes anew."""
        self._errors.forget()

    def prepare(self, close_ms: int) -> None:
        """
        Correlate the candles that are here when others close at `close_ms`: those up to the one before.

        Done while the closing candles are on their way, so that no decision waits for it.
        """
        if self._prepared_ms == close_ms:
            return
        self._prepared_ms = close_ms
        policy = self._policy()
        limits = (policy.max_correlated_exposure, policy.max_btc_beta, policy.governor_max_companions)
        if not policy.ranks_clusters and all(one is None for one in limits):
            self.co_movement = CoMovement()
            return
        self.co_movement = co_movement(
            self._closes(),
            last_open_ms=close_ms - 2 * self._timeframe_ms,
            step_ms=self._timeframe_ms,
            window=policy.correlation_window_candles,
            threshold=float(policy.correlation_threshold),
        )

    def view(self, close_ms: int, now_ms: int) -> RiskView:
        """Return what is known of risk for a decision on the candles that closed at `close_ms`."""
        self.prepare(close_ms)
        self._move(as_of(self.breaker, now_ms, self._policy()))
        breaker = self.breaker
        return RiskView(
            emergency=self.emergency(),
            missing=self.withheld(),
            breaker=None if breaker.state is BreakerState.CLOSED else breaker.view,
            clusters=self.co_movement.clusters,
            betas=self.co_movement.betas,
        )

    def _tell_limits(self, mark: AccountMarked, at_ms: int) -> None:
        """Tell, once a day or a week, that a drawdown has reached what is told of or held back by."""
        policy, account = self._policy(), account_of(mark)
        day, week = ("day", day_of(at_ms)), ("week", week_of(at_ms))
        weekly = account.weekly_drawdown
        reached = (
            ("warn_daily_drawdown", account.daily_drawdown, policy.warn_daily_drawdown, day),
            ("max_daily_drawdown", account.daily_drawdown, policy.max_daily_drawdown, day),
            ("max_weekly_drawdown", weekly, policy.max_weekly_drawdown, week),
        )
        for name, drawdown, limit, period in reached:
            if drawdown is not None and drawdown >= limit and self._told.get(name) != period:
                self._told[name] = period
                told = {"limit": name, "drawdown": str(drawdown), "maximum": str(limit), "equity": str(account.equity)}
                self._note(LIMIT_EXCEEDED, told)

    def _move(self, breaker: Breaker) -> None:
        earlier, self.breaker = self.breaker, breaker
        if (breaker.state, breaker.until_ms) != (earlier.state, earlier.until_ms):
            detail = {"reason": breaker.reason or earlier.reason, "until_ms": str(breaker.until_ms)}
            self._note(EVENT_OF[breaker.state], detail)
