"""From risk budget to quantity: rounded down, capped, skipped when too small, never raised."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from inference.domain.decision import DenyCode
from inference.domain.market import Instrument
from inference.domain.policy import Policy
from inference.risk.refusal import Refusal, refuse


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much to trade, what it is worth, and what is lost if the stop fills as planned."""

    quantity: Decimal
    notional: Decimal
    risk: Decimal


def loss_per_unit(*, entry_price: Decimal, stop_price: Decimal, policy: Policy) -> Decimal:
    """Return what one unit loses from entry to stop, with the fee and the slippage of both sides."""
    costs = (entry_price + stop_price) * (policy.taker_fee + policy.slippage)

    return abs(entry_price - stop_price) + costs


def gain_per_unit(*, entry_price: Decimal, target_price: Decimal, policy: Policy) -> Decimal:
    """Return what one unit gains from entry to target, less the fee and the slippage of both sides."""
    costs = (entry_price + target_price) * (policy.taker_fee + policy.slippage)

    return abs(target_price - entry_price) - costs


def quantity_for_risk(
    *,
    equity: Decimal,
    entry_price: Decimal,
    stop_price: Decimal,
    policy: Policy,
    instrument: Instrument,
    share: Decimal | None = None,
) -> Size | Refusal:
    """
    Return the largest quantity that loses at most the risk budget at the stop and is worth at most `max_notional`.

    The budget is a `share` of equity, by default the policy's base. A quantity below the venue's or the policy's
    minimum is a refusal: raising it would risk more than planned.
    """
    unit_loss = loss_per_unit(entry_price=entry_price, stop_price=stop_price, policy=policy)
    wanted = equity * (policy.risk_per_trade if share is None else share) / unit_loss
    capped = min(wanted, policy.max_notional / entry_price, instrument.max_quantity)
    quantity = instrument.round_quantity(capped)
    if quantity <= 0 or quantity < instrument.min_quantity:
        return refuse(
            DenyCode.QUANTITY_BELOW_STEP,
            quantity=capped,
            step=instrument.quantity_step,
            minimum=instrument.min_quantity,
        )

    notional = quantity * entry_price
    minimum = max(policy.min_notional, instrument.min_notional)
    if notional < minimum:
        return refuse(DenyCode.NOTIONAL_BELOW_MINIMUM, notional=notional, minimum=minimum, quantity=quantity)

    return Size(quantity=quantity, notional=notional, risk=quantity * unit_loss)
