"""Asking every source once, each by itself: one that fails is noted, and keeps nothing from going on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from feature_store.context.source import Source, SourceError
from feature_store.context.store import ObservationStore
from feature_store.errors import QuantumError
from feature_store.files import replace_bytes

_STATE = "state.json"
_SECONDS_FOR_ONE = 300


class SourceState(msgspec.Struct, frozen=True, kw_only=True):
    """How a source is, and what it wants to remember; kept beside its observations."""

    name: str
    asked_ms: int
    answered_ms: int | None = None
    failures: int = 0
    reason: str = ""
    not_before_ms: int | None = None
    memory: dict[str, str] = {}

    @property
    def is_down(self) -> bool:
        """Whether its last question was not answered."""
        return self.failures > 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What asking one source came to; `new` is None where it was not asked, or failed."""

    state: SourceState
    new: int | None


async def gather(
    sources: Sequence[Source],
    store: ObservationStore,
    now_ms: Callable[[], int],
    *,
    told: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """
    Ask each source for what is new, and store what it says with the moment at which it arrived.

    Args:
        sources: Whom to ask; all at once.
        store: Where answers go.
        now_ms: Our clock, read before asking and again when an answer is there.
        told: Called as each source is done.

    Returns:
        What came of each, in the order of `sources`. No failure of a source is raised.
    """

    async def one(source: Source) -> Outcome:
        outcome = await _ask(source, store, now_ms)
        if told is not None:
            told(outcome)
        return outcome

    return list(await asyncio.gather(*[one(source) for source in sources]))


def states(store: ObservationStore) -> list[SourceState]:
    """Return how each source is that was ever asked, in order of names."""
    names = sorted(path.parent.name.partition("=")[2] for path in store.root.glob(f"source=*/{_STATE}"))
    return [state for name in names if (state := state_of(store, name)) is not None]


def state_of(store: ObservationStore, name: str) -> SourceState | None:
    """Return how a source was when it was asked last, None where that is not known."""
    try:
        return msgspec.json.decode((store.folder(name) / _STATE).read_bytes(), type=SourceState)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        # Forgetting costs one question that asks for everything again.
        return None


async def _ask(source: Source, store: ObservationStore, now_ms: Callable[[], int]) -> Outcome:
    asked_ms = now_ms()
    before = state_of(store, source.name) or SourceState(name=source.name, asked_ms=asked_ms)
    if before.not_before_ms is not None and asked_ms < before.not_before_ms:
        return Outcome(before, None)
    try:
        async with asyncio.timeout(_SECONDS_FOR_ONE):
            fetched = await source.fetch(asked_ms, before.memory)
        arrived_ms = now_ms()
        new = await asyncio.to_thread(store.append, source.name, fetched.observations, arrived_ms, topic=source.topic)
    except (QuantumError, OSError, TimeoutError) as error:
        state = _failed(before, asked_ms, error)
        new = None
    else:
        state = SourceState(name=source.name, asked_ms=asked_ms, answered_ms=arrived_ms, memory=dict(fetched.memory))
    return Outcome(_noted(store, state), new)


def _failed(before: SourceState, asked_ms: int, error: Exception) -> SourceState:
    limited = error.not_before_ms if isinstance(error, SourceError) else None
    return msgspec.structs.replace(
        before,
        asked_ms=asked_ms,
        failures=before.failures + 1,
        reason=str(error) or type(error).__name__,
        not_before_ms=limited,
    )


def _noted(store: ObservationStore, state: SourceState) -> SourceState:
    try:
        replace_bytes(store.folder(state.name) / _STATE, msgspec.json.encode(state))
    except OSError as error:
        # A disk that is full: nothing is remembered, and nothing else stops.
        return msgspec.structs.replace(state, failures=state.failures + 1, reason=f"Cannot note its state: {error}")
    return state
