"""A consumer that may die at any moment: it goes on where it was, and handles no event twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from feature_store.errors import QuantumError
from inference.bus.envelope import Envelope
from inference.bus.handled import HandledEvents, Once
from inference.bus.port import OLDEST, BusError, Delivery, EventBus, Subscription, UnknownGroupError

Handler = Callable[[Envelope, Once], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerTerms:
    """How many events are taken at once, and after how many seconds those of a silent consumer are taken over."""

    at_once: int = 100
    idle_seconds: float = 30.0


@dataclass(slots=True)
class ConsumerCounts:
    """What became of deliveries since the start."""

    handled: int = 0
    known: int = 0
    failed: int = 0
    buried: int = 0


class Consumer:
    """
    Takes the events of one group to a handler, each until it is handled once.

    A handler that raises a `QuantumError` has not handled the event: it comes again, and is a dead letter after as many
    deliveries as the subscription says. Any other error is a defect and ends the consumer; the event stays pending.
    A bus that has lost its groups is subscribed anew, from the oldest event that it has.
    """

    def __init__(
        self,
        bus: EventBus,
        handled: HandledEvents,
        handle: Handler,
        *,
        group: str,
        name: str,
        subscription: Subscription,
        terms: ConsumerTerms | None = None,
    ) -> None:
        self.counts = ConsumerCounts()
        self._bus = bus
        self._handled = handled
        self._handle = handle
        self._group = group
        self._name = name
        self._subscription = subscription
        self._terms = terms or ConsumerTerms()
        self._is_subscribed = False
        self._is_resumed = False
        # What was delivered and could be neither handled nor acknowledged, as the bus or our memory did not answer.
        self._hand: list[Delivery] = []

    def turn(self, *, wait_seconds: float = 0.0) -> int:
        """
        Take what there is, and wait so long where there is nothing; return how many events were taken.

        Raises:
            BusError: The bus, or the memory of what was handled, does not answer; the next turn goes on where this one
                ended.
        """
        try:
            return self._turn(wait_seconds)
        except UnknownGroupError:
            # What was subscribed is gone, and how far it had been read: what is there is taken, what is known dropped.
            lost = Subscription(
                patterns=self._subscription.patterns, start=OLDEST, max_deliveries=self._subscription.max_deliveries
            )
            self._bus.subscribe(self._group, lost)
            return self._turn(wait_seconds)

    def _turn(self, wait_seconds: float) -> int:
        if self._hand:
            return self._take(self._hand)
        if not self._is_subscribed:
            self._bus.subscribe(self._group, self._subscription)
            self._is_subscribed = True
        if not self._is_resumed:
            # Those that an earlier life of this consumer took, before anything newer.
            found = self._bus.resume(self._group, self._name)
            self._is_resumed = True
            if found:
                return self._take(found)
        terms = self._terms
        found = self._bus.reclaim(
            self._group, self._name, idle_seconds=terms.idle_seconds, limit=terms.at_once
        ) or self._bus.fetch(self._group, self._name, limit=terms.at_once, wait_seconds=wait_seconds)
        return self._take(found)

    def _take(self, found: list[Delivery]) -> int:
        count, self._hand = len(found), found
        while self._hand:
            self._take_one(self._hand[0])
            self._hand = self._hand[1:]
        return count

    def _take_one(self, one: Delivery) -> None:
        try:
            with self._handled.once(self._group, one.envelope.event_id) as once:
                if once.is_new:
                    self._handle(one.envelope, once)
        except BusError:
            # Not the event's fault: it must not become a dead letter of a full disk.
            raise
        except QuantumError as error:
            self.counts.buried += self._bus.fail(one, str(error))
            self.counts.failed += 1
            return
        self._bus.acknowledge([one])
        self.counts.handled += once.is_new
        self.counts.known += not once.is_new
