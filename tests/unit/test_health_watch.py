"""Health as it goes: what the emergency stop is told of it, what the journal is, and when."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from inference.bus.catalogue import KINDS
from inference.domain.decision import TradingState
from inference.domain.events import Noted
from inference.domain.health import HealthLevel
from inference.domain.policy import Policy
from inference.journal.writer import JournalWriter
from inference.risk.errors import ErrorCounts
from inference.supervision.health_watch import LEVEL_CHANGED, HealthParts, HealthWatch, free_of
from inference.supervision.loop_lag import LoopLag
from inference.supervision.standing import Standing
from infra.stack.overview import health_told
from tests.worker_support import FakeClock, FakeGateway, MemoryJournal, make_executor

PLENTY = (1e12, 1e12)


@dataclass
class Scene:
    """A worker's standing, executor and journal, with every other input in reach."""

    folder: Path
    clock: FakeClock = field(default_factory=FakeClock)
    overdue: float | None = 0.0
    lag: float | None = 0.0
    free: tuple[float | None, float | None] = PLENTY
    told: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Put everything together; nothing has been looked at yet."""
        self.standing = Standing()
        self.executor = make_executor(FakeGateway(self.clock, marks={}), MemoryJournal())
        self.journal = JournalWriter.open(self.folder / "journal.jsonl")
        self.watch = HealthWatch(
            HealthParts(
                standing=self.standing, executor=self.executor, journal=self.journal, policy=Policy,
                timeframe_seconds=300, lease_held=lambda: True, candle_overdue_seconds=lambda: self.overdue,
                account_age_seconds=lambda: 0.0, circuits_open=lambda: 0, errors=ErrorCounts,
                loop_lag_seconds=lambda: self.lag, bus_late=lambda: False, free=lambda: self.free,
                note=lambda kind, detail: self.told.append((kind, dict(detail))), monotonic=self.clock.monotonic,
            )
        )  # fmt: skip

    def looks(self, *, seconds: float = 0.0) -> HealthLevel:
        """Look now, then once a second for so long; return what the last look gave the emergency stop."""
        level = self.watch.look()
        for _ in range(round(seconds)):
            self.clock.seconds += 1.0
            level = self.watch.look()
        return level

    @property
    def levels(self) -> list[str]:
        """The levels that the journal was told of, in order."""
        return [detail["level"] for kind, detail in self.told if kind == LEVEL_CHANGED]


@pytest.fixture
async def scene(tmp_path):
    """Return a worker that is reconciled and lacks nothing."""
    scene = Scene(tmp_path)
    await scene.clock.drive(scene.executor.start())
    yield scene
    scene.journal.close()


@pytest.mark.parametrize(
    ("objections", "level"),
    [
        ({}, HealthLevel.OPTIMAL),
        ({"account": TradingState.REDUCING}, HealthLevel.DEGRADED),
        ({"halted": TradingState.HALTED}, HealthLevel.CRITICAL),
        ({"journal": TradingState.HALTED, "halted": TradingState.HALTED}, HealthLevel.EMERGENCY),
        ({"emergency": TradingState.HALTED}, HealthLevel.OPTIMAL),
    ],
)
def test_health_is_read_from_what_objects(scene, objections, level):
    """The emergency stop is no illness: otherwise it would set itself off again after each reset."""
    for name, state in objections.items():
        scene.standing.object(name, state, "x")

    assert scene.looks() is level


def test_what_the_stop_judges_itself_counts_for_the_status_alone(scene):
    """Candles that stay out are major trouble, and latch the stop of the data feed, not two stops."""
    scene.overdue = 400.0

    assert scene.looks() is HealthLevel.OPTIMAL
    assert scene.watch.status.level == "CRITICAL"
    assert scene.levels == ["CRITICAL"]


def test_grave_levels_are_told_at_once_and_better_ones_once_they_last(scene):
    """The journal hears of each change once, with the level before and the reasons."""
    scene.looks(seconds=6)
    scene.free = (1e6, 1e12)
    scene.looks(seconds=1)
    scene.free = PLENTY
    scene.looks(seconds=20)
    assert scene.levels == ["OPTIMAL", "CRITICAL"]
    assert scene.told[-1][1] == {"level": "CRITICAL", "before": "OPTIMAL", "reasons": "disk: 1 MB free"}

    scene.looks(seconds=31)

    assert scene.levels == ["OPTIMAL", "CRITICAL", "OPTIMAL"]


def test_a_level_that_comes_and_goes_fills_no_journal(scene):
    """A hundred times a little late, and well again: nothing is told but the first level that lasted."""
    scene.looks(seconds=6)
    for _ in range(100):
        scene.lag = 3.0
        scene.looks(seconds=2)
        scene.lag = 0.0
        scene.looks(seconds=2)

    assert scene.levels == ["OPTIMAL"]


def test_an_entry_that_waits_for_the_disk_is_noticed(scene):
    """Entries are synced at each candle; one that is not, long after, degrades. What is synced meanwhile does not."""
    event = Noted(event_type="health.started", detail={})
    scene.journal.record(event, timestamp_ms=1)
    assert scene.looks(seconds=350) is HealthLevel.OPTIMAL
    assert scene.looks(seconds=20) is HealthLevel.DEGRADED

    scene.journal.sync()
    scene.journal.record(event, timestamp_ms=2)

    assert scene.looks(seconds=10) is HealthLevel.OPTIMAL


def test_nothing_is_shown_before_the_first_look(scene):
    """A worker that has not been looked at is not well: nobody knows."""
    assert scene.watch.status is None


def test_the_event_is_one_of_the_catalogue(scene):
    """Subscribers find it there, and its fields are always told."""
    scene.looks(seconds=6)

    assert set(KINDS[LEVEL_CHANGED].fields) <= set(scene.told[0][1])


def test_what_is_free_is_read_from_the_machine(tmp_path):
    """A home that is gone has a disk of which nothing is known."""
    disk, memory = free_of(tmp_path)

    assert disk is not None
    assert memory is not None
    assert min(disk, memory) > 0
    assert free_of(tmp_path / "gone")[0] is None


def test_of_two_disks_the_fuller_one_counts(tmp_path, monkeypatch):
    """A journal on a disk of its own ends trading when that is full, whatever the home's has; so does an unknown."""
    free = {tmp_path: 9e12, tmp_path / "journal": 5e6}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free[folder]))

    assert free_of(tmp_path, tmp_path / "journal")[0] == free_of(tmp_path / "journal", tmp_path)[0] == 5e6
    monkeypatch.undo()
    assert free_of(tmp_path, tmp_path / "gone")[0] is None


