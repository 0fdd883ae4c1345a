"""What a venue tells a paper account, read: candles that were missed, and settlements of funding."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from feature_store.candle import Candle, Timeframe
from inference.exchange.paper_file import Announced
from inference.exchange.paper_market import Span

_MINUTE_MS, _FINE_FOR_MS = 60_000, 2 * 86_400_000


def stretches(since_ms: int, now_ms: int) -> list[tuple[Timeframe, int, int]]:
    """
    Return by which candles what was missed is shown, each with when the first opens and by when the last has closed.

    A long time is shown by hours, but for both of its ends: of the hour in which it began only the rest was missed, and
    the hour that runs has not closed.
    """
    begins_ms = Timeframe.M1.floor_ms(since_ms)
    if now_ms - since_ms <= _FINE_FOR_MS:
        return [(Timeframe.M1, begins_ms, now_ms)]
    whole_ms = Timeframe.H1.floor_ms(since_ms) + Timeframe.H1.milliseconds
    runs_ms = Timeframe.H1.floor_ms(now_ms)
    return [(Timeframe.M1, begins_ms, whole_ms), (Timeframe.H1, whole_ms, runs_ms), (Timeframe.M1, runs_ms, now_ms)]


def span(candle: Candle, timeframe: Timeframe, *, opened: bool = False) -> Span | None:
    """Return a candle's prices, with the first where `opened` asks for it; None where one of them is none."""
    numbers = [_price(one) for one in (candle.open, candle.high, candle.low, candle.close)]
    first, high, low, close = numbers
    if first is None or high is None or low is None or close is None:
        return None
    return Span(
        open_ms=candle.open_time_ms,
        close_ms=candle.close_time_ms(timeframe),
        high=high,
        low=low,
        close=close,
        opened=first if opened else None,
    )


def _price(number: object) -> Decimal | None:
    if not isinstance(number, int | float):
        return None
    price = Decimal(str(number))
    return price if price.is_finite() and price > 0 else None


def announced(row: object) -> Announced | None:
    """Read the next settlement from ccxt's funding rate, None where it says none; venues differ in which fields do."""
    if not isinstance(row, Mapping):
        return None
    at_ms = row.get("nextFundingTimestamp") or row.get("fundingTimestamp")
    rate = row.get("nextFundingRate") if row.get("nextFundingTimestamp") else row.get("fundingRate")
    return _settlement(at_ms, rate, row.get("markPrice"))


def settled(row: object) -> Announced | None:
    """Read a settlement that was from a row of ccxt's history of funding rates; None where it says none."""
    if not isinstance(row, Mapping):
        return None
    info = row.get("info")
    mark = info.get("markPrice") if isinstance(info, Mapping) else None
    return _settlement(row.get("timestamp"), row.get("fundingRate"), mark)


def _settlement(at_ms: object, rate: object, mark: object) -> Announced | None:
    if not isinstance(at_ms, int) or not isinstance(rate, int | float | str):
        return None
    try:
        known = Decimal(str(rate))
        price = Decimal(str(mark)) if isinstance(mark, int | float | str) and mark != "" else None
    except ArithmeticError:
        return None
    if not known.is_finite() or at_ms <= 0:
        return None
    usable = price is not None and price.is_finite() and price > 0
    return Announced(at_ms - at_ms % _MINUTE_MS, known, price if usable else None)
