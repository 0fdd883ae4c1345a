"""Bitfinex's names for what this venue trades: perpetuals on USDt0, timeframes, numbers without an exponent."""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal
from typing import Final

import msgspec

from infra.sandbox.bitfinex.refusals import Refusal, invalid
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.venue import Venue

PREFIX: Final = "/bitfinex"
"""Where this front stands beside the other one."""

WALLET: Final = "margin"
CURRENCY: Final = "USTF0"
PRICE_DIGITS: Final = 5

INTERVALS: Final[dict[str, str]] = {
    "1m": "1m",
    "5m": "5m",
    "15m": "15m",
    "30m": "30m",
    "1h": "1h",
    "4h": "4h",
    "6h": "6h",
    "12h": "12h",
    "1D": "1d",
    "7D": "1w",
    "1W": "1w",
    "1M": "1M",
}

Number = msgspec.Raw


def pair_of(instrument: Instrument) -> str:
    """Name of a contract, as lists of pairs have it."""
    return f"{instrument.base}F0:{CURRENCY}"


def name_of(instrument: Instrument) -> str:
    """Name of a contract, as requests and answers have it."""
    return f"t{pair_of(instrument)}"


def instrument_named(venue: Venue, name: object) -> Instrument:
    """
    Return what a name stands for.

    Raises:
        Refusal: There is no such contract.
    """
    known = {name_of(one): one for one in venue.market.instruments}
    found = known.get(name) if isinstance(name, str) else None
    if found is None:
        raise invalid("symbol")
    return found


def number(value: Decimal) -> Number:
    """Write a number as Bitfinex does: no text, no exponent, no zeros behind."""
    return Number(plain(value).encode())


def plain(value: Decimal) -> str:
    """Return the digits of a number."""
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def cut_price(price: Decimal, instrument: Instrument) -> Decimal:
    """Return a price as the venue takes it: digits beyond the fifth are cut, and so is what is finer than the tick."""
    if price <= 0:
        raise Refusal(10_001, "Invalid price.")
    # Below the tick no digit matters, however many zeros stand before it.
    place = max(price.adjusted() - PRICE_DIGITS + 1, instrument.tick.adjusted())
    finest = max(Decimal(1).scaleb(place), instrument.tick)
    return price.quantize(finest, rounding=ROUND_DOWN).quantize(instrument.tick)


def cut_amount(amount: Decimal, instrument: Instrument) -> Decimal:
    """Return an amount as the venue takes it: what is finer than its step is cut."""
    return amount.quantize(instrument.step, rounding=ROUND_DOWN)
