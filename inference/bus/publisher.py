"""The outbox at work: a thread of its own, so that no bus however slow holds up trading, and what it says of itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from feature_store.errors import QuantumError
from inference.bus.outbox import Outbox, Step
from inference.bus.port import BusError, EventBus, Retention

_LOOKS_SECONDS = 0.1
_ASKS_SECONDS = 1.0
_PAUSE_SECONDS = 0.5
_TRIMS_SECONDS = 60.0
# A long journal that is published for the first time leaves the processor to trading in between.
_BREATH_SECONDS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherState:
    """
    How far the journal is published, and how it goes; times are seconds.

    `waiting_seconds` is how long something has waited for the bus, or the bus has not answered: 0 where all is told.
    `trouble` says in words what keeps it, empty where nothing does. `refills` counts how often the bus had lost, or
    never had, what was published.
    """

    seq: int = 0
    published: int = 0
    waiting_seconds: float = 0.0
    trouble: str = ""
    refills: int = 0


class Publisher:
    """
    Runs an outbox until `stop`. `state` may be asked from any thread, at any time.

    While a bus is filled with what it missed, only standing still counts as waiting.
    """

    def __init__(
        self,
        bus: EventBus,
        outbox: Outbox,
        *,
        monotonic: Callable[[], float],
        retention: Retention | None = None,
    ) -> None:
        self._bus = bus
        self._outbox = outbox
        self._monotonic = monotonic
        self._retention = retention or Retention()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._published = 0
        self._trouble = ""
        # Since when something waits; None where all was told when it was last looked at.
        self._waits_since: float | None = None
        self._asked = self._trimmed = monotonic()

    @property
    def state(self) -> PublisherState:
        """How it goes now."""
        since = self._waits_since
        return PublisherState(
            seq=self._outbox.seq,
            published=self._published,
            waiting_seconds=0.0 if since is None else self._monotonic() - since,
            trouble=self._trouble,
            refills=self._outbox.refills,
        )

    @property
    def is_running(self) -> bool:
        """Whether its thread still works."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Publish from now on."""
        self._thread = threading.Thread(target=self._run, name="bus-publisher", daemon=True)
        self._thread.start()

    def stop(self, *, drain_seconds: float) -> bool:
        """
        End, once all that is journaled was published, or so many seconds are over; return whether it was.

        What was not is published by the next start.
        """
        until = self._monotonic() + drain_seconds
        self._stopping.set()
        if self._thread is not None:
            # It may be waiting for an answer; nobody waits for it longer than was said.
            self._thread.join(drain_seconds)
            if self.is_running:
                return False
        while self._monotonic() < until:
            if self.turn() and self._waits_since is None:
                return True
            if self._trouble:
                return False
        return False

    def turn(self) -> bool:
        """Publish one batch; return whether there is nothing more to do for a moment."""
        now = self._monotonic()
        try:
            step = self._outbox.step()
            if step.is_caught_up and now - self._asked >= _ASKS_SECONDS:
                # Nothing is said for a while: is the bus still there, and does it still know what it was told?
                self._outbox.ask()
                self._asked = now
            if step.is_caught_up and now - self._trimmed >= _TRIMS_SECONDS:
                self._bus.trim(self._retention)
                self._trimmed = now
        except QuantumError as error:
            self._note_trouble(error, now)
            return True
        self._note_step(step, now)
        return step.is_caught_up

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                is_idle = self.turn()
                pause = _PAUSE_SECONDS if self._trouble else _LOOKS_SECONDS if is_idle else _BREATH_SECONDS
                self._stopping.wait(pause)
        finally:
            if not self._stopping.is_set():
                # A defect of ours; what it was is on standard error, and from now on everything waits.
                self._trouble = "the publisher ended by a defect; start the worker again"
                self._waits_since = self._waits_since or self._monotonic()

    def _note_step(self, step: Step, now: float) -> None:
        self._published += step.events
        self._trouble = ""
        if step.is_caught_up:
            self._waits_since = None
        elif step.entries or self._waits_since is None:
            # It goes on.
            self._waits_since = now

    def _note_trouble(self, error: QuantumError, now: float) -> None:
        self._trouble = str(error)
        if self._waits_since is None:
            self._waits_since = now
        if isinstance(error, BusError):
            self._bus.close()
