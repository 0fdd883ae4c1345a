"""What Redis does not keep by itself: retention that leaves what a group needs, and counts."""

from __future__ import annotations

import json
from typing import Any

from inference.bus.envelope import Envelope, decode, matches
from inference.bus.port import BusStats, GroupStats, Retention
from inference.bus.redis_client import Keys

_PAGE = 500
_ALL = 10**6


def offset_of(key: bytes) -> int:
    """Return the offset that an entry's id is."""
    return int(key.partition(b"-")[0])


def trim(redis: Any, keys: Keys, retention: Retention) -> int:
    """Take away what need not be kept, with its ids; return how many events that were."""
    last = int(redis.get(keys.counter) or 0)
    known = _known(redis, keys)
    positions = _positions(redis, keys)
    needed = min((_needed_from(redis, keys, name, positions.get(name, 1)) for name in known), default=last + 1)
    seconds, micros = redis.time()
    young = seconds * 1000 + micros // 1000 - int(retention.age_seconds * 1000)
    keep = last - retention.events + 1
    hard = last - retention.needed_events + 1
    removed = 0
    while True:
        gone: list[tuple[int, Envelope]] = []
        for key, fields in redis.xrange(keys.log, count=_PAGE):
            offset = offset_of(key)
            is_old = offset < keep or int(fields[b"at"]) < young
            if not ((is_old and offset < needed) or offset < hard):
                break
            gone.append((offset, decode(fields[b"event"])))
        if gone:
            _take_away(redis, keys, gone, known, positions)
        removed += len(gone)
        if len(gone) < _PAGE:
            return removed


def stats(redis: Any, keys: Keys) -> BusStats:
    """Count."""
    last = int(redis.get(keys.counter) or 0)
    first = redis.xrange(keys.log, count=1)
    positions = _positions(redis, keys)
    return BusStats(
        published=last,
        kept=redis.xlen(keys.log),
        first_offset=offset_of(first[0][0]) if first else last + 1,
        last_offset=last,
        groups={
            name: _group_stats(redis, keys, name, patterns, positions.get(name, 1))
            for name, patterns in _known(redis, keys).items()
        },
    )


def _take_away(
    redis: Any,
    keys: Keys,
    gone: list[tuple[int, Envelope]],
    known: dict[str, tuple[str, ...]],
    positions: dict[str, int],
) -> None:
    first, last = gone[0][0], gone[-1][0]
    for name, patterns in known.items():
        position = positions.get(name, 1)
        dropped = sum(1 for offset, one in gone if offset >= position and matches(patterns, one.event_type))
        pending = redis.xpending_range(keys.log, name, f"{first}-0", f"{last}-0", _ALL)
        if pending:
            dropped += redis.xack(keys.log, name, *(one["message_id"] for one in pending))
        if dropped:
            redis.hincrby(keys.counts(name), "dropped", dropped)
    redis.hdel(keys.ids, *(one.event_id for _, one in gone))
    redis.xtrim(keys.log, minid=f"{last + 1}-0", approximate=False)


def _group_stats(redis: Any, keys: Keys, name: str, patterns: tuple[str, ...], position: int) -> GroupStats:
    counts = {key.decode(): int(value) for key, value in redis.hgetall(keys.counts(name)).items()}
    pending = redis.xpending(keys.log, name)["pending"]
    return GroupStats(
        patterns=patterns,
        position=position,
        delivered=counts.get("delivered", 0),
        acknowledged=counts.get("acknowledged", 0),
        # What waits to be delivered again belongs to the group as much as what was.
        pending=pending + redis.xlen(keys.retries(name)),
        dead=redis.hlen(keys.dead(name)),
        dropped=counts.get("dropped", 0),
    )


def _known(redis: Any, keys: Keys) -> dict[str, tuple[str, ...]]:
    told = sorted(redis.hgetall(keys.groups).items())
    return {name.decode(): tuple(json.loads(text)["patterns"]) for name, text in told}


def _positions(redis: Any, keys: Keys) -> dict[str, int]:
    if not redis.exists(keys.log):
        return {}
    groups = redis.xinfo_groups(keys.log)
    return {one["name"].decode(): offset_of(one["last-delivered-id"]) + 1 for one in groups}


def _needed_from(redis: Any, keys: Keys, name: str, position: int) -> int:
    oldest = redis.xpending(keys.log, name)["min"]
    return min(position, offset_of(oldest)) if oldest else position