async def test_a_loop_that_is_held_up_is_late_for_ten_seconds():
    """A beat that is still due counts, one that came late counts a while, and before the first nothing is known."""
    now, naps = [0.0], [3.25]

    async def nap(_: float) -> None:
        if not naps:
            await asyncio.Event().wait()
        now[0] += naps.pop()

    lag = LoopLag(lambda: now[0], sleep=nap)
    assert lag.seconds is None
    beating = asyncio.create_task(lag.run())
    await asyncio.sleep(0)
    assert lag.seconds == 3.0
    now[0] += 7.25
    assert lag.seconds == 7.0

    lag = LoopLag(lambda: now[0], sleep=nap)
    naps.extend([0.25] * 45 + [3.25])
    again = asyncio.create_task(lag.run())
    await asyncio.sleep(0)

    assert lag.seconds == 0.0
    for one in (beating, again):
        one.cancel()
    await asyncio.gather(beating, again, return_exceptions=True)


def test_status_says_the_level_and_why(scene):
    """What `qtctl status` prints of it, and nothing for a worker of before."""
    scene.free = (5e8, 1e12)
    scene.looks()
    shown = scene.watch.status

    assert health_told({"level": shown.level, "reasons": shown.reasons}) == "health: DEGRADED (disk: 477 MB free)"
    assert health_told({"level": "OPTIMAL", "reasons": []}) == "health: OPTIMAL"
    assert health_told({}) == ""
