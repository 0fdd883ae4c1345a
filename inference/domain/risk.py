"""What risk looks at beside the account: the emergency stop, the breaker, and how symbols move together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class BreakerState(StrEnum):
    """Whether the trading circuit breaker lets entries through: all, none, or one to try."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerView:
    """The breaker as a decision sees it: why it opened, until when (venue time), and whether its one try is taken."""

    state: BreakerState
    reason: str = ""
    until_ms: int = 0
    is_tried: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskView:
    """
    What was known of risk at a closed candle.

    `emergency` says why nothing may be entered, empty where the emergency stop stands by; `missing` whose input it does
    not have. `clusters` names for each
    symbol whose returns are known the first symbol of its cluster, `betas` its beta to BTC; a symbol that is in
    neither has too few candles. Both are empty where no limit reads them, or where nothing is known.
    """

    emergency: str = ""
    missing: str = ""
    breaker: BreakerView | None = None
    clusters: Mapping[str, str] = field(default_factory=dict)
    betas: Mapping[str, float] = field(default_factory=dict)
