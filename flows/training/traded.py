"""What a symbol's market was while a model is judged on it: prices, range, tick and funding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

from feature_store.candle import CandleBlock
from feature_store.errors import BadInputError

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]


def _no_times() -> Times:
    return np.empty(0, np.int64)


def _no_rates() -> Floats:
    return np.empty(0)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TradedCandles:
    """
    Closed candles of one symbol, oldest first, with all that it takes to trade them again.

    `block` holds the prices, `atr` the average true range that was known at each close, NaN where none was. `tick` is
    the price tick, 0 where nobody told it; funding is what the venue charged, empty where none is known.
    """

    block: CandleBlock
    atr: Floats
    tick: float = 0.0
    funding_time_ms: Times = field(default_factory=_no_times)
    funding_rate: Floats = field(default_factory=_no_rates)

    def __post_init__(self) -> None:
        """Refuse columns of unequal lengths."""
        for name, found, wanted in (
            ("ranges", len(self.atr), len(self.block)),
            ("funding rates", len(self.funding_rate), len(self.funding_time_ms)),
        ):
            if found != wanted:
                raise BadInputError(f"Traded candles need {wanted} {name}, were {found}")

    def between(self, start_ms: int, end_ms: int) -> Self:
        """Return the candles that open in `[start_ms, end_ms)`; funding is left as it is."""
        first, last = np.searchsorted(self.block.open_time_ms, [start_ms, end_ms])
        cut = slice(int(first), int(last))
        return type(self)(
            block=CandleBlock(self.block.open_time_ms[cut], self.block.values[cut]),
            atr=self.atr[cut],
            tick=self.tick,
            funding_time_ms=self.funding_time_ms,
            funding_rate=self.funding_rate,
        )
