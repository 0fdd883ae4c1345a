"""What a holder sets on the account: leverage, margin mode, position mode, margin of isolated positions."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.instrument import BRACKETS, bracket_for
from infra.sandbox.engine.ledger import Ledger
from infra.sandbox.engine.margin import initial_margin, mark_of
from infra.sandbox.engine.model import ZERO, ConfigEvent, MarginMove, PositionSide
from infra.sandbox.engine.position import Change, Position, cents


class AccountSettings(Ledger):
    """Settings per symbol and of the account, and the margin that isolated positions hold."""

    def set_leverage(self, symbol: str, leverage: int, *, now_ms: int) -> None:
        """Set the leverage of a symbol."""
        self._instrument(symbol)
        if not 1 <= leverage <= BRACKETS[0].initial_leverage:
            raise VenueError(-4028, f"Leverage {leverage} is not valid")
        held = [one for one in self.state.open_positions() if one.symbol == symbol]
        if held and symbol in self.state.isolated and leverage < self.state.leverage_of(symbol):
            raise VenueError(-4161)
        mark = mark_of(self.state, symbol)
        if any(leverage > bracket_for(abs(one.quantity) * mark).initial_leverage for one in held):
            raise VenueError(-2027)
        previous = self.state.leverage.get(symbol)
        self.state.leverage[symbol] = leverage
        account = self.margin()
        if account.cross_initial > account.cross_balance and account.cross_initial > ZERO:
            if previous is None:
                del self.state.leverage[symbol]
            else:
                self.state.leverage[symbol] = previous
            raise VenueError(-2028)
        self._outbox.append(ConfigEvent(symbol, leverage, now_ms))

    def set_isolated(self, symbol: str, *, isolated: bool, now_ms: int = 0) -> None:
        """Set the margin mode of a symbol."""
        self._instrument(symbol)
        if isolated == (symbol in self.state.isolated):
            raise VenueError(-4046)
        if self._open.get(symbol) or self._open_algos.get(symbol):
            raise VenueError(-4047)
        if any(one.symbol == symbol for one in self.state.open_positions()):
            raise VenueError(-4048)
        (self.state.isolated.add if isolated else self.state.isolated.discard)(symbol)
        flat = [self.state.position(symbol, side) for side in self.position_sides()]
        self._tell_account("MARGIN_TYPE_CHANGE", *flat, now_ms=now_ms, symbol=symbol)

    def position_sides(self) -> tuple[PositionSide, ...]:
        """The positions a symbol can have in the account's mode."""
        return (PositionSide.LONG, PositionSide.SHORT) if self.state.hedge_mode else (PositionSide.BOTH,)

    def set_hedge_mode(self, *, hedge: bool) -> None:
        """Choose between one position per symbol and a long and a short one."""
        if hedge == self.state.hedge_mode:
            raise VenueError(-4059)
        if self.open_orders() or self.open_algos():
            raise VenueError(-4067)
        if self.state.open_positions():
            raise VenueError(-4068)
        self.state.hedge_mode = hedge

    def move_margin(self, symbol: str, position_side: PositionSide, amount: Decimal, *, now_ms: int) -> None:
        """Add margin to an isolated position, or take some of it back where `amount` is negative."""
        self._instrument(symbol)
        if (position_side is PositionSide.BOTH) == self.state.hedge_mode:
            raise VenueError(-4061)
        if symbol not in self.state.isolated:
            raise VenueError(-4049)
        position = self.state.position(symbol, position_side)
        if not position.quantity:
            raise VenueError(-4054)
        if not amount:
            raise VenueError(-4055)
        if amount > self.margin().available:
            raise VenueError(-4050)
        loss = min(ZERO, position.unrealized(mark_of(self.state, symbol)))
        if amount < ZERO and position.isolated_wallet + amount + loss < initial_margin(self.state, position):
            raise VenueError(-4051)
        position = replace(position, isolated_wallet=position.isolated_wallet + amount, updated_ms=now_ms)
        self.state.positions[position.key] = position
        self.state.margin_moves.append(MarginMove(symbol, position_side, amount, now_ms, by_user=True))
        self._tell_account("MARGIN_TRANSFER", position, now_ms=now_ms, symbol=symbol)

    def _bind_margin(self, before: Position, change: Change, price: Decimal, *, now_ms: int) -> Position:
        # After a fill whose profit and fee are in the wallet: closing gives its share of the position's own margin
        # back, opening takes initial margin from the cross wallet, and never more than that has.
        position, own = change.position, before.isolated_wallet
        if position.symbol not in self.state.isolated:
            return position
        held = abs(before.quantity)
        released = own if change.closed == held else cents(own * change.closed / held)
        needed = cents(change.opened * price / self.state.leverage_of(position.symbol))
        bound = max(ZERO, min(needed, self.state.cross_wallet() + released))
        if bound != released:
            moved = MarginMove(position.symbol, position.position_side, bound - released, now_ms, by_user=False)
            self.state.margin_moves.append(moved)
        return replace(position, isolated_wallet=own - released + bound)
