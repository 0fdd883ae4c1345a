"""What a challenger said of live candles beside the champion, and the prices that the venue showed with it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import ClassVar


class Role(StrEnum):
    """Whether a model trades or is compared."""

    CHAMPION = "champion"
    CHALLENGER = "challenger"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowOpinion:
    """
    What one model said of every symbol of one candle, in the order of the event's symbols.

    `expected_return` is the log return over `horizon` candles, `probability_up` the calibrated probability of a rise;
    both are None where the model abstained. `threshold` is the confidence below which it would not have traded.
    """

    role: Role
    version: str
    digest: str
    horizon: int
    threshold: float
    expected_return: tuple[float | None, ...]
    probability_up: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowScored:
    """
    One closed candle scored by a challenger, and by the champion where there is one; nothing was sent for it.

    `bid` and `ask` are the venue's best prices when the candle had closed, None where it showed none that was fresh.
    `taker_fee` and `slippage` are those of the policy, each for one side of a trade. `place` is where it was scored.
    """

    event_type: ClassVar[str] = "signal.shadow"
    candle_close_ms: int
    timeframe_ms: int
    venue: str
    mode: str
    place: str
    taker_fee: Decimal
    slippage: Decimal
    symbols: tuple[str, ...]
    bid: tuple[Decimal | None, ...]
    ask: tuple[Decimal | None, ...]
    opinions: tuple[ShadowOpinion, ...]

    def __post_init__(self) -> None:
        """Refuse columns of unequal length: a value would belong to another symbol."""
        lengths = {len(self.bid), len(self.ask)}
        lengths |= {len(column) for one in self.opinions for column in (one.expected_return, one.probability_up)}
        if lengths != {len(self.symbols)}:
            raise ValueError(f"Every column of a shadow score needs {len(self.symbols)} values, one for each symbol")
