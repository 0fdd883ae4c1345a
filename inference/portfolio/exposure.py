"""What open positions and entries in flight carry together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from inference.domain.position import Position
from inference.domain.signal import Direction

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortfolioLoad:
    """
    Occupied slots, gross notional and money at risk; entries in flight count as if they were filled.

    `signed` is the notional of each symbol, negative when short; `undirected` that of entries in flight, whose side is
    not told. `entries` counts those that were approved since the load was read.
    """

    symbols: frozenset[str]
    in_flight: frozenset[str]
    gross_notional: Decimal
    heat: Decimal
    signed: Mapping[str, Decimal] = field(default_factory=dict)
    undirected: Mapping[str, Decimal] = field(default_factory=dict)
    entries: int = 0

    @property
    def slots(self) -> int:
        """Positions held or asked for."""
        return len(self.symbols)

    def carried_in(self, symbol: str) -> Decimal:
        """Return the gross notional of one symbol."""
        return abs(self.signed.get(symbol, _ZERO)) + self.undirected.get(symbol, _ZERO)

    def with_entry(
        self, symbol: str, *, notional: Decimal, risk: Decimal, direction: Direction = Direction.LONG
    ) -> PortfolioLoad:
        """Return the load once one more entry is sent."""
        added = -notional if direction is Direction.SHORT else notional
        return PortfolioLoad(
            symbols=self.symbols | {symbol},
            in_flight=self.in_flight | {symbol},
            gross_notional=self.gross_notional + notional,
            heat=self.heat + risk,
            signed={**self.signed, symbol: self.signed.get(symbol, _ZERO) + added},
            undirected=self.undirected,
            entries=self.entries + 1,
        )


def portfolio_load(
    *, positions: Mapping[str, Position], in_flight: Mapping[str, Decimal], heat: Mapping[str, Decimal]
) -> PortfolioLoad:
    """
    Return what is carried now; a symbol with both a position and an entry in flight carries both notionals.

    Sums go by symbol, whatever the order of the mappings: one of decimals depends on its order to the last digit, and
    a journal that is read again has another order than whoever wrote it.
    """
    held, loose = dict(sorted(positions.items())), dict(sorted(in_flight.items()))
    return PortfolioLoad(
        symbols=frozenset(held) | frozenset(loose),
        in_flight=frozenset(loose),
        gross_notional=sum((p.notional for p in held.values()), _ZERO) + sum(loose.values(), _ZERO),
        heat=sum((heat[symbol] for symbol in sorted(heat)), _ZERO),
        signed={
            symbol: -one.notional if one.direction is Direction.SHORT else one.notional for symbol, one in held.items()
        },
        undirected=loose,
    )
