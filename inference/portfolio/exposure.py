"""What open positions and entries in flight carry together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from inference.domain.position import Position


@dataclass(frozen=True, slots=True, kw_only=True)
class PortfolioLoad:
    """Occupied slots, gross notional and money at risk; entries in flight count as if they were filled."""

    symbols: frozenset[str]
    in_flight: frozenset[str]
    gross_notional: Decimal
    heat: Decimal

    @property
    def slots(self) -> int:
        """Positions held or asked for."""
        return len(self.symbols)

    def with_entry(self, symbol: str, *, notional: Decimal, risk: Decimal) -> PortfolioLoad:
        """Return the load once one more entry is sent."""
        return PortfolioLoad(
            symbols=self.symbols | {symbol},
            in_flight=self.in_flight | {symbol},
            gross_notional=self.gross_notional + notional,
            heat=self.heat + risk,
        )


def portfolio_load(
    *, positions: Mapping[str, Position], in_flight: Mapping[str, Decimal], heat: Mapping[str, Decimal]
) -> PortfolioLoad:
    """Return what is carried now; a symbol with both a position and an entry in flight carries both notionals."""
    return PortfolioLoad(
        symbols=frozenset(positions) | frozenset(in_flight),
        in_flight=frozenset(in_flight),
        gross_notional=sum((p.notional for p in positions.values()), Decimal(0)) + sum(in_flight.values(), Decimal(0)),
        heat=sum(heat.values(), Decimal(0)),
    )
