"""How much of a venue's limits is spent, and how long to wait for room; pure, with the moment as an argument."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from feature_store.json_text import UNREADABLE
from feature_store.venue.requests import Urgency

Spent = list[tuple[float, float]]

# Beyond so many, neighbours in time are written as one, dated by the later: it counts a little longer, never shorter.
_KEPT_APART = 100
_MERGED_WITHIN = 0.02
_MOST_ACCOUNTS = 64


@dataclass(frozen=True, slots=True)
class Limit:
    """
    What a venue allows one address, in ccxt's units of cost, and how it says what was used.

    `margin_s` is how long a request may be under way: what was spent counts so much longer than the venue counts it.
    `bulk` and `usual` are the shares that may be used by what is not urgent; `orders` are limits of one account on
    orders, as counts and seconds.
    """

    cost: float
    window_s: float = 60.0
    margin_s: float = 2.0
    used_header: str | None = None
    cost_per_weight: float = 1.0
    bulk: float = 1.0
    usual: float = 1.0
    orders: tuple[tuple[int, float], ...] = ()
    # What an order costs of the address's limit, where ccxt says otherwise; ccxt uses its cost to slow orders down.
    order_cost: float | None = None

    def share(self, urgency: Urgency) -> float:
        """Return the share of the limit that may be used."""
        return {Urgency.BULK: self.bulk, Urgency.USUAL: self.usual, Urgency.URGENT: 1.0}[urgency]


@dataclass(frozen=True, slots=True)
class Demand:
    """What one request would spend; `account` names whose orders it counts to."""

    cost: float
    urgency: Urgency = Urgency.BULK
    orders: int = 0
    account: str = ""


@dataclass(slots=True)
class Spending:
    """What all processes together have spent, and until when the venue wants to hear nothing."""

    spent: Spent = field(default_factory=list)
    resume_at_ms: int = 0
    orders: dict[str, Spent] = field(default_factory=dict)

    def trim(self, limit: Limit, now: float) -> None:
        """Forget what counts no more; what lies ahead was written before the machine was started anew."""
        self.spent = _merged(_counting(self.spent, limit.window_s + limit.margin_s, now), limit.window_s)
        longest = max((seconds for _, seconds in limit.orders), default=0.0) + limit.margin_s
        kept = {account: _counting(spent, longest, now) for account, spent in self.orders.items()}
        shortest = min((seconds for _, seconds in limit.orders), default=0.0)
        busy = [(account, _merged(spent, shortest)) for account, spent in kept.items() if spent]
        self.orders = dict(busy[-_MOST_ACCOUNTS:])

    def paused_s(self, now_ms: int) -> float:
        """Return how long the venue still wants to hear nothing."""
        return max(0.0, (self.resume_at_ms - now_ms) / 1000)

    def wait_s(self, demand: Demand, limit: Limit, now: float) -> float:
        """Return how long until there is room for a demand; 0 where there is."""
        share = limit.share(demand.urgency)
        wait = _until_room(
            self.spent,
            most=limit.cost * share,
            wanted=min(demand.cost, limit.cost * share),
            seconds=limit.window_s + limit.margin_s,
            now=now,
        )
        if demand.orders:
            spent = self.orders.get(demand.account, [])
            for most, seconds in limit.orders:
                allowed = max(1.0, most * share)
                wait = max(
                    wait,
                    _until_room(
                        _counting(spent, seconds + limit.margin_s, now),
                        most=allowed,
                        wanted=min(demand.orders, allowed),
                        seconds=seconds + limit.margin_s,
                        now=now,
                    ),
                )
        return wait

    def spend(self, demand: Demand, limit: Limit, now: float) -> None:
        """Write down what a demand spends; not more of the limit than a whole window holds."""
        if demand.cost > 0:
            self.spent.append((now, min(demand.cost, limit.cost)))
        if demand.orders:
            self.orders.setdefault(demand.account, []).append((now, float(demand.orders)))

    def believe(self, used: float, now: float) -> None:
        """Take the venue's word on what was used, where it counted more: others share the address."""
        known = sum(cost for _, cost in self.spent)
        if used > known:
            self.spent.append((now, used - known))

    def believe_orders(self, account: str, counts: Mapping[float, float], limit: Limit, now: float) -> None:
        """Take the venue's word on an account's orders, by window in seconds: others may trade it elsewhere."""
        spent = self.orders.setdefault(account, [])
        at = now
        for _, seconds in sorted(limit.orders, key=lambda one: one[1]):
            known = sum(one for _, one in _counting(spent, seconds + limit.margin_s, now))
            if counts.get(seconds, 0.0) > known:
                spent.append((at, counts[seconds] - known))
            # What only a longer window counts is older than the shorter one.
            at = now - seconds - limit.margin_s


def _counting(spent: Spent, seconds: float, now: float) -> Spent:
    return [(at, one) for at, one in spent if now - seconds < at <= now]


def _merged(spent: Spent, window_s: float) -> Spent:
    if len(spent) <= _KEPT_APART or window_s <= 0:
        return spent
    # By a fixed grid: what is merged once stays where it is, and cannot slide ahead with each look.
    slots: dict[int, tuple[float, float]] = {}
    for at, cost in spent:
        slot = int(at / (window_s * _MERGED_WITHIN))
        latest, together = slots.get(slot, (at, 0.0))
        slots[slot] = (max(latest, at), together + cost)
    return list(slots.values())


def _until_room(spent: Spent, *, most: float, wanted: float, seconds: float, now: float) -> float:
    used = sum(one for _, one in spent)
    if used + wanted <= most + 1e-9:
        return 0.0
    wait = 0.0
    for at, one in sorted(spent):
        if used + wanted <= most + 1e-9:
            break
        used -= one
        wait = at + seconds - now
    return max(0.0, wait)


class _Content(msgspec.Struct):
    """What is written down; without a seal, as a person or an older version writes it, it is believed as it is."""

    spent: list[tuple[float, Annotated[float, msgspec.Meta(ge=0)]]]
    resume_at_ms: int
    orders: dict[str, list[tuple[float, Annotated[float, msgspec.Meta(ge=0)]]]] = {}
    seal: int | None = None


_decoder = msgspec.json.Decoder(_Content)
_SEAL = b',"seal":'


def encode(spending: Spending) -> bytes:
    """Return what is written down for the others, under a seal that shows a write which was broken off."""
    content = {"spent": spending.spent, "resume_at_ms": spending.resume_at_ms, "orders": spending.orders}
    body = msgspec.json.encode(content)[:-1]
    return body + _SEAL + str(zlib.crc32(body)).encode() + b"}"


def decode(text: bytes | None) -> Spending:
    """Read what the others wrote; what cannot be read is as if nothing had been spent."""
    found = None if text is None else read(text)
    return Spending() if found is None else found


def read(text: bytes) -> Spending | None:
    """Return what is written, or None where it is not whole."""
    try:
        content = _decoder.decode(text)
    except UNREADABLE:
        return None
    if content.seal is not None and content.seal != zlib.crc32(text.rpartition(_SEAL)[0]):
        return None
    return Spending(content.spent, content.resume_at_ms, content.orders)
