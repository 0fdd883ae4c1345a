"""What a venue is at a moment: it is saved as that, and can be led to a later one or back to an earlier one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import msgspec

from feature_store import clock as wall
from infra.sandbox.audit import Auditor
from infra.sandbox.disturbing import resume
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.spot import SpotExchange
from infra.sandbox.faults import FaultError, number
from infra.sandbox.market.series import DAY_MS, HOUR_MS, TICK_MS
from infra.sandbox.market.timetable import TimetabledMarket
from infra.sandbox.order_rules import apply_feed_latency
from infra.sandbox.persist import Saved

if TYPE_CHECKING:
    from infra.sandbox.server import Sandbox

MOST_SNAPSHOTS: Final = 16
LONGEST_DAYS: Final = 7
_LONGEST_NAME: Final = 60


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A venue as it would be saved, and what was counted of ambiguous candles until then."""

    raw: bytes
    told_by_minutes: int = 0
    chosen: int = 0
    at_stake: Decimal = Decimal(0)


@dataclass(slots=True)
class Leading:
    """Who leads time: one at a time, the others in the order in which they came."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    # How often the venue was brought back: what was asked of it before is not done after.
    restores: int = 0
    # What somebody said of the clock while it was led: whether it stands still from then on.
    stands: bool | None = None


def saved(sandbox: Sandbox) -> Saved:
    """Return everything that outlives a venue's process."""
    venue = sandbox.venue
    return Saved(
        sandbox.identity,
        venue.ticked_ms,
        venue.exchange.state,
        venue.auditor.intervals(now_ms=venue.ticked_ms, wall_ms=sandbox.monotonic_ms()),
        venue.arrivals.in_flight(),
        sandbox.script.endings(wall.monotonic()),
        sandbox.bitfinex.doorkeeper.nonces,
        spot=venue.spot.state,
    )


async def advance(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    """
    Let the time to a moment pass at once; where it stood still before, it stands still there.

    Everything that lies between happens: prices, fills, funding, candles. A venue in lockstep waits there for its
    clients, as at any moment at which something closed. Two of these come one after the other. Who lets time stand
    still meanwhile ends it there, and who lets it go on is heeded once it is over; a restore ends it for good.
    """
    leading = sandbox.leading
    asked = leading.restores
    async with leading.turn:
        leading.stands = None
        if leading.restores == asked:
            await _lead_on(sandbox, _moment(sandbox, body), lambda: leading.restores != asked or bool(leading.stands))
    if leading.restores != asked:
        raise FaultError("The venue was brought back to a snapshot meanwhile; it was led no further")
    return {"now_ms": sandbox.now_ms()}


def _moment(sandbox: Sandbox, body: dict[str, Any]) -> int:
    now_ms = sandbox.advance()
    least_ms, most_ms = float(now_ms), float(now_ms + LONGEST_DAYS * DAY_MS)
    if body.get("until_ms") is not None:
        until_ms = int(number(body, "until_ms", 0.0, least=least_ms, most=most_ms))
    else:
        until_ms = now_ms + int(1000 * number(body, "for_s", 0.0, most=LONGEST_DAYS * DAY_MS / 1000))
    end_ms = sandbox.venue.market.end_ms
    return until_ms if end_ms is None else min(until_ms, end_ms)


async def _lead_on(sandbox: Sandbox, until_ms: int, is_ended: Callable[[], bool]) -> None:
    clock, stood_still = sandbox.clock, sandbox.clock.held_since is not None
    # In lockstep no tick is overtaken.
    step_ms = TICK_MS if sandbox.lockstep.on else HOUR_MS
    try:
        while not is_ended() and (ticked_ms := sandbox.venue.ticked_ms) + TICK_MS <= until_ms:
            clock.hold(wall.monotonic(), min(until_ms, ticked_ms + step_ms))
            sandbox.advance()
            # What was told is sent meanwhile.
            await asyncio.sleep(0)
        if not sandbox.lockstep.on and not is_ended():
            clock.hold(wall.monotonic(), until_ms)
            sandbox.advance()
    finally:
        stands = stood_still if sandbox.leading.stands is None else sandbox.leading.stands
        if not stands and not sandbox.lockstep.on:
            clock.release(wall.monotonic())


def snapshot(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    """Keep the venue as it is now under a name, to come back to; it is gone with the process."""
    name = _name(body)
    if name not in sandbox.snapshots and len(sandbox.snapshots) >= MOST_SNAPSHOTS:
        raise FaultError(f"At most {MOST_SNAPSHOTS} snapshots are kept, known are {_known(sandbox)}")
    sandbox.advance()
    raw, found = msgspec.json.encode(saved(sandbox)), sandbox.venue.ambiguity
    counted = () if found is None else (found.told_by_minutes, found.chosen, found.at_stake)
    sandbox.snapshots[name] = Snapshot(raw, *counted)
    return {"name": name, "now_ms": sandbox.venue.ticked_ms}


async def restore(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    """
    Make the venue again what it was at a snapshot: accounts, orders, prices, halts and the time.

    What is under way is answered as unknown, and every socket is cut, since what was told on it is not so any more.
    Faults in force, plans of a script, listen keys and the nonces of the Bitfinex front stay as they are. Whoever leads
    time just then, or waits to, leads it no further.
    """
    kept = sandbox.snapshots.get(_name(body))
    if kept is None:
        raise FaultError(f"There is no snapshot '{_name(body)}', known are {_known(sandbox) or 'none'}")
    sandbox.leading.restores += 1
    async with sandbox.leading.turn:
        _bring_back(sandbox, kept)
        now_ms = sandbox.venue.ticked_ms
    return {"now_ms": now_ms, "killed": await sandbox.kill_sockets(hard=True)}


def _bring_back(sandbox: Sandbox, kept: Snapshot) -> None:
    told = msgspec.json.decode(kept.raw, type=Saved)
    venue = sandbox.venue
    hours = {one.symbol: one.funding_hours for one in venue.market.instruments}
    venue.market = TimetabledMarket(venue.market.source, told.engine, funding_hours=hours)
    known, spot = venue.exchange, venue.spot
    venue.exchange = Exchange(
        venue.market.instruments, told.engine, fees=known.fees, book=known.book, clearance=known.clearance
    )
    assert told.spot is not None, "A venue that runs has a spot account"
    venue.spot = SpotExchange(venue.market.instruments, told.spot, fees=spot.fees, book=spot.book)
    venue.events, venue.spot_events = [], []
    venue.auditor = Auditor(finished=list(told.unprotected))
    venue.begin(told.now_ms)
    venue.arrivals.forget()
    venue.arrivals.restore(told.in_flight)
    if venue.ambiguity is not None:
        venue.ambiguity.begin_anew(kept.told_by_minutes, kept.chosen, kept.at_stake, bent=venue.market.redraw)
    venue.auditor.observe(venue.exchange, now_ms=venue.ticked_ms, wall_ms=sandbox.monotonic_ms())
    venue.revision += 1
    stood_still = sandbox.clock.held_since is not None
    sandbox.clock.hold(wall.monotonic(), venue.ticked_ms)
    if not stood_still:
        sandbox.clock.release(wall.monotonic())
    resume(sandbox, told.endings, wall.monotonic())
    apply_feed_latency(sandbox)
    sandbox.feeds.forget()


def _name(body: dict[str, Any]) -> str:
    name = body.get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= _LONGEST_NAME:
        raise FaultError(f"'name' expects a word of at most {_LONGEST_NAME} letters, was {str(name)[:80]!r}")
    return name


def _known(sandbox: Sandbox) -> str:
    return ", ".join(sorted(sandbox.snapshots))
