"""What a worker has done since its start, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from inference.domain.decision import Decision, Denied
from inference.domain.signal import SignalScore


@dataclass(slots=True)
class Counters:
    """What has happened since the start."""

    candles: int = 0
    batches: int = 0
    orders: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    last_signals: dict[str, tuple[SignalScore, str]] = field(default_factory=dict)

    def decided(self, decisions: Iterable[Decision]) -> None:
        """Count what became of one candle's candidates."""
        for decision in decisions:
            if isinstance(decision, Denied):
                outcome = decision.code.value
                self.refusals[outcome] += 1
            else:
                outcome = "APPROVED"
                self.orders["approved"] += 1
            if decision.signal is not None:
                self.last_signals[decision.symbol] = (decision.signal, outcome)
