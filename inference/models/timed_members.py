"""How long each member of a bundle takes for its answers."""

from __future__ import annotations

from collections.abc import Callable

from inference.models.bundle import Bundle
from inference.models.ensemble import Floats, Inputs, Member


class MemberTimes:
    """Measures the members of one bundle."""

    def __init__(self, bundle: Bundle, monotonic: Callable[[], float]) -> None:
        """Begin to measure; what members answer stays what it was."""
        self._seconds: dict[str, float] = {}
        self._monotonic = monotonic
        # An ensemble is asked as one. Its code is part of what models are judged by, and is not changed to be watched.
        ensemble = bundle._ensemble  # noqa: SLF001 - as above
        ensemble._members = {name: _Timed(name, one, self) for name, one in ensemble._members.items()}  # noqa: SLF001

    def take(self) -> dict[str, float]:
        """Return how long each member took that has answered since the last call, by name."""
        taken, self._seconds = self._seconds, {}
        return taken

    def of(self, name: str, member: Member, inputs: Inputs, windows: Inputs, returns: Inputs) -> Floats:
        """Return a member's answers, and remember how long they took."""
        began = self._monotonic()
        answers = member.predict(inputs, windows, returns)
        self._seconds[name] = self._monotonic() - began
        return answers


class _Timed:
    def __init__(self, name: str, member: Member, times: MemberTimes) -> None:
        self._name, self._member, self._times = name, member, times

    def predict(self, inputs: Inputs, windows: Inputs, returns: Inputs) -> Floats:
        return self._times.of(self._name, self._member, inputs, windows, returns)
