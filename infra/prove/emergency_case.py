"""One worker that is told to flatten while its venue misbehaves: how soon it is halted, and that it gets there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feature_store.clock import monotonic
from inference.domain.events import Event, Noted, OrderIntended
from inference.domain.order import Purpose
from inference.risk.emergency import FLATTEN, Evaluator
from inference.supervision.emergency_latch import Latch, StopOrder
from inference.supervision.emergency_record import CONFIRMED, RESET, STOPPED
from infra.prove.emergency_faults import SYMBOLS, Fault
from infra.prove.own_venue import OwnVenue, own_venue
from infra.prove.record import events_in
from infra.prove.running_worker import RunningWorker
from infra.prove.stage import Stage

BOUND_S = 2.0
SPEED = 60.0
_BEGINS_S, _CONFIRMED_S, _FAULTED_S = 120.0, 90.0, 5.0
_CANDLES_WATCHED = 2
# What acts on orders at a venue.
_ACTS = ("/fapi/v1/order", "/fapi/v1/algoOrder", "/fapi/v1/batchOrders", "/fapi/v1/allOpenOrders")


@dataclass(slots=True)
class Ending:
    """How a case went: seconds from the stop to HALTED and to the first action at the venue, and what was wrong."""

    halted_s: float = float("inf")
    acted_s: float = float("inf")
    confirmed_s: float = float("inf")
    positions: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Ears:
    """When the venue was first spoken to of orders since it was last asked."""

    since: float = float("inf")
    first: float | None = None

    def hear(self, method: str, path: str) -> None:
        acts = method in ("POST", "PUT", "DELETE") and path in _ACTS
        if self.first is None and acts and monotonic() >= self.since:
            self.first = monotonic()


async def flatten_under(fault: Fault, stage: Stage, bundle: Path, policy: str) -> Ending:
    """Let a worker trade, let the fault begin, latch a stop that flattens, kill the worker, and see all end well."""
    ears, ending = _Ears(), Ending()
    async with own_venue(symbols=SYMBOLS, speed=SPEED, edge=0.9, heard=ears.hear) as venue:
        worker = RunningWorker(stage, {"sandbox": venue.url}, policy=policy, bundle=bundle)
        try:
            await _case(fault, venue, worker, ears, ending)
        finally:
            await asyncio.to_thread(worker.kill)
    return ending


async def _case(fault: Fault, venue: OwnVenue, worker: RunningWorker, ears: _Ears, ending: Ending) -> None:
    home = worker.stage.home
    journal = _Tail(home / "journal" / "journal.jsonl")
    await asyncio.to_thread(worker.start)
    if not await _until(lambda: len(venue.audit()["open_positions"]) >= 1, _BEGINS_S):
        ending.wrong.append("the worker entered nothing before the stop")
        return
    for operation in fault.operations:
        await venue.do(**operation)
    ending.positions = len(venue.audit()["open_positions"])
    order = StopOrder(key="1-proof", evaluator=Evaluator.MANUAL, reason=fault.name, actions=FLATTEN, by="proof")
    await asyncio.to_thread(Latch(home).stop, order)
    began = ears.since = monotonic()
    if await _until(lambda: journal.holds(STOPPED), 20.0):
        ending.halted_s = monotonic() - began
    await _until(lambda: ears.first is not None, 20.0)
    ending.acted_s = float("inf") if ears.first is None else max(0.0, ears.first - began - fault.told_to_wait_s)
    if fault.kills:
        await asyncio.to_thread(worker.kill)
    await asyncio.sleep(max(0.0, _FAULTED_S - (monotonic() - began)))
    await venue.do(op="clear")
    for undo in ({"op": "freeze_ws", "on": False}, {"op": "black_hole", "on": False}, {"op": "skew", "ms": 0}):
        await venue.do(**undo)
    if fault.kills:
        await asyncio.to_thread(worker.start)
    cleared = monotonic()
    if await _until(lambda: journal.holds(CONFIRMED), _CONFIRMED_S):
        ending.confirmed_s = monotonic() - cleared
    else:
        ending.wrong.append(f"not confirmed {_CONFIRMED_S:g} s after the fault had ended")
    await _survives(venue, worker, journal, ending)


async def _survives(venue: OwnVenue, worker: RunningWorker, journal: _Tail, ending: Ending) -> None:
    """Kill the worker, begin another, and see that it is halted, enters nothing, and holds what the venue holds."""
    await asyncio.to_thread(worker.kill)
    await asyncio.to_thread(worker.start)
    state = ""

    def is_up() -> bool:
        nonlocal state
        state = worker.stage.worker_status().get("state", "")
        return state in {"halted", "trading"}

    if not await _until(is_up, _BEGINS_S) or state != "halted":
        ending.wrong.append(f"after a kill the worker is {state or 'not there'}, not halted")
    decided = journal.count("signal.decided")
    await _until(lambda: journal.count("signal.decided") >= decided + _CANDLES_WATCHED, 30.0)
    events = events_in(journal.path)
    ending.wrong += [f"{key} was entered after the stop" for key in entered_after_stop(events)]
    audit = venue.audit()
    ending.wrong += [f"{one['symbol']} is open at the venue" for one in audit["open_positions"]]
    ending.wrong += [f"{audit[what]} {what} rest" for what in ("open_orders", "open_algo_orders") if audit[what]]
    if audit["duplicate_client_ids"]:
        ending.wrong.append(f"executed twice: {audit['duplicate_client_ids']}")


def entered_after_stop(events: list[Event]) -> list[str]:
    """Return the entries that were sent while a stop stood, by the journal's order."""
    found, standing = [], False
    for event in events:
        if isinstance(event, Noted) and event.event_type in (STOPPED, RESET):
            standing = event.event_type == STOPPED
        elif standing and isinstance(event, OrderIntended) and event.intent.purpose is Purpose.ENTRY:
            found.append(event.intent.client_order_id)
    return found


class _Tail:
    """A journal that is read as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._counts: dict[str, int] = {}

    def holds(self, kind: str) -> bool:
        return self.count(kind) > 0

    def count(self, kind: str) -> int:
        self._read()
        return self._counts.get(kind, 0)

    def _read(self) -> None:
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                grown = file.read()
        except FileNotFoundError:
            return
        whole = grown[: grown.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            # Canonical JSON sorts its keys: the kind of an entry is the last thing in its line.
            kind: Any = json.loads(b"{" + line[line.rfind(b'"type":') :])["type"]
            self._counts[kind] = self._counts.get(kind, 0) + 1


async def _until(holds: Callable[[], bool], seconds: float) -> bool:
    began = monotonic()
    while not holds():
        if monotonic() - began > seconds:
            return False
        await asyncio.sleep(0.02)
    return True


POLICY = """
confidence_threshold = 0.5
cooldown_seconds = 0
max_holding_candles = 200
max_daily_drawdown = 0.15
stop_atr_multiple = 6
target_atr_multiple = 8
taker_fee = 0
slippage = 0
"""
