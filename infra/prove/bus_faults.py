"""Redis killed, emptied, cut off and frozen, PostgreSQL and the worker killed: what is journaled is heard once each."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from feature_store.clock import monotonic
from inference.bus.address import open_bus
from inference.bus.projection import events_of
from inference.domain.events import Event, ExitRequested, Noted, OrderIntended, TradeClosed
from inference.domain.order import Purpose
from inference.execution.entry_holds import BEGUN, BUS, BUS_DOWN, ENDED
from inference.journal.codec import Entry, event_of
from inference.journal.reader import read_entries
from infra.prove import bus_witness
from infra.prove.cut_wire import CutWire
from infra.prove.databases import PostgresServer, RedisServer
from infra.prove.practice_bundle import practice_bundle
from infra.prove.proof import Proof, Size
from infra.prove.record import history_differences, standing_differences
from infra.prove.running_worker import RunningWorker
from infra.prove.servers import Servers
from infra.prove.stage import ROOT, ProofError, Stage, get, post, wait_until

ROUNDS = {Size.FULL: 3, Size.CI: 1}
LATE_S = 2
"""After how long without the bus entries are held here; ten seconds unless a person says otherwise."""
HELD_WITHIN_S, RELEASED_WITHIN_S = LATE_S + 13.0, 15.0
_HOLD_S = 8.0
_SPEED, _SYMBOLS = 60, 20
_PATIENCE_S = 90.0
_POLICY = """
confidence_threshold = 0.5
cooldown_seconds = 0
max_positions = 20
max_exposure = 3
max_portfolio_heat = 1
min_notional = 5
max_notional = 1000
max_daily_drawdown = 0.15
max_holding_candles = 2
taker_fee = 0
slippage = 0
"""


@dataclass(slots=True)
class _Scene:
    """All that takes part."""

    stage: Stage
    venue: str
    worker: RunningWorker
    redis: RedisServer
    wire: CutWire
    postgres: PostgresServer
    witnesses: _Witnesses
    wrong: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    exits_while_held: int = 0
    entries_while_held: int = 0
    slowest_release_s: float = 0.0

    @property
    def journal(self) -> Path:
        """The worker's record."""
        return self.stage.home / "journal" / "journal.jsonl"

    def entries(self) -> list[Entry]:
        """Return the journal's entries so far."""
        return list(read_entries(self.journal))


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to whom, and how it ends."""

    name: str
    begin: Callable[[_Scene], None]
    end: Callable[[_Scene], None]
    is_bus: bool = True


def _kill_redis(scene: _Scene) -> None:
    scene.redis.kill()


def _start_redis(scene: _Scene) -> None:
    scene.redis.start()


def _start_empty(scene: _Scene) -> None:
    scene.redis.forget()
    scene.redis.start()


def _kill_worker_too(scene: _Scene) -> None:
    scene.redis.kill()
    time.sleep(1.0)
    # Between the journal and the bus: what it wrote down meanwhile nobody has been told.
    scene.worker.kill()
    scene.worker.start()
    scene.worker.wait_for("trading", seconds=_PATIENCE_S)


FAULTS = (
    Fault("Redis killed and started again", _kill_redis, _start_redis),
    Fault("Redis killed, its data gone", _kill_redis, _start_empty),
    Fault("the network parted", lambda one: one.wire.swallow(on=True), lambda one: one.wire.swallow(on=False)),
    Fault("connections cut and refused", lambda one: one.wire.cut(), lambda one: one.wire.mend()),
    Fault("Redis frozen", lambda one: one.redis.freeze(on=True), lambda one: one.redis.freeze(on=False)),
    Fault("Redis and then the worker killed", _kill_worker_too, _start_redis),
    Fault("PostgreSQL killed", lambda one: one.postgres.crash(), lambda one: one.postgres.start(), is_bus=False),
)


def prove(size: Size) -> Proof:
    """Trade through every fault; then each event of the journal has been heard, and had its effect once."""
    began = monotonic()
    with ExitStack() as stack:
        scene = _begin(stack)
        faults = [fault for _ in range(ROUNDS[size]) for fault in FAULTS]
        for fault in faults:
            _live_through(scene, fault)
        lost, doubled, total = _settle(scene)
        trades = sum(isinstance(event_of(one), TradeClosed) for one in scene.entries())
    held = sum(fault.is_bus for fault in faults)
    is_held = not (lost or doubled or scene.wrong or scene.entries_while_held) and scene.exits_while_held > 0
    return Proof(
        name="bus-faults",
        figure=(
            f"{len(faults)} faults, {total} events: {lost} lost, {doubled} doubled; {scene.entries_while_held} entries"
            f" while held, {scene.exits_while_held} exits and closed trades; let out again by itself each time, at most"
            f" {scene.slowest_release_s:.1f} s after the fault; {len(scene.wrong)} other disagreements"
            f" ({trades} trades, {held} holds of the bus)"
        ),
        bar="0 lost, 0 doubled, 0 entries while held, exits go on, entries come back by themselves",
        holds=is_held,
        details=(f"in {monotonic() - began:.0f} s:", *scene.told, *scene.wrong[:20]),
    )


def _begin(stack: ExitStack) -> _Scene:
    stage = stack.enter_context(Stage("bus-faults"))
    servers = stack.enter_context(Servers(stage))
    redis = stack.enter_context(RedisServer(stage.home / "redis"))
    wire = stack.enter_context(CutWire(redis.port))
    postgres = stack.enter_context(PostgresServer())
    bundle = practice_bundle(stage.home / "bundle")
    policy = stage.home / "policy.toml"
    policy.write_text(_POLICY)
    venue = servers.sandbox(symbols=_SYMBOLS, speed=_SPEED, balance=1_000_000)
    settings = {
        "PYTHONPATH": str(ROOT),
        "QT_BUS": f"redis://127.0.0.1:{wire.port}/0",
        "QT_BUS_REQUIRED": "true",
        "QT_BUS_LATE_SECONDS": str(LATE_S),
        "QT_LEASE_URL": postgres.url,
        "QT_LEASE_SECONDS": "3",
        # A worker that was killed is followed by another in the same home once its lease is over.
        "QT_LEASE_WAIT": "true",
    }
    worker = RunningWorker(
        stage, {"sandbox": venue}, policy=str(policy), bundle=bundle, python=Path(sys.executable), settings=settings
    )
    stack.callback(_end, worker)
    witnesses = stack.enter_context(_Witnesses(stage, redis.url))
    worker.start()
    worker.wait_for("trading", seconds=_PATIENCE_S)
    return _Scene(stage, venue, worker, redis, wire, postgres, witnesses)


def _end(worker: RunningWorker) -> None:
    with suppress(ProcessLookupError):
        worker.kill()


class _Witnesses:
    """Two consumers of one group, each a process; one of them is killed at every fault and begun again."""

    def __init__(self, stage: Stage, url: str) -> None:
        self._stage = stage
        self._url = url
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.folder = stage.home / "witness"

    def __enter__(self) -> Self:
        """Start both."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("one", "two"):
            self._start(name)
        return self

    def __exit__(self, *_: object) -> None:
        """End both."""
        for process in self._running.values():
            process.kill()
            process.wait()

    def kill_one(self) -> None:
        """Kill the first as a power cut would, and start it again."""
        self._running["one"].kill()
        self._running["one"].wait()
        self._start("one")

    def _start(self, name: str) -> None:
        command = [sys.executable, "-m", "infra.prove.bus_witness", self._url, str(self.folder), name]
        with (self._stage.home / f"witness-{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                command, cwd=ROOT, env=self._stage.environment | {"PYTHONPATH": str(ROOT)}, stdout=log, stderr=log
            )


