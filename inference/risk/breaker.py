"""The trading circuit breaker: pauses entries for a reason and for a time, then lets one through to try."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal

from msgspec import UnsetType

from inference.domain.decision import DenyCode, Snapshot
from inference.domain.events import AccountMarked, Event, Noted, OrderRefused, TradeClosed, TradePlanned
from inference.domain.policy import Policy
from inference.domain.risk import BreakerState, BreakerView
from inference.domain.trade import ExitReason, TradeResult
from inference.risk.errors import is_error
from inference.risk.refusal import Refusal, refuse

OPENED, HALF_OPENED, CLOSED = "risk.breaker_opened", "risk.breaker_half_opened", "risk.breaker_closed"
_TOLD = {OPENED: BreakerState.OPEN, HALF_OPENED: BreakerState.HALF_OPEN, CLOSED: BreakerState.CLOSED}
EVENT_OF = {state: name for name, state in _TOLD.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """
    What the breaker knows, as a journal's events tell it: live and after a restart by the same rules.

    Times are the venue's, in milliseconds. While OPEN it waits for `until_ms`; while HALF_OPEN one trade is tried, and
    by `until_ms` it closes where none lost. `results` are the trades that closed within the window, by their id; `used`
    are those of them that it has opened by, which count no more.
    """

    state: BreakerState = BreakerState.CLOSED
    reason: str = ""
    until_ms: int = 0
    tried: str = ""
    losses_in_row: int = 0
    equity: Decimal = Decimal(0)
    results: dict[str, tuple[int, Decimal]] = field(default_factory=dict)
    used: frozenset[str] = frozenset()
    errors: tuple[int, ...] = ()

    @property
    def view(self) -> BreakerView:
        """What a decision sees of it."""
        return BreakerView(state=self.state, reason=self.reason, until_ms=self.until_ms, is_tried=bool(self.tried))


def as_of(breaker: Breaker, now_ms: int, policy: Policy) -> Breaker:
    """Return the breaker once time has done its part: half open after its pause, closed after a second one."""
    if breaker.state is BreakerState.CLOSED or now_ms < breaker.until_ms:
        return breaker
    if breaker.state is BreakerState.OPEN:
        until_ms = now_ms + policy.breaker_pause_seconds * 1000
        return replace(breaker, state=BreakerState.HALF_OPEN, until_ms=until_ms, tried="")
    # A trade that is tried is waited for, however long it takes.
    return breaker if breaker.tried else _closed(breaker)


def after(breaker: Breaker, event: Event, at_ms: int, policy: Policy) -> Breaker:
    """Return the breaker after one event of the journal."""
    breaker = as_of(breaker, at_ms, policy)
    match event:
        case AccountMarked(equity=equity):
            return replace(breaker, equity=equity)
        case TradePlanned(plan=plan) if breaker.state is BreakerState.HALF_OPEN and not breaker.tried:
            return replace(breaker, tried=plan.trade_id)
        case TradeClosed(trade_id=key, result=result):
            return _after_trade(breaker, key, result, at_ms, policy)
        case OrderRefused(code=code) if is_error(code):
            return _judged(replace(breaker, errors=(*breaker.errors, at_ms)), at_ms, policy)
        case Noted(event_type=kind, detail=detail) if kind in _TOLD:
            return _told(breaker, _TOLD[kind], detail.get("reason", ""), detail.get("until_ms", ""))
        case _:
            return breaker


def breaker_refusal(snapshot: Snapshot, *, entries: int, now_ms: int) -> Refusal | None:
    """Refuse every entry while the breaker is open, and all but one while it is half open."""
    risk = snapshot.risk
    if isinstance(risk, UnsetType) or risk.breaker is None or risk.breaker.state is BreakerState.CLOSED:
        return None
    breaker = risk.breaker
    waits = breaker.state is BreakerState.OPEN and now_ms < breaker.until_ms
    if not waits and not breaker.is_tried and entries == 0:
        return None

    return refuse(
        DenyCode.BREAKER_OPEN,
        state=breaker.state,
        reason=breaker.reason or "unknown",
        until_ms=breaker.until_ms,
        now_ms=now_ms,
    )


def _after_trade(breaker: Breaker, key: str, result: TradeResult, at_ms: int, policy: Policy) -> Breaker:
    if result.reason is ExitReason.NOT_ENTERED or result.quantity <= 0:
        return replace(breaker, tried="") if breaker.tried == key else breaker
    # A late execution closes a trade again: it is the same loss.
    is_new = key not in breaker.results
    row = breaker.losses_in_row
    if is_new:
        row = row + 1 if result.pnl < 0 else 0
    pnl = Decimal(0) if key in breaker.used else result.pnl
    breaker = replace(breaker, losses_in_row=row, results={**breaker.results, key: (at_ms, pnl)})
    if breaker.state is BreakerState.HALF_OPEN and key == breaker.tried:
        return _opened(breaker, "the trade that was tried lost", at_ms, policy) if result.pnl < 0 else _closed(breaker)
    return _judged(breaker, at_ms, policy)


def _judged(breaker: Breaker, at_ms: int, policy: Policy) -> Breaker:
    since_ms = at_ms - policy.breaker_window_seconds * 1000
    results = {key: one for key, one in breaker.results.items() if one[0] > since_ms}
    breaker = replace(
        breaker,
        results=results,
        used=breaker.used & results.keys(),
        errors=tuple(one for one in breaker.errors if one > since_ms),
    )
    if breaker.state is BreakerState.OPEN:
        return breaker
    reason = _reason(breaker, policy)

    return _opened(breaker, reason, at_ms, policy) if reason else breaker


def _reason(breaker: Breaker, policy: Policy) -> str:
    if policy.breaker_losses is not None and breaker.losses_in_row >= policy.breaker_losses:
        return f"{breaker.losses_in_row} losses in a row, the limit is {policy.breaker_losses}"
    if policy.breaker_loss_share is not None:
        lost = -sum((pnl for _, pnl in breaker.results.values()), Decimal(0))
        limit = policy.breaker_loss_share * breaker.equity
        if lost > 0 and lost >= limit:
            return f"{lost:f} lost within {policy.breaker_window_seconds} s, the limit is {limit:f}"
    if policy.breaker_errors is not None and len(breaker.errors) >= policy.breaker_errors:
        window = policy.breaker_window_seconds
        return f"{len(breaker.errors)} orders refused within {window} s, the limit is {policy.breaker_errors}"

    return ""


def _opened(breaker: Breaker, reason: str, at_ms: int, policy: Policy) -> Breaker:
    # What made it open is used up: it opens again only by what comes after.
    return replace(
        breaker,
        state=BreakerState.OPEN,
        reason=reason,
        until_ms=at_ms + policy.breaker_pause_seconds * 1000,
        tried="",
        losses_in_row=0,
        results={key: (when, Decimal(0)) for key, (when, _) in breaker.results.items()},
        used=frozenset(breaker.results),
        errors=(),
    )


def _closed(breaker: Breaker) -> Breaker:
    return replace(breaker, state=BreakerState.CLOSED, reason="", until_ms=0, tried="")


def _told(breaker: Breaker, state: BreakerState, reason: str, until: str) -> Breaker:
    # What was journaled was so, whatever policy would make of it today.
    if state is BreakerState.CLOSED:
        return _closed(breaker)
    until_ms = int(until) if until.isascii() and until.isdigit() else breaker.until_ms
    return replace(breaker, state=state, reason=reason or breaker.reason, until_ms=until_ms)
