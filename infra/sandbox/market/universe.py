"""Names and characters of the synthetic instruments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

# Base asset and a starting price of the right order.
_NAMED: Final[tuple[tuple[str, float], ...]] = (
    ("BTC", 93_000.0), ("ETH", 3_200.0), ("SOL", 140.0), ("BNB", 880.0), ("XRP", 2.1),
    ("DOGE", 0.15), ("ADA", 0.42), ("TRX", 0.28), ("AVAX", 13.5), ("LINK", 13.2),
    ("DOT", 2.1), ("LTC", 82.0), ("BCH", 590.0), ("NEAR", 1.7), ("UNI", 5.9),
    ("APT", 1.8), ("ARB", 0.21), ("OP", 0.31), ("FIL", 1.5), ("ATOM", 2.3),
    ("ETC", 12.6), ("XLM", 0.24), ("ICP", 3.3), ("HBAR", 0.12), ("INJ", 4.9),
    ("SUI", 1.6), ("AAVE", 165.0), ("MKR", 1_500.0), ("GRT", 0.04), ("ALGO", 0.13),
    ("SAND", 0.13), ("MANA", 0.15), ("AXS", 0.93), ("THETA", 0.31), ("EGLD", 7.2),
    ("XTZ", 0.52), ("EOS", 0.21), ("FLOW", 0.19), ("CHZ", 0.034), ("CRV", 0.41),
    ("RUNE", 0.66), ("KAVA", 0.09), ("ZEC", 480.0), ("DASH", 48.0), ("NEO", 3.9),
    ("QTUM", 1.4), ("IOTA", 0.096), ("VET", 0.012), ("ENJ", 0.03), ("COMP", 27.0),
    ("SNX", 0.49), ("YFI", 3_600.0), ("SUSHI", 0.32), ("1INCH", 0.16), ("DYDX", 0.19),
    ("GALA", 0.0067), ("IMX", 0.26), ("APE", 0.22), ("LDO", 0.61), ("STX", 0.29),
    ("FET", 0.24), ("RENDER", 1.5), ("TIA", 0.56), ("SEI", 0.13), ("PYTH", 0.068),
    ("JUP", 0.21), ("WIF", 0.37), ("PENDLE", 2.1), ("ENA", 0.24), ("ONDO", 0.44),
    ("WLD", 0.56), ("ORDI", 4.3), ("BLUR", 0.032), ("GMX", 8.7), ("CFX", 0.075),
    ("MASK", 0.62), ("KSM", 7.8), ("ZIL", 0.0053), ("ONT", 0.066), ("BAT", 0.23),
    ("ZRX", 0.13), ("ANKR", 0.0066), ("SKL", 0.011), ("CELO", 0.12), ("ROSE", 0.011),
    ("LRC", 0.06), ("STORJ", 0.14), ("RVN", 0.0071), ("HOT", 0.00051), ("MINA", 0.082),
    ("WOO", 0.027), ("ID", 0.066), ("ARKM", 0.21), ("STRK", 0.083), ("MANTA", 0.083),
    ("ALT", 0.013), ("DYM", 0.075), ("PIXEL", 0.0098), ("PORTAL", 0.021), ("AXL", 0.083),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Character:
    """What makes one synthetic instrument behave as it does."""

    # Where it stands in the list; its chance depends on it.
    place: int
    base: str
    price: float
    # Standard deviation of a day's log return, at ordinary volatility.
    daily_volatility: float
    # Share of variance explained by the market and by one of three sectors.
    market_share: float
    sector_share: float
    sector: int
    # Ordinary turnover per minute in the quote currency.
    minute_notional: float

    @property
    def symbol(self) -> str:
        """Venue-native name."""
        return f"{self.base}USDT"


def characters(count: int, seed: int) -> tuple[Character, ...]:
    """Return the first `count` instruments; each depends on its place and the seed, not on how many there are."""
    return tuple(_character(place, seed) for place in range(count))


def named(symbols: tuple[str, ...], seed: int) -> tuple[Character, ...]:
    """
    Return instruments by name; each behaves as it does among all of them.

    Raises:
        ValueError: There is no instrument of that name.
    """
    known = {f"{base}USDT": place for place, (base, _) in enumerate(_NAMED)}
    for symbol in symbols:
        if symbol not in known:
            raise ValueError(f"There is no synthetic instrument '{symbol}'; known are {', '.join(known)}.")
    return tuple(_character(known[symbol], seed) for symbol in symbols)


def _character(place: int, seed: int) -> Character:
    draw = np.random.default_rng([seed, 1, place])
    named = place < len(_NAMED)
    base, price = _NAMED[place] if named else (f"SYN{place + 1:03d}", float(np.exp(draw.uniform(-3.0, 4.0))))
    rank = min(place, 60)
    return Character(
        place=place,
        base=base,
        price=price,
        daily_volatility=float((0.028 + 0.0005 * rank) * np.exp(draw.normal(0.0, 0.12))),
        market_share=float(np.clip(0.55 - 0.003 * rank + draw.normal(0.0, 0.05), 0.2, 0.7)),
        sector_share=float(draw.uniform(0.05, 0.15)),
        sector=place % 3,
        minute_notional=float(12_000_000.0 / (1.0 + place) ** 0.9 + 60_000.0),
    )
