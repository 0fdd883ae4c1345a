"""A market as backtests see it: candles in whole ticks on one clock, and what a model said at each of their closes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Self

import numpy as np
import numpy.typing as npt

from feature_store.candle import CandleBlock
from feature_store.errors import BadInputError
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.path import STEP_MS
from infra.sandbox.engine.recorded import in_ticks, recorded_instrument

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RATE_UNIT = 100_000_000
"""Funding rates and money are kept in units of 1e-8, as the venue keeps money."""


class Intrabar(StrEnum):
    """
    How prices ran inside a candle of which only four are known.

    `path`: straight lines over the extreme nearer to the open first, as the sandbox exchange replays candles.
    `pessimistic`: what hurts the position came first, and a stop that was reached filled at the worst price of its
    candle. `optimistic`: what helps it came first, and a stop filled at its own price. The truth of each trade lies
    between the two, once it is entered: an entry that rests meets the prices of `path` in all three, and what bounds
    its trade is the whole candle, as if all of it came after the entry.
    """

    PATH = "path"
    PESSIMISTIC = "pessimistic"
    OPTIMISTIC = "optimistic"


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueCosts:
    """
    What trading costs at the venue, as the sandbox's book and fees charge it.

    `taker_fee` and `maker_fee` are fractions of notional, the latter of what rested before it filled; `spread_bps` is
    the whole spread. Whoever takes more than a level of the book holds pays `gap_bps` more for each further one.
    """

    taker_fee: Decimal = Decimal("0.0005")
    maker_fee: Decimal = Decimal("0.0002")
    spread_bps: Decimal = Decimal(1)
    gap_bps: Decimal = Decimal("0.5")

    def __post_init__(self) -> None:
        """Refuse costs that no venue has."""
        fee, bps = Decimal("0.1"), Decimal(1000)
        for name, limit in (("taker_fee", fee), ("maker_fee", fee), ("spread_bps", bps), ("gap_bps", bps)):
            if not 0 <= getattr(self, name) <= limit:
                raise BadInputError(f"{name} must lie in [0, {limit}], was {getattr(self, name)}")


@dataclass(frozen=True, slots=True, eq=False)
class Opinions:
    """
    What a model said at the close of each candle of one series, NaN where it said nothing.

    `expected_return` is a log return over the horizon, `probability_up` calibrated; rows are those of `open_time_ms`.
    """

    open_time_ms: Ints
    expected_return: Floats
    probability_up: Floats
    # Which regime it told, by name; None where it tells none.
    regime: npt.NDArray[np.str_] | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ScoredMarket:
    """
    Candles of all symbols on one grid of time, and opinions at their closes.

    Arrays are [candles, symbols], contiguous in time, symbols in the order of their names. `prices` is [candles,
    symbols, 4]: open, high, low and close in whole ticks of each instrument, 0 where a candle is missing.
    `funding_rate` [boundaries, symbols] is in units of 1e-8 and 0 where none is known. `threshold` is the confidence
    that the model's own bundle asks for.
    """

    symbols: tuple[str, ...]
    instruments: tuple[Instrument, ...]
    timeframe_ms: int
    open_time_ms: Ints
    prices: Ints
    atr: Floats
    expected_return: Floats
    probability_up: Floats
    funding_time_ms: Ints
    funding_rate: Ints
    threshold: float
    model_version: str
    # The regime of each opinion by name [candles, symbols], `unknown` where there is none; None where nobody tells any.
    regimes: npt.NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be walked through candle by candle."""
        if len(self) < 2:
            raise BadInputError("A backtest needs at least two candles: one to decide at, one to trade in")
        if tuple(sorted(self.symbols)) != self.symbols:
            raise BadInputError("Symbols of a scored market come in the order of their names")
        if (np.diff(self.open_time_ms) != self.timeframe_ms).any():
            raise BadInputError("Candles of a scored market follow each other without a hole in the clock")
        if self.timeframe_ms < 4 * STEP_MS:
            raise BadInputError("Candles of at least a minute are needed")

    def __len__(self) -> int:
        return len(self.open_time_ms)

    @property
    def open(self) -> Ints:
        """First prices, in ticks."""
        return self.prices[:, :, 0]

    @property
    def high(self) -> Ints:
        """Highest prices."""
        return self.prices[:, :, 1]

    @property
    def low(self) -> Ints:
        """Lowest prices."""
        return self.prices[:, :, 2]

    @property
    def close(self) -> Ints:
        """Last prices."""
        return self.prices[:, :, 3]

    @property
    def start_ms(self) -> int:
        """Open time of the first candle."""
        return int(self.open_time_ms[0])

    @property
    def end_ms(self) -> int:
        """Close time of the last candle."""
        return int(self.open_time_ms[-1]) + self.timeframe_ms

    @property
    def scored(self) -> int:
        """How many opinions there are."""
        return int(np.isfinite(self.probability_up).sum())

    def between(self, start_ms: int, end_ms: int) -> Self:
        """
        Return the candles that open in `[start_ms, end_ms)`.

        Raises:
            BadInputError: Fewer than two do.
        """
        first, last = np.searchsorted(self.open_time_ms, [start_ms, end_ms])
        cut = slice(int(first), int(last))
        names = ("open_time_ms", "prices", "atr", "expected_return", "probability_up")
        regimes = None if self.regimes is None else self.regimes[cut]
        return replace(self, **{name: getattr(self, name)[cut] for name in names}, regimes=regimes)

    def with_opinions(self, opinions: Mapping[str, Opinions], *, threshold: float) -> Self:
        """
        Return the same candles with what another model said of them, and the confidence that it asks for.

        A symbol without opinions is silent; opinions of candles that are not in the market are left out.
        """
        expected, rising = np.full((2, len(self), len(self.symbols)), np.nan)
        told = any(one.regime is not None for one in opinions.values())
        regimes = np.full(expected.shape, "unknown", "<U18") if told else None
        first, last = self.open_time_ms[0], self.open_time_ms[-1]
        for place, symbol in enumerate(self.symbols):
            if symbol in opinions:
                said = opinions[symbol]
                there = (said.open_time_ms >= first) & (said.open_time_ms <= last)
                rows = (said.open_time_ms[there] - first) // self.timeframe_ms
                expected[rows, place] = said.expected_return[there]
                rising[rows, place] = said.probability_up[there]
                if regimes is not None and said.regime is not None:
                    regimes[rows, place] = said.regime[there]
        # Where there is no range no stop can be placed, and the worker has no candidate.
        rising[~(np.isfinite(self.atr) & np.isfinite(expected) & (self.close > 0))] = np.nan
        return replace(self, expected_return=expected, probability_up=rising, threshold=threshold, regimes=regimes)

    @classmethod
    def of(
        cls,
        blocks: Mapping[str, CandleBlock],
        *,
        atr: Mapping[str, Floats],
        opinions: Mapping[str, Opinions],
        timeframe_ms: int,
        threshold: float,
        model_version: str,
        funding: Mapping[str, tuple[Ints, Floats]] | None = None,
        ticks: Mapping[str, float] | None = None,
    ) -> Self:
        """
        Return the market of some candles, by symbol.

        Args:
            blocks: Closed candles of each symbol, oldest first.
            atr: Average true range at each of them, in price units.
            opinions: What the model said.
            timeframe_ms: Length of a candle.
            threshold: Confidence that the model asks for.
            model_version: As signals name it.
            funding: Times and rates of each symbol's funding, if known.
            ticks: Price tick of each symbol, 0 or absent where the prices themselves must say.

        Raises:
            BadInputError: There are no candles.
        """
        symbols = tuple(sorted(symbol for symbol, block in blocks.items() if len(block)))
        if not symbols:
            raise BadInputError("There is not one candle to backtest on; ingest some, or choose another window")
        first = min(int(blocks[one].open_time_ms[0]) for one in symbols)
        last = max(int(blocks[one].open_time_ms[-1]) for one in symbols)
        times = np.arange(first, last + 1, timeframe_ms, dtype=np.int64)
        shape = (len(times), len(symbols))
        prices = np.zeros((*shape, 4), np.int64)
        floats = {name: np.full(shape, np.nan) for name in ("atr", "expected_return", "probability_up")}
        instruments = []
        for place, symbol in enumerate(symbols):
            block = blocks[symbol]
            instrument = _instrument(symbol, block, (ticks or {}).get(symbol, 0.0))
            instruments.append(instrument)
            rows = (block.open_time_ms - first) // timeframe_ms
            prices[rows, place] = in_ticks(block.values[:, :4], instrument)
            floats["atr"][rows, place] = atr[symbol]
        funding_time_ms, funding_rate = _funding(symbols, funding or {}, first, last + timeframe_ms)
        silent = cls(
            symbols=symbols,
            instruments=tuple(instruments),
            timeframe_ms=timeframe_ms,
            open_time_ms=times,
            prices=prices,
            **floats,
            funding_time_ms=funding_time_ms,
            funding_rate=funding_rate,
            threshold=threshold,
            model_version=model_version,
        )
        return silent.with_opinions(opinions, threshold=threshold)


