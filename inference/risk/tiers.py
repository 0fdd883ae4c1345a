"""The three tiers an entry must pass: what it may be by itself, beside what is carried, and given what was lost."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache

from msgspec import UnsetType

from inference.domain.decision import DenyCode, Snapshot
from inference.domain.policy import Policy
from inference.domain.risk import RiskView
from inference.domain.signal import Direction
from inference.portfolio.exposure import PortfolioLoad
from inference.risk.limits import drawdown_refusal, exposure_refusal, heat_refusal, weekly_refusal
from inference.risk.refusal import Refusal, refuse

_ZERO = Decimal(0)


def systemic_refusal(snapshot: Snapshot, policy: Policy) -> Refusal | None:
    """Refuse every entry once the day, the week or the fall from the peak has cost as much as it may."""
    return drawdown_refusal(snapshot.account, policy) or weekly_refusal(snapshot, policy)


def liquidation_price(*, direction: Direction, entry_price: Decimal, policy: Policy) -> Decimal:
    """
    Return where the venue would liquidate a position that has nothing but its own initial margin.

    Isolated margin: equity of the position, margin plus profit, equals the maintenance margin. With cross margin the
    whole account stands behind it and liquidation is further away.
    """
    margin, maintenance = 1 / Decimal(policy.leverage), policy.maintenance_margin
    if direction is Direction.LONG:
        return entry_price * (1 - margin) / (1 - maintenance)
    return entry_price * (1 + margin) / (1 + maintenance)


def position_refusal(
    snapshot: Snapshot, *, direction: Direction, entry_price: Decimal, stop_price: Decimal, policy: Policy
) -> Refusal | None:
    """Refuse an entry whose liquidation lies nearer than so many distances to its stop."""
    if isinstance(snapshot.risk, UnsetType):
        return None
    liquidation = liquidation_price(direction=direction, entry_price=entry_price, policy=policy)
    away = entry_price - liquidation if direction is Direction.LONG else liquidation - entry_price
    required = policy.min_liquidation_stops * abs(entry_price - stop_price)
    if away >= required:
        return None

    return refuse(
        DenyCode.LIQUIDATION_TOO_NEAR,
        liquidation_price=liquidation,
        distance=away,
        required=required,
        leverage=policy.leverage,
        stop_price=stop_price,
    )


def portfolio_refusal(
    snapshot: Snapshot,
    *,
    symbol: str,
    direction: Direction,
    load: PortfolioLoad,
    notional: Decimal,
    risk: Decimal,
    policy: Policy,
) -> Refusal | None:
    """Refuse an entry that exposure, heat, its symbol, its cluster or the beta of all has no room for."""
    account = snapshot.account
    refusal = exposure_refusal(load, notional=notional, account=account, policy=policy) or heat_refusal(
        load, risk=risk, account=account, policy=policy
    )
    view = snapshot.risk
    if refusal is not None or isinstance(view, UnsetType):
        return refusal
    equity = account.equity
    return (
        _concentration(symbol, load=load, notional=notional, equity=equity, policy=policy)
        or _correlated(symbol, view, load=load, notional=notional, equity=equity, policy=policy)
        or _beta(symbol, view, direction=direction, load=load, notional=notional, equity=equity, policy=policy)
    )


def carried_by_cluster(symbol: str, view: RiskView, load: PortfolioLoad) -> Decimal:
    """Return the gross notional of a symbol's cluster; what nothing is known of counts into every one."""
    cluster = view.clusters[symbol]
    # Sorted: a sum of decimals depends on its order to the last digit, and that of a set on the process.
    carried = sorted({*load.signed, *load.undirected})
    return sum((load.carried_in(one) for one in carried if view.clusters.get(one, cluster) == cluster), _ZERO)


def net_beta(view: RiskView, load: PortfolioLoad) -> Decimal:
    """Return the net notional in terms of BTC, long less short; a symbol whose beta is not known counts with 1."""
    return sum((value * _beta_of(view, one) for one, value in load.signed.items()), _ZERO)


def beta_with(
    symbol: str, view: RiskView, *, direction: Direction, load: PortfolioLoad, notional: Decimal
) -> tuple[Decimal, Decimal, Decimal]:
    """Return the net notional in terms of BTC before and after an entry, and what is in flight on either side."""
    sign = -1 if direction is Direction.SHORT else 1
    before = net_beta(view, load)
    after = before + sign * notional * _beta_of(view, symbol)
    # Entries in flight may be of either side: they count against us.
    loose = sum((value * abs(_beta_of(view, one)) for one, value in load.undirected.items()), _ZERO)
    return before, after, loose


def _concentration(
    symbol: str, *, load: PortfolioLoad, notional: Decimal, equity: Decimal, policy: Policy
) -> Refusal | None:
    if policy.max_concentration is None:
        return None
    maximum, carried = policy.max_concentration * equity, load.carried_in(symbol)
    if carried + notional <= maximum:
        return None
    return refuse(DenyCode.CONCENTRATION_ABOVE_MAXIMUM, open_notional=carried, notional=notional, maximum=maximum)


def _correlated(
    symbol: str, view: RiskView, *, load: PortfolioLoad, notional: Decimal, equity: Decimal, policy: Policy
) -> Refusal | None:
    if policy.max_correlated_exposure is None:
        return None
    if symbol not in view.clusters:
        return refuse(DenyCode.RISK_INPUT_MISSING, missing="cluster", required="candles enough to correlate returns")
    maximum, carried = policy.max_correlated_exposure * equity, carried_by_cluster(symbol, view, load)
    if carried + notional <= maximum:
        return None
    return refuse(
        DenyCode.CORRELATED_ABOVE_MAXIMUM,
        cluster=view.clusters[symbol],
        open_notional=carried,
        notional=notional,
        maximum=maximum,
        threshold=policy.correlation_threshold,
    )


def _beta(
    symbol: str,
    view: RiskView,
    *,
    direction: Direction,
    load: PortfolioLoad,
    notional: Decimal,
    equity: Decimal,
    policy: Policy,
) -> Refusal | None:
    if policy.max_btc_beta is None:
        return None
    if symbol not in view.betas:
        return refuse(DenyCode.RISK_INPUT_MISSING, missing="beta", required="candles enough to correlate returns")
    before, after, loose = beta_with(symbol, view, direction=direction, load=load, notional=notional)
    maximum = policy.max_btc_beta * equity
    # What takes net exposure back towards zero is let through above the limit too.
    if abs(after) + loose <= maximum or abs(after) < abs(before):
        return None
    return refuse(
        DenyCode.BETA_ABOVE_MAXIMUM,
        net_notional=before,
        in_flight=loose,
        notional=notional,
        beta=view.betas[symbol],
        maximum=maximum,
    )


def _beta_of(view: RiskView, symbol: str) -> Decimal:
    return _decimal_of(view.betas.get(symbol, 1.0))


@lru_cache(maxsize=4096)
def _decimal_of(value: float) -> Decimal:
    # Each candidate sums over all that is held, by the same few numbers.
    return Decimal(str(value))
