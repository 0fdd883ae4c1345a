"""What another source is: something that can be asked, may fail, and is never needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from feature_store.context.observation import Observation
from feature_store.errors import QuantumError


class SourceError(QuantumError):
    """A source did not answer as it should; nothing else depends on it."""

    def __init__(self, message: str, *, not_before_ms: int | None = None) -> None:
        super().__init__(message)
        self.not_before_ms = not_before_ms


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one question brought, and what the source wants to remember for the next one."""

    observations: tuple[Observation, ...]
    memory: Mapping[str, str] = field(default_factory=dict)


class Source(Protocol):
    """Anything that tells something about markets; what it says is stamped when it arrives, never when it claims."""

    @property
    def name(self) -> str:
        """A name that is unique, and fit for a folder: letters, digits, dots and dashes."""

    @property
    def topic(self) -> str:
        """What it tells of, as the metric that notes its answers: TEXTS_POLLED or MARKETS_POLLED."""

    async def fetch(self, now_ms: int, memory: Mapping[str, str]) -> Fetched:
        """
        Ask once.

        Args:
            now_ms: The present, on our clock.
            memory: What the last question that was answered wanted to remember; empty at first.

        Raises:
            SourceError: It did not answer, or not in its own form.
        """
