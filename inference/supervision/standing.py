"""Why the worker may or may not enter: every objection by name, the strictest counts."""

from __future__ import annotations

from inference.domain.decision import TradingState

_STRICTNESS = (TradingState.ACTIVE, TradingState.REDUCING, TradingState.HALTED)


class Standing:
    """Objections to trading. One that is HALTED stays until the worker is started again; others are lifted."""

    def __init__(self) -> None:
        self._objections: dict[str, tuple[TradingState, str]] = {}

    @property
    def trading_state(self) -> TradingState:
        """The strictest state that any objection asks for."""
        states = [state for state, _ in self._objections.values()]
        return max(states, key=_STRICTNESS.index, default=TradingState.ACTIVE)

    @property
    def reason(self) -> str:
        """The strictest objection in words, empty where there is none."""
        ordered = sorted(self._objections.values(), key=lambda one: _STRICTNESS.index(one[0]))
        return ordered[-1][1] if ordered else ""

    def object(self, name: str, state: TradingState, reason: str) -> bool:
        """Object; return whether this is news."""
        earlier = self._objections.get(name)
        if earlier is not None and earlier[0] is TradingState.HALTED:
            return False
        self._objections[name] = (state, reason)
        return earlier is None

    def lift(self, name: str) -> bool:
        """Take an objection back; return whether there was one that could be."""
        earlier = self._objections.get(name)
        if earlier is None or earlier[0] is TradingState.HALTED:
            return False
        del self._objections[name]
        return True
