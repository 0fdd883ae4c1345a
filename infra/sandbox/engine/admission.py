"""What the account admits: settings, and orders judged by position and margin."""

from __future__ import annotations

from decimal import Decimal

from infra.sandbox.engine import checks
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.instrument import BRACKETS, Instrument, bracket_for
from infra.sandbox.engine.ledger import Ledger
from infra.sandbox.engine.model import (
    TARGETS,
    ZERO,
    AlgoOrder,
    AlgoRequest,
    ConfigEvent,
    Order,
    OrderRequest,
    OrderType,
    PositionSide,
)


class Admission(Ledger):
    """Who may trade how much: leverage, modes, and the checks that need the account."""

    def set_leverage(self, symbol: str, leverage: int, *, now_ms: int) -> None:
        """Set the leverage of a symbol."""
        self._instrument(symbol)
        if not 1 <= leverage <= BRACKETS[0].initial_leverage:
            raise VenueError(-4028, f"Leverage {leverage} is not valid")
        previous = self.state.leverage.get(symbol)
        self.state.leverage[symbol] = leverage
        account = self.margin()
        if account.initial > account.balance and account.initial > ZERO:
            if previous is None:
                del self.state.leverage[symbol]
            else:
                self.state.leverage[symbol] = previous
            raise VenueError(-2028)
        self._outbox.append(ConfigEvent(symbol, leverage, now_ms))

    def set_isolated(self, symbol: str, *, isolated: bool) -> None:
        """Set the margin mode of a symbol."""
        self._instrument(symbol)
        if isolated == (symbol in self.state.isolated):
            raise VenueError(-4046)
        if self._open.get(symbol) or self._open_algos.get(symbol):
            raise VenueError(-4047)
        if any(one.symbol == symbol for one in self.state.open_positions()):
            raise VenueError(-4048)
        (self.state.isolated.add if isolated else self.state.isolated.discard)(symbol)

    def set_hedge_mode(self, *, hedge: bool) -> None:
        """Choose between one position per symbol and a long and a short one."""
        if hedge == self.state.hedge_mode:
            raise VenueError(-4059)
        if self.open_orders() or self.open_algos():
            raise VenueError(-4067)
        if self.state.open_positions():
            raise VenueError(-4068)
        self.state.hedge_mode = hedge

    # -- checks that need the account -----------------------------------------------------------------------------

    def _reducible(self, order: Order) -> Decimal:
        only_reduces = order.reduce_only or checks.hedge_reduces(order.side, order.position_side)
        if not only_reduces:
            return order.remaining
        held = self.state.position(order.symbol, order.position_side).quantity
        return min(order.remaining, abs(held)) if held * order.side.sign < 0 else ZERO

    def _check_reduce(self, request: OrderRequest, working: list[Order]) -> None:
        if not (request.reduce_only or checks.hedge_reduces(request.side, request.position_side)):
            return
        held = self.state.position(request.symbol, request.position_side).quantity
        if held * request.side.sign >= 0:
            raise VenueError(-2022)
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

    def _check_fill_or_kill(self, request: OrderRequest, instrument: Instrument, last: Decimal) -> None:
        fills = self.book.walk(instrument, last, request.side, quantity=request.quantity, limit=request.price)
        if sum((quantity for _, quantity in fills), ZERO) < request.quantity:
            raise VenueError(-5021)

    def _check_margin(self, request: OrderRequest, last: Decimal, *, replacing: Order | None = None) -> None:
        if request.reduce_only or checks.hedge_reduces(request.side, request.position_side):
            return
        held = self.state.position(request.symbol, request.position_side).quantity
        reduces = min(abs(held), request.quantity) if held * request.side.sign < 0 else ZERO
        price = last if request.price is None else request.price
        opening = (request.quantity - reduces) * price
        if opening <= ZERO:
            return
        leverage = self.state.leverage_of(request.symbol)
        available = self.margin().available
        if replacing is not None:
            available += replacing.remaining * replacing.price / leverage
        if opening / leverage + opening * self.fees.taker > available:
            raise VenueError(-2019)
        exposure = (abs(held) - reduces) * last + opening
        if leverage > bracket_for(exposure).initial_leverage:
            raise VenueError(-2027)
