"""The bus of several machines: one Redis stream, its own groups of consumers, and what Redis does not keep itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from feature_store.clock import monotonic, utc_now_ms
from inference.bus.envelope import Envelope, checked_patterns, decode, encode, matches
from inference.bus.port import (
    NEWEST,
    OLDEST,
    BusError,
    BusStats,
    Cursor,
    CursorMovedError,
    DeadLetter,
    Delivery,
    Retention,
    Stored,
    Subscription,
    UnknownGroupError,
    checked,
    checked_name,
)
from inference.bus.redis_client import Client, Keys, connect, is_unknown_group, wire
from inference.bus.redis_scripts import ACKNOWLEDGE, BURY, PUBLISH, REQUEUE
from inference.bus.redis_upkeep import offset_of, stats, trim

_PAGE = 500
# Redis is asked anew after so long, so that one that is gone is noticed while nothing comes.
_BLOCK_SECONDS = 0.5
LOG, RETRIES = "m", "r"


class RedisBus:
    """
    See `EventBus`. Offsets are the ids of the stream's entries, so that a replay means the same everywhere.

    How long ago something was delivered is reckoned by Redis. `fetch` may hand out twice its limit: so many of the log,
    and so many that are delivered again. A dead letter that is delivered again goes through a
    stream of the group's own, as the log is everybody's.
    """

    def __init__(self, url: str, *, prefix: str = "{qt:bus}") -> None:
        """
        Look for the library and read the address; nothing is asked of the server yet.

        Raises:
            SettingsError: The library is not installed, or the address cannot be one.
        """
        self._client: Client = connect(url)
        self._keys = Keys(prefix)
        self._is_checked = False
        register = self._client.redis.register_script
        self._publish, self._bury, self._requeue, self._acknowledge = (
            register(text) for text in (PUBLISH, BURY, REQUEUE, ACKNOWLEDGE)
        )

    def publish(self, events: Sequence[Envelope], *, moved: tuple[Cursor | None, Cursor] | None = None) -> int:
        """See `EventBus`."""
        keys = self._keys
        believed, after = moved or (None, None)
        arguments: list[str | bytes] = [after.journal if after else "", wire(believed), wire(after)]
        for one in events:
            arguments += [one.event_id, encode(one)]
        with self._asking():
            new, found = self._publish(keys=[keys.log, keys.ids, keys.counter, keys.cursors], args=arguments)
        if new < 0:
            raise CursorMovedError(_cursor(found))
        return int(new)

    def cursor(self, journal: str) -> Cursor | None:
        """See `EventBus`."""
        with self._asking() as redis:
            return _cursor(redis.hget(self._keys.cursors, journal) or b"")

    def subscribe(self, group: str, subscription: Subscription) -> None:
        """See `EventBus`."""
        checked_name("group", group)
        wanted = checked(subscription)
        told = json.dumps({"patterns": checked_patterns(wanted.patterns), "max_deliveries": wanted.max_deliveries})
        with self._asking() as redis:
            # After the newest there ever was, which retention may have taken.
            newest = int(redis.get(self._keys.counter) or 0) + 1
            start = {OLDEST: 0, NEWEST: newest}.get(str(wanted.start), wanted.start)
            for stream, place in ((self._keys.log, f"{max(0, int(start) - 1)}-0"), (self._keys.retries(group), "0")):
                try:
                    redis.xgroup_create(stream, group, id=place, mkstream=True)
                except self._client.answer_error as error:
                    if "BUSYGROUP" not in str(error):
                        raise
            redis.hset(self._keys.groups, group, told)

    def fetch(self, group: str, consumer: str, *, limit: int = 100, wait_seconds: float = 0.0) -> list[Delivery]:
        """See `EventBus`."""
        checked_name("consumer", consumer)
        until = monotonic() + wait_seconds
        with self._asking() as redis:
            patterns = self._group(redis, group)[0]
            while True:
                left = until - monotonic()
                found = self._read(redis, group, consumer, limit, block_seconds=min(left, _BLOCK_SECONDS))
                meant = self._sift(redis, group, consumer, found, patterns)
                if meant or (left <= 0 and not found):
                    return meant

    def resume(self, group: str, consumer: str, *, limit: int = 1000) -> list[Delivery]:
        """See `EventBus`."""
        with self._asking() as redis:
            patterns, most = self._group(redis, group)
            self._bury_worn(redis, group, most, consumer=consumer, idle_ms=0)
            streams = {self._keys.retries(group): "0", self._keys.log: "0"}
            reply = redis.xreadgroup(group, consumer, streams, count=limit)
            return self._sift(redis, group, consumer, self._entries(group, reply), patterns, is_new=False)

    def reclaim(self, group: str, consumer: str, *, idle_seconds: float, limit: int = 100) -> list[Delivery]:
        """See `EventBus`."""
        checked_name("consumer", consumer)
        idle_ms = int(idle_seconds * 1000)
        found: list[tuple[str, str, dict[bytes, bytes]]] = []
        with self._asking() as redis:
            patterns, most = self._group(redis, group)
            self._bury_worn(redis, group, most, consumer=None, idle_ms=idle_ms)
            for kind, stream in self._streams(group):
                place: bytes = b"0-0"
                while len(found) < limit:
                    # It looks at some at a time, and those of consumers at work may come before any that is idle.
                    place, claimed, *_ = redis.xautoclaim(
                        stream, group, consumer, idle_ms, start_id=place, count=limit - len(found)
                    )
                    found += [(kind, key.decode(), fields) for key, fields in claimed if fields]
                    if place == b"0-0":
                        break
            return self._sift(redis, group, consumer, found, patterns, is_new=False)

    def acknowledge(self, deliveries: Sequence[Delivery]) -> int:
        """See `EventBus`."""
        done = 0
        with self._asking():
            for one in deliveries:
                stream, key = self._place(one)
                retries = self._keys.retries(one.group)
                keys = [stream, self._keys.counts(one.group), self._keys.reasons(one.group), retries]
                done += int(self._acknowledge(keys=keys, args=[one.group, key, one.handle]))
        return done

    def fail(self, delivery: Delivery, reason: str) -> bool:
        """See `EventBus`."""
        with self._asking() as redis:
            _, most = self._group(redis, delivery.group)
            stream, key = self._place(delivery)
            pending = redis.xpending_range(stream, delivery.group, key, key, 1)
            if not pending:
                return False
            redis.hset(self._keys.reasons(delivery.group), delivery.handle, reason[:1000])
            if pending[0]["times_delivered"] < most:
                return False
            return self._buried(delivery, reason)

    def dead_letters(self, group: str | None = None, *, limit: int = 1000) -> list[DeadLetter]:
        """See `EventBus`."""
        found: list[DeadLetter] = []
        with self._asking() as redis:
            names = sorted(key.decode() for key in redis.hkeys(self._keys.groups)) if group is None else [group]
            for name in names:
                found += [_dead_letter(name, text) for text in redis.hvals(self._keys.dead(name))]
        return sorted(found, key=lambda one: (one.died_ms, one.offset))[:limit]

    def requeue(self, group: str, event_ids: Sequence[str] | None = None) -> int:
        """See `EventBus`."""
        with self._asking() as redis:
            self._group(redis, group)
        arguments: list[str | bytes | int] = []
        for one in sorted(self.dead_letters(group, limit=10**9), key=lambda letter: letter.offset):
            if event_ids is None or one.envelope.event_id in event_ids:
                arguments += [one.envelope.event_id, encode(one.envelope), one.offset]
        with self._asking():
            return int(self._requeue(keys=[self._keys.dead(group), self._keys.retries(group)], args=arguments))

    def rewind(self, group: str, offset: int) -> None:
        """See `EventBus`."""
        with self._asking() as redis:
            self._group(redis, group)
            redis.xgroup_setid(self._keys.log, group, f"{max(0, offset - 1)}-0")

    def replay(self, patterns: tuple[str, ...] = ("*",), *, from_offset: int = 0, from_ms: int = 0) -> Iterator[Stored]:
        """See `EventBus`."""
        wanted, place = checked_patterns(patterns), from_offset
        while True:
            with self._asking() as redis:
                entries = redis.xrange(self._keys.log, min=f"{place}-0", count=_PAGE)
            for key, fields in entries:
                envelope = decode(fields[b"event"])
                if matches(wanted, envelope.event_type) and envelope.timestamp_ms >= from_ms:
                    yield Stored(offset=offset_of(key), envelope=envelope)
            if len(entries) < _PAGE:
                return
            place = offset_of(entries[-1][0]) + 1

    def newest(self, patterns: tuple[str, ...] = ("*",), *, limit: int = 20) -> list[Stored]:
        """See `EventBus`."""
        wanted, found, last = checked_patterns(patterns), list[Stored](), "+"
        with self._asking() as redis:
            while len(found) < limit:
                entries = redis.xrevrange(self._keys.log, max=last, count=_PAGE)
                for key, fields in entries:
                    envelope = decode(fields[b"event"])
                    if matches(wanted, envelope.event_type):
                        found.append(Stored(offset=offset_of(key), envelope=envelope))
                if len(entries) < _PAGE:
                    break
                last = f"{offset_of(entries[-1][0]) - 1}-0"
        return found[:limit][::-1]

    def trim(self, retention: Retention) -> int:
        """See `EventBus`."""
        with self._asking() as redis:
            return trim(redis, self._keys, retention)

    def stats(self) -> BusStats:
        """See `EventBus`."""
        with self._asking() as redis:
            return stats(redis, self._keys)

    def close(self) -> None:
        """See `EventBus`."""
        self._client.redis.close()

    def _read(
        self, redis: Any, group: str, consumer: str, limit: int, *, block_seconds: float
    ) -> list[tuple[str, str, dict[bytes, bytes]]]:
        streams = {self._keys.retries(group): ">", self._keys.log: ">"}
        # Zero would mean for ever.
        block = int(block_seconds * 1000) if block_seconds >= 0.001 else None
        return self._entries(group, redis.xreadgroup(group, consumer, streams, count=limit, block=block))

    def _entries(self, group: str, reply: Any) -> list[tuple[str, str, dict[bytes, bytes]]]:
        """Return kind, id and fields of what Redis answered; what retention has taken has no fields."""
        kinds = {stream.encode(): kind for kind, stream in self._streams(group)}
        pairs = reply.items() if isinstance(reply, dict) else reply or []
        return [
            (kinds[stream], key.decode(), fields)
            for stream, entries in pairs
            for key, fields in _flat(entries)
            if fields
        ]

    def _sift(
        self,
        redis: Any,
        group: str,
        consumer: str,
        found: list[tuple[str, str, dict[bytes, bytes]]],
        patterns: tuple[str, ...],
        *,
        is_new: bool = True,
    ) -> list[Delivery]:
        if not found:
            return []
        reasons = {} if is_new else redis.hgetall(self._keys.reasons(group))
        counts = {} if is_new else self._deliveries(redis, group, consumer, found)
        meant: list[Delivery] = []
        unwanted: list[str] = []
        for kind, key, fields in found:
            envelope, handle = decode(fields[b"event"]), f"{kind}:{key}"
            if kind == LOG and not matches(patterns, envelope.event_type):
                # The stream is everybody's; what this group does not want is over with at once.
                unwanted.append(key)
                continue
            meant.append(
                Delivery(
                    group=group,
                    consumer=consumer,
                    offset=int(fields[b"offset"]) if kind == RETRIES else offset_of(key.encode()),
                    envelope=envelope,
                    deliveries=counts.get(handle, 1),
                    handle=handle,
                    reason=reasons.get(handle.encode(), b"").decode(),
                )
            )
        if unwanted:
            redis.xack(self._keys.log, group, *unwanted)
        redis.hincrby(self._keys.counts(group), "delivered", len(meant))
        return sorted(meant, key=lambda one: one.offset)

    def _deliveries(
        self, redis: Any, group: str, consumer: str, found: list[tuple[str, str, dict[bytes, bytes]]]
    ) -> dict[str, int]:
        counts: dict[str, int] = {}
        for kind, stream in self._streams(group):
            keys = [key for one, key, _ in found if one == kind]
            if keys:
                pending = redis.xpending_range(stream, group, keys[0], keys[-1], 10**6, consumername=consumer)
                counts |= {f"{kind}:{one['message_id'].decode()}": one["times_delivered"] for one in pending}
        return counts

    def _bury_worn(self, redis: Any, group: str, most: int, *, consumer: str | None, idle_ms: int) -> None:
        """Give up what was delivered as often as it may be and nobody acknowledged: who takes it on ends with it."""
        for kind, stream in self._streams(group):
            arguments = {"consumername": consumer} if consumer else {}
            for one in redis.xpending_range(stream, group, "-", "+", 10**6, idle=idle_ms or None, **arguments):
                if one["times_delivered"] < most:
                    continue
                key, owner = one["message_id"].decode(), one["consumer"].decode()
                entry = redis.xrange(stream, min=key, max=key)
                if not entry:
                    continue
                fields, handle = entry[0][1], f"{kind}:{key}"
                told = redis.hget(self._keys.reasons(group), handle)
                reason = told.decode() if told else f"consumer {owner} ended with it, or was silent for too long"
                offset = int(fields[b"offset"]) if kind == RETRIES else offset_of(key.encode())
                delivery = Delivery(
                    group=group,
                    consumer=owner,
                    offset=offset,
                    envelope=decode(fields[b"event"]),
                    deliveries=one["times_delivered"],
                    handle=handle,
                )
                self._buried(delivery, reason)

    def _buried(self, delivery: Delivery, reason: str) -> bool:
        group, (stream, key) = delivery.group, self._place(delivery)
        letter = json.dumps(
            {
                "event": encode(delivery.envelope).decode(),
                "offset": delivery.offset,
                "deliveries": delivery.deliveries,
                "reason": reason[:1000],
                "died_ms": utc_now_ms(),
            }
        )
        keys = [stream, self._keys.dead(group), self._keys.reasons(group), self._keys.retries(group)]
        arguments = [group, key, delivery.envelope.event_id, letter, delivery.handle]
        return bool(self._bury(keys=keys, args=arguments))

    def _group(self, redis: Any, group: str) -> tuple[tuple[str, ...], int]:
        text = redis.hget(self._keys.groups, group)
        if text is None:
            raise UnknownGroupError(f"The bus in Redis knows no group {group!r}; subscribe it first")
        told = json.loads(text)
        return tuple(told["patterns"]), int(told["max_deliveries"])

    def _streams(self, group: str) -> tuple[tuple[str, str], tuple[str, str]]:
        return (RETRIES, self._keys.retries(group)), (LOG, self._keys.log)

    def _place(self, delivery: Delivery) -> tuple[str, str]:
        kind, _, key = delivery.handle.partition(":")
        return dict(self._streams(delivery.group))[kind], key

    @contextmanager
    def _asking(self) -> Iterator[Any]:
        try:
            if not self._is_checked:
                self._client.check_memory()
                self._is_checked = True
            yield self._client.redis
        except self._client.any_error as error:
            # It may be another server by the time it answers again.
            self._is_checked = False
            if is_unknown_group(error):
                raise UnknownGroupError(f"The bus in Redis lost its groups, subscribe again: {error}") from error
            raise BusError(f"The event bus in Redis does not answer: {error}"[:300]) from error


def _flat(entries: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return entries as pairs: the library nests them once more where the newer protocol is spoken."""
    if entries and isinstance(entries[0], list) and (not entries[0] or isinstance(entries[0][0], tuple | list)):
        return [pair for part in entries for pair in part]
    return list(entries)


def _cursor(text: bytes) -> Cursor | None:
    if not text:
        return None
    told = json.loads(text)
    return Cursor(journal=told["journal"], seq=told["seq"], digest=told["digest"], place=told["place"])


def _dead_letter(group: str, text: bytes) -> DeadLetter:
    told = json.loads(text)
    return DeadLetter(
        group=group,
        offset=told["offset"],
        envelope=decode(told["event"].encode()),
        deliveries=told["deliveries"],
        reason=told["reason"],
        died_ms=told["died_ms"],
    )
