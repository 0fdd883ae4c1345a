"""What the account as a whole may lose, carry and risk."""

from __future__ import annotations

from decimal import Decimal

from msgspec import UnsetType

from inference.domain.decision import DenyCode, Snapshot, TradingState
from inference.domain.policy import Policy
from inference.domain.position import Account
from inference.portfolio.exposure import PortfolioLoad
from inference.risk.refusal import Refusal, refuse


def trading_state_refusal(state: TradingState) -> Refusal | None:
    """Refuse every entry unless trading is ACTIVE."""
    if state is TradingState.ACTIVE:
        return None

    return refuse(DenyCode.TRADING_STATE, trading_state=state, required=TradingState.ACTIVE)


def emergency_refusal(snapshot: Snapshot) -> Refusal | None:
    """Refuse every entry while the emergency stop is latched, or cannot tell that it need not be."""
    risk = snapshot.risk
    if isinstance(risk, UnsetType):
        return None
    if risk.emergency:
        return refuse(DenyCode.EMERGENCY_STOP, reason=risk.emergency, required="qtctl resume --reason ...")
    if risk.missing:
        return refuse(DenyCode.RISK_INPUT_MISSING, missing=risk.missing, required="an input that is not stale")

    return None


def drawdown_refusal(account: Account, policy: Policy) -> Refusal | None:
    """Refuse entries once the day's loss has reached the limit; an account without equity has lost everything."""
    drawdown = account.daily_drawdown if is_solvent(account) else Decimal(1)
    if not is_reached(drawdown, account.equity, account.day_start_equity, policy.max_daily_drawdown):
        return None

    return refuse(
        DenyCode.DAILY_DRAWDOWN,
        drawdown=drawdown,
        maximum=policy.max_daily_drawdown,
        equity=account.equity,
        day_start_equity=account.day_start_equity,
    )


def weekly_refusal(snapshot: Snapshot, policy: Policy) -> Refusal | None:
    """Refuse entries once the week's loss has reached the limit, or the fall from the peak its wall."""
    account = snapshot.account
    weekly, start = account.weekly_drawdown, account.week_start_equity
    if (
        weekly is not None
        and not isinstance(start, UnsetType)
        and is_reached(weekly, account.equity, start, policy.max_weekly_drawdown)
    ):
        return refuse(
            DenyCode.WEEKLY_DRAWDOWN,
            drawdown=weekly,
            maximum=policy.max_weekly_drawdown,
            equity=account.equity,
            week_start_equity=start,
        )
    if not isinstance(snapshot.risk, UnsetType) and is_reached(
        account.peak_drawdown, account.equity, account.peak_equity, policy.wall_peak_drawdown
    ):
        return refuse(
            DenyCode.PEAK_DRAWDOWN,
            drawdown=account.peak_drawdown,
            maximum=policy.wall_peak_drawdown,
            equity=account.equity,
            peak_equity=account.peak_equity,
        )

    return None


def exposure_refusal(load: PortfolioLoad, *, notional: Decimal, account: Account, policy: Policy) -> Refusal | None:
    """Refuse an entry whose notional would take gross exposure above its share of equity."""
    maximum = policy.max_exposure * account.equity
    if load.gross_notional + notional <= maximum:
        return None

    return refuse(
        DenyCode.EXPOSURE_ABOVE_MAXIMUM, open_notional=load.gross_notional, notional=notional, maximum=maximum
    )


def heat_refusal(load: PortfolioLoad, *, risk: Decimal, account: Account, policy: Policy) -> Refusal | None:
    """Refuse an entry whose loss at the stop would take the sum of such losses above its share of equity."""
    maximum = policy.max_portfolio_heat * account.equity
    if load.heat + risk <= maximum:
        return None

    return refuse(DenyCode.HEAT_ABOVE_MAXIMUM, heat=load.heat, risk=risk, maximum=maximum)


def is_solvent(account: Account) -> bool:
    """Whether the account has equity that is a number."""
    return account.equity.is_finite() and account.equity > 0


def is_reached(drawdown: Decimal, equity: Decimal, start: Decimal, limit: Decimal) -> bool:
    """Whether a fall has reached its limit; divided, one of just the limit may round to a little less."""
    if drawdown >= limit:
        return True
    return equity.is_finite() and start.is_finite() and equity <= start * (1 - limit)
