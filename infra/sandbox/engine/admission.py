"""What the account admits: orders judged by position and margin."""

from __future__ import annotations

from decimal import Decimal

from infra.sandbox.engine import checks
from infra.sandbox.engine.account_settings import AccountSettings
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.instrument import bracket_for
from infra.sandbox.engine.model import (
    TARGETS,
    ZERO,
    AlgoOrder,
    AlgoRequest,
    Order,
    OrderRequest,
    OrderType,
    PositionSide,
)


class Admission(AccountSettings):
    """Who may trade how much: the checks that need the account."""

    # -- checks that need the account -----------------------------------------------------------------------------

    def _reducible(self, order: Order | OrderRequest, remaining: Decimal) -> Decimal:
        if not (order.reduce_only or checks.hedge_reduces(order.side, order.position_side)):
            return remaining
        held = self.state.position(order.symbol, order.position_side).quantity
        return min(remaining, abs(held)) if held * order.side.sign < 0 else ZERO

    def _check_reduce(self, request: OrderRequest, working: list[Order]) -> None:
        if not (request.reduce_only or checks.hedge_reduces(request.side, request.position_side)):
            return
        held = self.state.position(request.symbol, request.position_side).quantity
        if held * request.side.sign >= 0:
            raise VenueError(-2022)
        if request.beside_others:
            return
        bound = sum(
            (
                o.remaining
                for o in working
                if o.side is request.side
                and o.position_side is request.position_side
                and (o.reduce_only or request.position_side is not PositionSide.BOTH)
            ),
            ZERO,
        )
        if bound >= abs(held):
            raise VenueError(-4118)

    def _check_close_position(self, request: AlgoRequest, working: list[AlgoOrder]) -> None:
        held = self.state.position(request.symbol, request.position_side).quantity
        if held * request.side.sign >= 0:
            raise VenueError(-4509)
        same = request.type in TARGETS
        if any(a.close_position and a.side is request.side and (a.type in TARGETS) == same for a in working):
            raise VenueError(-4130)

    def _crosses(self, request: OrderRequest, last: Decimal) -> bool:
        if request.type is OrderType.MARKET or request.price is None:
            return True
        best = self.book.best(self.instruments[request.symbol], last, request.side)
        return (request.price - best) * request.side.sign >= 0

    def _check_margin(self, request: OrderRequest, last: Decimal, *, replacing: Order | None = None) -> None:
        if request.reduce_only or checks.hedge_reduces(request.side, request.position_side):
            return
        held = self.state.position(request.symbol, request.position_side).quantity
        reduces = min(abs(held), request.quantity) if held * request.side.sign < 0 else ZERO
        price = last if request.price is None else request.price
        opening = (request.quantity - reduces) * price
        if opening <= ZERO:
            return
        if request.symbol in self.state.delistings:
            raise VenueError(-4140)
        if request.symbol in self.state.restricted:
            raise VenueError(-4400)
        leverage = self.state.leverage_of(request.symbol)
        exposure = (abs(held) - reduces) * last + opening
        if leverage > bracket_for(exposure).initial_leverage:
            raise VenueError(-2027)
        available = self.margin().available
        if replacing is not None:
            available += replacing.remaining * replacing.price / leverage
        if opening / leverage + opening * self.fees.taker > available:
            raise VenueError(-2019)
