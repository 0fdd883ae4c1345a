"""How long an exit that is refused, or ends unfilled, again and again waits before it is tried once more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# So many refusals in a row are answered at once: most that can be put right are put right within seconds.
QUICK_TRIES = 10
_FIRST_SECONDS = 1.0


def pause_seconds(refusals: int, chance: float, *, longest: float) -> float:
    """Return the pause after so many refusals in a row: none at first, then longer each time, never above `longest`."""
    if refusals < QUICK_TRIES:
        return 0.0
    # Less than the bound by chance, so that many workers do not try at the same moment.
    return min(longest, _FIRST_SECONDS * 2.0 ** min(refusals - QUICK_TRIES, 30)) * (0.5 + chance / 2)


@dataclass(slots=True)
class _Refused:
    times: int = 0
    until: float = 0.0


class ExitPauses:
    """
    Pure: time and chance are arguments. What was refused is forgotten once the venue takes an order of the trade.

    An exit that it takes and lets end with nothing executed is as good as refused. So is a target that is taken at
    market; it has a pause of its own, so that it keeps back no exit of the whole.

    Each trade has its own pause. An order of another trade that the venue takes, or an answer after none, ends the
    pauses of all: each tries once, and only what is refused again goes on waiting as long as before.
    """

    def __init__(self, *, longest_seconds: float, chance: Callable[[], float]) -> None:
        self._longest = longest_seconds
        self._chance = chance
        # By trade, and whether it is of its targets.
        self._refused: dict[tuple[str, bool], _Refused] = {}

    def note_refusal(self, trade_id: str, now: float, *, of_target: bool = False) -> None:
        """Take in that the venue refused an exit of a trade, or let it end with nothing executed."""
        known = self._refused.setdefault((trade_id, of_target), _Refused())
        known.times += 1
        known.until = now + pause_seconds(known.times, self._chance(), longest=self._longest)

    def waits(self, trade_id: str, now: float, *, of_target: bool = False) -> bool:
        """Whether no exit of this trade, or no target at market, is sent yet."""
        known = self._refused.get((trade_id, of_target))
        return known is not None and now < known.until

    def note_accepted(self, trade_id: str) -> None:
        """Take in that the venue took an order of a trade."""
        self.forget(trade_id)
        self.note_answer()

    def note_answer(self) -> None:
        """Take in that the venue answers well again: whoever waits tries now."""
        for known in self._refused.values():
            known.until = 0.0

    def forget(self, trade_id: str) -> None:
        """Let go of a trade that is over."""
        for of_target in (False, True):
            self._refused.pop((trade_id, of_target), None)
