"""Why the worker may or may not enter: every objection by name, the strictest counts."""

from __future__ import annotations

from collections.abc import Mapping

from inference.domain.decision import TradingState

_STRICTNESS = (TradingState.ACTIVE, TradingState.REDUCING, TradingState.HALTED)


class Standing:
    """
    Objections to trading. Those that are not HALTED are lifted; one that is stays until the worker is started again.

    The emergency stop's alone is released, by a person. Of several causes under one name the newest is told.
    """

    def __init__(self) -> None:
        self._objections: dict[str, tuple[TradingState, str]] = {}

    @property
    def trading_state(self) -> TradingState:
        """The strictest state that any objection asks for."""
        states = [state for state, _ in self._objections.values()]
        return max(states, key=_STRICTNESS.index, default=TradingState.ACTIVE)

    @property
    def reason(self) -> str:
        """The strictest objection in words, of equals the newest; empty where there is none."""
        ordered = sorted(self._objections.values(), key=lambda one: _STRICTNESS.index(one[0]))
        return ordered[-1][1] if ordered else ""

    def object(self, name: str, state: TradingState, reason: str) -> bool:
        """Object; return whether this is news: nobody objected by that name, or what halts is another cause."""
        earlier = self._objections.get(name)
        if earlier == (state, reason):
            return False
        if earlier is not None and earlier[0] is TradingState.HALTED and state is not TradingState.HALTED:
            return False
        # Taken out first: the order of a mapping is that of the first time, and the newest comes last here.
        self._objections.pop(name, None)
        self._objections[name] = (state, reason)
        return earlier is None or state is TradingState.HALTED

    def lift(self, name: str) -> bool:
        """Take an objection back; return whether there was one that could be."""
        earlier = self._objections.get(name)
        if earlier is None or earlier[0] is TradingState.HALTED:
            return False
        del self._objections[name]
        return True

    def release(self, name: str) -> bool:
        """Take an objection back, HALTED or not, since whoever made it owns it; return whether there was one."""
        return self._objections.pop(name, None) is not None

    @property
    def objections(self) -> Mapping[str, tuple[TradingState, str]]:
        """Every objection by name: the state it asks for, and why."""
        return dict(self._objections)
