"""What the account as a whole may lose, carry and risk."""

from __future__ import annotations

from decimal import Decimal

from inference.domain.decision import DenyCode, TradingState
from inference.domain.policy import Policy
from inference.domain.position import Account
from inference.portfolio.exposure import PortfolioLoad
from inference.risk.refusal import Refusal, refuse


def trading_state_refusal(state: TradingState) -> Refusal | None:
    """Refuse every entry unless trading is ACTIVE."""
    if state is TradingState.ACTIVE:
        return None

    return refuse(DenyCode.TRADING_STATE, trading_state=state, required=TradingState.ACTIVE)


def drawdown_refusal(account: Account, policy: Policy) -> Refusal | None:
    """Refuse entries once the day's loss has reached the limit; an account without equity has lost everything."""
    drawdown = account.daily_drawdown if account.equity > 0 else Decimal(1)
    if drawdown < policy.max_daily_drawdown:
        return None

    return refuse(
        DenyCode.DAILY_DRAWDOWN,
        drawdown=drawdown,
        maximum=policy.max_daily_drawdown,
        equity=account.equity,
        day_start_equity=account.day_start_equity,
    )


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