def _live_through(scene: _Scene, fault: Fault) -> None:
    """Let one fault happen while entries go out; see them held, and let out again."""
    try:
        _wait_for_entry(scene, after=len(scene.entries()))
        began = monotonic()
        fault.begin(scene)
        wait_until(lambda: _is_held(scene, fault), seconds=_patience(fault), what=f"entries held: {fault.name}")
        held_after = monotonic() - began
        from_seq = len(scene.entries())
        time.sleep(_HOLD_S / 2)
        scene.witnesses.kill_one()
        time.sleep(_HOLD_S / 2)
        window = [event_of(one) for one in scene.entries()[from_seq:]]
        ended = monotonic()
        fault.end(scene)
        wait_until(lambda: not _is_held(scene, fault), seconds=RELEASED_WITHIN_S, what=f"release: {fault.name}")
        released_after = monotonic() - ended
        _wait_for_entry(scene, after=len(scene.entries()))
    except ProofError as error:
        scene.wrong.append(str(error))
        fault.end(scene)
        return
    entries, exits = _entries_in(window), _exits_in(window)
    scene.entries_while_held += entries
    scene.exits_while_held += exits if fault.is_bus else 0
    scene.slowest_release_s = max(scene.slowest_release_s, released_after)
    scene.told.append(
        f"{fault.name}: held after {held_after:.1f} s, {entries} entries and {exits} exits meanwhile, let out"
        f" {released_after:.1f} s after its end"
    )


