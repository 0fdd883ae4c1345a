"""A real venue's market as the matching engine takes it: instruments, the quoted spread, extremes of candles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from inference.domain.market import Instrument
from infra.sandbox.engine.book import BookModel
from infra.sandbox.engine.instrument import Instrument as EngineInstrument
from infra.sandbox.engine.model import Side

DEPTH_NOTIONAL = Decimal(40_000)
"""What can be had at the best price; a quote does not say, so it is what the sandbox's instruments have."""
_MOST_DECIMALS = 16
# A candle may be told after the next one has begun, and by REST once more.
_CANDLES_KNOWN = 3


@dataclass(frozen=True, slots=True)
class QuotedBook(BookModel):
    """
    The engine's book, as wide as the venue last quoted.

    `halves` holds half of the quoted spread by symbol. Around the middle of that quote, best bid and ask are the
    venue's own; deeper levels are the model's, since a quote shows none.
    """

    halves: dict[str, Decimal] = field(default_factory=dict)

    def best(self, instrument: EngineInstrument, last: Decimal, side: Side) -> Decimal:
        """Best ask for a BUY taker, best bid for a SELL taker."""
        half = self.halves.get(instrument.symbol)
        # Far below where it was quoted, the spread could be wider than the price is high.
        if half is None or half * 2 >= last:
            return BookModel.best(self, instrument, last, side)
        # Never in the taker's favour.
        rounding = ROUND_CEILING if side is Side.BUY else ROUND_FLOOR
        return (last + side.sign * half).quantize(instrument.tick, rounding=rounding)


def engine_instrument(one: Instrument) -> EngineInstrument:
    """
    Return an instrument as the engine has it, under the same name.

    The engine knows powers of ten for steps only: of another it takes the next finer one, and the worker rounds to the
    venue's own.
    """
    return EngineInstrument(
        symbol=one.symbol,
        base=one.symbol.partition("/")[0],
        price_decimals=_decimals(one.price_tick),
        quantity_decimals=_decimals(one.quantity_step),
        min_notional=one.min_notional,
        max_quantity=one.max_quantity,
        max_market_quantity=one.max_quantity,
        depth_notional=DEPTH_NOTIONAL,
    )


def unlisted_instrument(symbol: str) -> EngineInstrument:
    """Return an instrument for what the venue lists no more, fine enough for whatever is still held of it."""
    return EngineInstrument(
        symbol=symbol,
        base=symbol.partition("/")[0],
        price_decimals=_MOST_DECIMALS // 2,
        quantity_decimals=_MOST_DECIMALS // 2,
        min_notional=Decimal(0),
        max_quantity=Decimal(10) ** 12,
        max_market_quantity=Decimal(10) ** 12,
        depth_notional=DEPTH_NOTIONAL,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The prices of a candle, running or closed: `[open_ms, close_ms)` in venue time."""

    open_ms: int
    close_ms: int
    high: Decimal
    low: Decimal
    close: Decimal
    # None where the market was watched all the while: then what went before is known.
    opened: Decimal | None = None


Ends = tuple[int, int]
"""When a candle opened and closes, in UTC milliseconds."""


class Extremes:
    """
    Which highs and lows of candles are news.

    A candle is told again and again while it runs. An extreme that it did not have before was traded since; of a candle
    that is told for the first time it was traded at any time in it, so it is no news to an order which is younger than
    the candle.
    """

    def __init__(self) -> None:
        # By both ends: the minutes that a start catches up with open with the longer candle that a stream then tells.
        self._known: dict[str, dict[Ends, tuple[Decimal, Decimal]]] = {}

    def news(self, symbol: str, span: Span, *, youngest_ms: int) -> tuple[Decimal | None, Decimal | None]:
        """
        Return the low and the high that orders have not met, None where there is none.

        Args:
            symbol: Whose candle it is.
            span: The candle as it is told now.
            youngest_ms: When the youngest of the orders that wait was made; 0 where none waits.
        """
        candles = self._known.setdefault(symbol, {})
        ends = span.open_ms, span.close_ms
        known = candles.get(ends)
        low, high = (span.low, span.high) if known is None else (min(known[0], span.low), max(known[1], span.high))
        candles[ends] = (low, high)
        while len(candles) > _CANDLES_KNOWN:
            del candles[min(candles)]
        if youngest_ms >= span.close_ms or (known is None and youngest_ms > span.open_ms):
            return None, None
        if known is None:
            return span.low, span.high
        return (span.low if span.low < known[0] else None), (span.high if span.high > known[1] else None)

    def known(self, symbol: str) -> Mapping[Ends, tuple[Decimal, Decimal]]:
        """Return the low and high that are known of a symbol's newest candles."""
        return dict(self._known.get(symbol, {}))

    def put_back(self, symbol: str, known: Mapping[Ends, tuple[Decimal, Decimal]]) -> None:
        """Know again what was known before."""
        self._known[symbol] = dict(known)


def _decimals(unit: Decimal) -> int:
    exponent = unit.normalize().as_tuple().exponent
    return min(max(0, -exponent), _MOST_DECIMALS) if isinstance(exponent, int) else _MOST_DECIMALS
