"""What is traded, with its steps, minimums and margin brackets."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Bracket:
    """One leverage tier: up to `notional_cap` at most `initial_leverage`."""

    initial_leverage: int
    notional_floor: Decimal
    notional_cap: Decimal
    maintenance_rate: Decimal
    cumulative: Decimal


def _brackets() -> tuple[Bracket, ...]:
    rows = (
        (50, 0, 50_000, "0.01"),
        (25, 50_000, 250_000, "0.02"),
        (20, 250_000, 1_000_000, "0.025"),
        (10, 1_000_000, 5_000_000, "0.05"),
        (5, 5_000_000, 20_000_000, "0.1"),
        (1, 20_000_000, 200_000_000, "0.5"),
    )
    tiers: list[Bracket] = []
    cumulative = Decimal(0)
    previous = Decimal(0)
    for leverage, floor, cap, rate in rows:
        # The amount that makes maintenance margin continuous where the tiers meet.
        cumulative += Decimal(floor) * (Decimal(rate) - previous)
        tiers.append(Bracket(leverage, Decimal(floor), Decimal(cap), Decimal(rate), cumulative))
        previous = Decimal(rate)
    return tuple(tiers)


BRACKETS = _brackets()


# Asked for at every fill; no price or quantity has more decimals.
_UNITS = tuple(Decimal(1).scaleb(-decimals) for decimals in range(17))


@dataclass(frozen=True, slots=True)
class Instrument:
    """One perpetual contract; prices and quantities are whole numbers of `tick` and `step`."""

    symbol: str
    base: str
    price_decimals: int
    quantity_decimals: int
    min_notional: Decimal
    max_quantity: Decimal
    max_market_quantity: Decimal
    depth_notional: Decimal
    quote: str = "USDT"
    # Hours between two settlements of funding.
    funding_hours: int = 8

    @property
    def tick(self) -> Decimal:
        """The smallest price difference."""
        return _UNITS[self.price_decimals]

    @property
    def step(self) -> Decimal:
        """The smallest quantity difference."""
        return _UNITS[self.quantity_decimals]

    def price(self, ticks: int) -> Decimal:
        """The price of so many ticks."""
        return Decimal(ticks).scaleb(-self.price_decimals)

    def quantity(self, steps: int) -> Decimal:
        """The quantity of so many steps."""
        return Decimal(steps).scaleb(-self.quantity_decimals)


def bracket_for(notional: Decimal) -> Bracket:
    """Return the leverage tier that a position of this notional falls into."""
    return next((tier for tier in BRACKETS if notional <= tier.notional_cap), BRACKETS[-1])


def instrument_for_price(
    symbol: str, base: str, price: float, *, depth_notional: float = 40_000.0, price_decimals: int | None = None
) -> Instrument:
    """Choose steps as the venue does: about five digits of price, a quantity step worth at most about a dollar."""
    known = _KNOWN_STEPS.get(symbol)
    if known is not None:
        usual_decimals, quantity_decimals, minimum = known
    else:
        usual_decimals = next((k for k in range(9) if price * 10**k >= 10_000), 8)
        quantity_decimals = next((k for k in range(4) if price * 10**-k <= 1.0), 3)
        minimum = "5"
    scale = Decimal(10) ** (6 if price < 10 else 4 if price < 5_000 else 3)
    return Instrument(
        symbol=symbol,
        base=base,
        price_decimals=usual_decimals if price_decimals is None else price_decimals,
        quantity_decimals=quantity_decimals,
        min_notional=Decimal(minimum),
        max_quantity=scale * 10,
        max_market_quantity=scale * 2,
        depth_notional=Decimal(int(depth_notional)),
    )


_KNOWN_STEPS = {
    "BTCUSDT": (1, 3, "50"),
    "ETHUSDT": (2, 3, "20"),
    "BNBUSDT": (2, 2, "5"),
    "SOLUSDT": (3, 2, "5"),
}