def _instrument(symbol: str, block: CandleBlock, tick: float) -> Instrument:
    # The engine knows the steps of the big ones by their native names.
    base, quote = symbol.split(":", maxsplit=1)[0].split("/") if "/" in symbol else (symbol, "")
    found = recorded_instrument(f"{base}{quote}", base, block.values[:, :4])
    told = next((digits for digits in range(9) if tick > 0 and abs(tick - 10.0**-digits) < 1e-12), None)
    # A tick that is no power of ten, such as 0.5, is left to the prices, which lie on a finer one as well.
    decimals = found.price_decimals if told is None else max(told, found.price_decimals)
    return replace(found, symbol=symbol, price_decimals=decimals)


def _funding(
    symbols: Sequence[str], funding: Mapping[str, tuple[Ints, Floats]], start_ms: int, end_ms: int
) -> tuple[Ints, Ints]:
    """Put rates on one grid of times; a venue stamps its boundaries some milliseconds late, so they are floored."""
    minute = 60_000
    found = {symbol: (times - times % minute, rates) for symbol, (times, rates) in funding.items() if symbol in symbols}
    boundaries = np.unique(np.concatenate([np.empty(0, np.int64), *(times for times, _ in found.values())]))
    boundaries = boundaries[(boundaries >= start_ms) & (boundaries < end_ms)].astype(np.int64)
    rate = np.zeros((len(boundaries), len(symbols)), np.int64)
    for symbol, (times, rates) in found.items():
        inside = np.isin(times, boundaries)
        rows = np.searchsorted(boundaries, times[inside])
        rate[rows, symbols.index(symbol)] = np.rint(rates[inside] * RATE_UNIT).astype(np.int64)
    return boundaries, rate