def _patience(fault: Fault) -> float:
    # A worker that was killed comes back first, and waits for its own lease to end.
    return HELD_WITHIN_S + (0 if fault.begin is not _kill_worker_too else 30.0)


def _is_held(scene: _Scene, fault: Fault) -> bool:
    status = scene.stage.worker_status()
    if fault.is_bus:
        return any(one["what"] == BUS and one["because"] == BUS_DOWN for one in status.get("holds", ()))
    return status.get("trading_state") != "ACTIVE"


def _wait_for_entry(scene: _Scene, *, after: int) -> None:
    wait_until(
        lambda: _entries_in([event_of(one) for one in scene.entries()[after:]]) > 0,
        seconds=_PATIENCE_S,
        what="an entry",
        every=0.5,
    )


def _entries_in(events: list[Event]) -> int:
    return sum(isinstance(one, OrderIntended) and one.intent.purpose is Purpose.ENTRY for one in events)


def _exits_in(events: list[Event]) -> int:
    return sum(isinstance(one, ExitRequested | TradeClosed) for one in events)


def _settle(scene: _Scene) -> tuple[int, int, int]:
    """Stop, and return how many events of the journal were never heard, how many twice, and how many there were."""
    post(f"{scene.venue}/sandbox/ctl", {"op": "stand_still"})
    _compare_with_venue(scene)
    scene.worker.stop()
    verified = scene.stage.qtctl("audit", "verify", "--json", check=False)
    if verified.returncode != 0:
        scene.wrong.append(f"journal: {verified.stdout.strip()[-300:]}")
    entries = scene.entries()
    scene.wrong += _unpaired_holds(entries)
    wanted = [one.event_id for entry in entries for one in events_of(entry, entries[0].digest[:16])]
    try:
        wait_until(
            lambda: len(bus_witness.effects(scene.witnesses.folder)) >= len(wanted),
            seconds=_PATIENCE_S,
            what="every event to be heard",
            every=0.5,
        )
    except ProofError as error:
        scene.wrong.append(str(error))
    heard = bus_witness.effects(scene.witnesses.folder)
    with _bus(scene) as bus:
        stored = Counter(one.envelope.event_id for one in bus.replay())
        dead = len(bus.dead_letters())
    if dead:
        scene.wrong.append(f"{dead} dead letters")
    missing = set(wanted) - set(heard) | (set(wanted) - set(stored))
    strangers = set(heard) - set(wanted)
    doubled = sum(count > 1 for count in heard.values()) + sum(count > 1 for count in stored.values())
    if strangers:
        scene.wrong.append(f"{len(strangers)} events were heard that nobody journaled")
    return len(missing), doubled, len(wanted)


def _unpaired_holds(entries: list[Entry]) -> list[str]:
    """Return what is wrong with the holds as the journal tells of them: each begins, ends, and lets nothing through."""
    found, is_held = [], False
    for entry in entries:
        event = event_of(entry)
        if isinstance(event, Noted) and event.detail.get("what") == BUS and event.event_type in (BEGUN, ENDED):
            is_held = event.event_type == BEGUN
        elif isinstance(event, Noted) and event.event_type == "health.started":
            is_held = False
        elif is_held and isinstance(event, OrderIntended) and event.intent.purpose is Purpose.ENTRY:
            found.append(f"entry {event.intent.client_order_id} was intended while entries were held")
    return found + (["the last hold did not end"] if is_held else [])


def _compare_with_venue(scene: _Scene) -> None:
    """Wait until journal and venue tell the same of positions, orders and executions."""
    found: list[str] = []

    def agree() -> bool:
        nonlocal found
        events = [event_of(one) for one in scene.entries()]
        audit: dict[str, Any] = get(f"{scene.venue}/sandbox/audit")
        found = standing_differences(events, audit) + history_differences(events, audit)
        found += [f"twice: {one}" for one in audit["duplicate_client_ids"]]
        return not found

    try:
        wait_until(agree, seconds=_PATIENCE_S, what="journal and venue to agree", every=0.5)
    except ProofError:
        scene.wrong += found


@contextmanager
def _bus(scene: _Scene) -> Iterator[Any]:
    bus = open_bus(scene.redis.url, scene.stage.home)
    try:
        yield bus
    finally:
        bus.close()
