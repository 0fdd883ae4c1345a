"""What a worker has done since its start, counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from inference.domain.signal import SignalScore


@dataclass(slots=True)
class Counters:
    """What has happened since the start."""

    candles: int = 0
    batches: int = 0
    orders: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    last_signals: dict[str, tuple[SignalScore, str]] = field(default_factory=dict)
