"""The emergency stop at work: latched before it acts, whatever is missing, and through every restart."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest

from feature_store.venue.errors import VenueDownError
from inference.domain.decision import TradingState
from inference.domain.events import AccountMarked, Noted
from inference.domain.health import HealthLevel
from inference.domain.market import Quote
from inference.domain.policy import Policy
from inference.domain.trade import ExitReason
from inference.execution.book import Book
from inference.execution.entering import Wish
from inference.risk.emergency import ACTIONS, FLATTEN, Action, Evaluator
from inference.risk.errors import ErrorCounts
from inference.supervision.account_marks import marked
from inference.supervision.emergency_latch import Latch, ResetOrder, StopOrder, key_of
from inference.supervision.emergency_record import CHOSEN, CONFIRMED, RESET, STOPPED, EmergencyRecord
from inference.supervision.emergency_watch import EmergencyParts, EmergencyWatch
from inference.supervision.standing import Standing
from inference.supervision.venue_answers import VenueAnswers
from tests.worker_support import FakeClock, FakeGateway, MemoryJournal, make_executor
from tests.worker_values import T0, make_approved

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
AT = "2026-11-30T09:00:00.000+00:00"


@dataclass
class Scene:
    """A venue in memory, an executor on it, and the emergency stop above both, with every input in reach."""

    home: Path
    record: EmergencyRecord = field(default_factory=EmergencyRecord)
    clock: FakeClock = field(default_factory=FakeClock)
    equity: Decimal | None = Decimal(10_000)
    quotes_fail: bool = False
    health: HealthLevel | None = HealthLevel.HEALTHY
    errors: ErrorCounts | None = field(default_factory=ErrorCounts)
    due_ms: int | None = T0 + 300_000
    noted: list[Noted] = field(default_factory=list)
    forgotten: int = 0
    kept: list[AccountMarked] = field(default_factory=list)
    traded: dict[str, Decimal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Put everything together; nothing has been looked at yet."""
        self.gateway = FakeGateway(self.clock, marks={BTC: Decimal(50_000), ETH: Decimal(50_000)})
        self.executor = make_executor(self.gateway, MemoryJournal())
        self.standing = Standing()
        self.latch = Latch(self.home)
        self.answers = VenueAnswers(
            equity=self._equity, quotes=self._quotes, know=dict, standing=self.standing, record=self.kept.append,
            now_ms=self.clock.now_ms, last_mark=(None, 0),
        )  # fmt: skip
        self.watch = self.watching()

    def watching(self) -> EmergencyWatch:
        """Return an emergency stop that knows what the record says."""
        return EmergencyWatch(
            self.latch,
            self.record,
            EmergencyParts(
                executor=self.executor, standing=self.standing, policy=Policy, equity=self._equity,
                marks=self.answers.seen, rebase=self.answers.rebase, quotes=self._quotes, traded=self.traded.get,
                health=lambda: self.health,
                errors=lambda: self.errors, forget_errors=self._forget, next_close_ms=lambda: self.due_ms,
                record=self._note, now_ms=self.clock.now_ms, monotonic=self.clock.monotonic, wall=lambda: AT,
            ),
        )  # fmt: skip

    def told(self, kind: str) -> list[Noted]:
        """Return what was journaled of one kind."""
        return [one for one in self.noted if one.event_type == kind]

    async def looks(self, times: int = 3) -> None:
        """Look several times, a moment apart, and let what was begun go on."""

        async def look() -> None:
            for _ in range(times):
                self.watch.look()
                await self.clock.sleep(0.2)

        await self.clock.drive(look())

    async def enters(self, symbol: str = BTC) -> bool:
        """Ask for a position."""
        wanted = make_approved(symbol, trace_id=f"{symbol}-{self.clock.seconds}")
        opened: bool = await self.clock.drive(self.executor.enter(wanted, candle_close_ms=self.clock.now_ms()))
        return opened

    def mark(self, equity: Decimal) -> None:
        """Let the last candle have seen so much, and day, week and peak begin with it."""
        now_ms = self.clock.now_ms()
        self.answers.account = marked(None, 0, equity=equity, now_ms=now_ms)
        self.answers._account_at_ms = now_ms

    async def _equity(self) -> Decimal:
        if self.equity is None:
            raise VenueDownError("no answer")
        return self.equity

    async def _quotes(self) -> dict[str, Quote]:
        if self.quotes_fail:
            raise VenueDownError("no answer")
        return {
            name: Quote(symbol=name, bid=mark, ask=mark, event_time_ms=T0) for name, mark in self.gateway.marks.items()
        }

    def _forget(self) -> None:
        self.forgotten += 1
        self.errors = ErrorCounts()

    def _note(self, event: Noted) -> None:
        self.noted.append(event)


def by_hand(actions=ACTIONS[Evaluator.MANUAL], key="1-stop"):
    return StopOrder(key=key, evaluator=Evaluator.MANUAL, reason="drill", actions=actions, at=AT, by="ada")


@pytest.fixture
async def scene(tmp_path):
    """Return a scene that is reconciled, has seen its equity, and may enter."""
    scene = Scene(tmp_path)
    await scene.clock.drive(scene.executor.start())
    await scene.looks()
    yield scene
    await scene.watch.stop()


async def test_a_stop_of_a_person_is_latched_at_the_next_look_and_lets_nothing_out(scene):
    """A file in the home halts; the journal has it, nothing is entered any more, and what is open stays protected."""
    assert await scene.enters()
    scene.latch.stop(by_hand())

    await scene.looks()

    assert scene.standing.trading_state is TradingState.HALTED
    assert scene.watch.reason == "MANUAL: drill"
    assert [one.detail["by"] for one in scene.told(STOPPED)] == ["ada"]
    assert not await scene.enters(ETH)
    assert scene.executor.door.denied["EMERGENCY_STOP"] == 1
    assert scene.gateway.held[BTC] > 0
    assert scene.gateway.unprotected() == []
    assert len(scene.told(CONFIRMED)) == 1


async def test_exits_pass_while_all_else_is_stopped(scene):
    """Whatever is latched, a position can be left."""
    await scene.enters()
    scene.latch.stop(by_hand())
    await scene.looks()

    await scene.clock.drive(scene.executor.request_exit(BTC, ExitReason.TIME_BARRIER))

    assert scene.gateway.held[BTC] == 0


async def test_flatten_closes_all_and_says_when_it_is_done(scene):
    """Every position is left at market for the reason EMERGENCY, and the stop is confirmed only then."""
    await scene.enters()
    await scene.enters(ETH)
    scene.latch.stop(by_hand(FLATTEN))

    await scene.looks(6)

    assert scene.gateway.held == {BTC: 0, ETH: 0}
    assert {one.reason for one in scene.executor.closed} == {ExitReason.EMERGENCY}
    assert [one.event_type for one in scene.noted if one.event_type != RESET][-1] == CONFIRMED


async def test_a_worker_that_starts_heeds_people_and_no_evaluator(scene):
    """Before anything is known a flattening is carried out; health, errors and candles latch only once it has begun."""
    await scene.enters()
    scene.health, scene.equity, scene.due_ms = HealthLevel.EMERGENCY, None, T0 - 3_600_000
    scene.watch = scene.watching()
    scene.latch.stop(by_hand(FLATTEN))

    heeding = asyncio.create_task(scene.watch.heed())
    with suppress(TimeoutError):
        async with asyncio.timeout(60):
            while not scene.told(CONFIRMED):
                await scene.clock.drive(scene.clock.sleep(1.0))
                await asyncio.sleep(0.1)
    heeding.cancel()
    await asyncio.gather(heeding, return_exceptions=True)

    assert scene.gateway.held[BTC] == 0
    assert {one.reason for one in scene.executor.closed} == {ExitReason.EMERGENCY}
    assert [one.evaluator for one in scene.record.standing.values()] == [Evaluator.MANUAL]
    assert len(scene.told(CONFIRMED)) == 1


async def test_an_exit_that_fails_is_asked_for_until_it_is_done(scene):
    """A venue that is down during the flattening is asked again and again; confirmation waits for it."""
    await scene.enters()
    scene.gateway.faults = ["down"] * 6
    scene.latch.stop(by_hand(FLATTEN))
    await scene.looks(2)
    assert not scene.told(CONFIRMED)

    running = asyncio.ensure_future(scene.executor.run())
    await scene.looks(60)
    await scene.clock.drive(scene.executor.stop())
    running.cancel()

    assert scene.gateway.held[BTC] == 0
    assert len(scene.told(CONFIRMED)) == 1


async def test_an_order_that_rests_is_taken_away(scene):
    """Wanted no longer: an entry that rests is cancelled as soon as entries are barred."""
    await scene.enters()
    trade = next(scene.executor.book.active())
    wishes = scene.executor._wishes
    wishes.begin(trade.plan.trade_id)
    assert wishes.of(trade) == Wish(may_enter=True, is_late=True)

    scene.latch.stop(by_hand())
    await scene.looks()

    assert wishes.of(trade) == Wish(may_enter=False, is_late=True)


@pytest.mark.parametrize(
    ("change", "evaluator"),
    [
        pytest.param({"equity": Decimal(7_900)}, Evaluator.DRAWDOWN, id="drawdown"),
        pytest.param({"health": HealthLevel.EMERGENCY}, Evaluator.SYSTEM_HEALTH, id="health"),
        pytest.param({"errors": ErrorCounts(in_row=6)}, Evaluator.EXECUTION_ERRORS, id="errors"),
        pytest.param({"due_ms": T0 - 1}, Evaluator.DATA_FEED, id="feed"),
    ],
)
async def test_each_evaluator_latches(scene, change, evaluator):
    """Each of the four inputs, once bad for long enough, latches by itself and leaves a file and an entry."""
    scene.mark(Decimal(10_000))
    for name, value in change.items():
        setattr(scene, name, value)
    await scene.looks()
    scene.clock.seconds += 301
    await scene.looks()

    (stop,) = scene.latch.read().standing
    assert stop.evaluator is evaluator
    assert scene.told(STOPPED)[0].detail["evaluator"] == evaluator.value
    assert scene.standing.trading_state is TradingState.HALTED


async def test_drawdown_closes_losers_and_reduces_the_rest(scene):
    """The one that loses goes, and so does enough of the others to halve them; the choice is journaled first."""
    scene.mark(Decimal(10_000))
    await scene.enters()
    await scene.enters(ETH)
    scene.gateway.marks[BTC] = Decimal(49_900)
    scene.gateway.marks[ETH] = Decimal(50_100)
    scene.equity = Decimal(7_000)
    scene.clock.seconds += 6

    await scene.looks(8)

    assert scene.gateway.held == {BTC: 0, ETH: 0}
    assert len(scene.told(CHOSEN)[0].detail["trades"].split()) == 2
    assert scene.told(CHOSEN)[0].detail["why"] == "close losers; reduce the rest"


async def test_a_loser_is_known_by_its_last_price_where_quotes_do_not_come_in_time(scene):
    """A venue that is slow in a crash keeps no loser open: the stream's last price stands in."""
    scene.mark(Decimal(10_000))
    await scene.enters()
    await scene.enters(ETH)
    scene.quotes_fail = True
    scene.traded.update({BTC: Decimal(49_900), ETH: Decimal(49_900)})
    scene.equity = Decimal(7_000)
    scene.clock.seconds += 6

    await scene.looks(8)

    assert scene.told(CHOSEN)[0].detail["why"] == "close losers"
    assert scene.gateway.held == {BTC: 0, ETH: 0}


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        pytest.param({"equity": None}, Evaluator.DRAWDOWN, id="no-equity"),
        pytest.param({"health": None}, Evaluator.SYSTEM_HEALTH, id="no-health"),
        pytest.param({"errors": None}, Evaluator.EXECUTION_ERRORS, id="no-errors"),
        pytest.param({"due_ms": None}, Evaluator.DATA_FEED, id="no-feed"),
    ],
)
async def test_a_missing_input_holds_entries_and_closes_nothing(scene, change, missing):
    """Fail closed: who cannot see lets nothing in, until the input is back; nothing is latched or closed for it."""
    await scene.enters()
    before = {name: getattr(scene, name) for name in change}
    for name, value in change.items():
        setattr(scene, name, value)
    scene.clock.seconds += 61
    await scene.looks()

    assert scene.watch.withheld == missing.value
    assert not await scene.enters(ETH)
    assert scene.executor.door.denied["RISK_INPUT_MISSING"] == 1
    assert scene.gateway.held[BTC] > 0
    assert not scene.latch.read().stops

    for name, value in before.items():
        setattr(scene, name, value)
    scene.clock.seconds += 6
    await scene.looks()
    assert await scene.enters(ETH)


async def test_a_reset_lets_go_on_and_measures_from_there(scene):
    """A person resets with a reason: files go, the journal says who and from which equity, entries pass again."""
    scene.mark(Decimal(10_000))
    scene.equity = Decimal(7_900)
    scene.clock.seconds += 31
    await scene.looks()
    (stop,) = scene.latch.read().standing
    scene.latch.reset(ResetOrder(key="2-resume", stops=(stop.key,), reason="looked", at=AT, by="ada"))

    await scene.looks(6)

    assert scene.standing.trading_state is TradingState.ACTIVE
    assert scene.watch.reason == ""
    assert scene.told(RESET)[0].detail["equity"] == "7900"
    assert scene.latch.read() == Latch(scene.home).read()
    assert scene.latch.read().stops == scene.latch.read().resets == ()
    assert len(scene.told(STOPPED)) == 1
    assert scene.kept[-1].peak_equity == Decimal(7_900)
    assert await scene.enters()


@pytest.mark.parametrize("days", [1, 4, 7])
async def test_what_was_reset_is_not_measured_again_at_midnight(scene, days):
    """Nor on Monday, nor in the first looks of a later day, which no candle has marked yet."""
    scene.mark(Decimal(10_000))
    scene.equity = Decimal(8_400)
    scene.clock.seconds += 31
    await scene.looks()
    (stop,) = scene.latch.read().standing
    scene.latch.reset(ResetOrder(key="2-resume", stops=(stop.key,), reason="looked", at=AT, by="ada"))
    await scene.looks(6)

    scene.due_ms = None
    day_ms = 86_400_000
    scene.clock.seconds += (day_ms - scene.clock.now_ms() % day_ms + (days - 1) * day_ms) / 1000 - 0.5
    await scene.looks(8)

    assert [one.detail["evaluator"] for one in scene.told(STOPPED)] == [Evaluator.DRAWDOWN.value]
    assert scene.record.standing == {}


async def test_a_reset_names_the_stops_that_it_ends(scene):
    """A stop that came while a person looked at another stands on."""
    scene.latch.stop(by_hand())
    scene.latch.stop(by_hand(key="2-stop"))
    scene.latch.reset(ResetOrder(key="3-resume", stops=("1-stop",), reason="looked", at=AT))

    await scene.looks(6)

    assert list(scene.record.standing) == ["2-stop"]
    assert scene.standing.trading_state is TradingState.HALTED


async def test_a_latch_survives_a_restart_by_file_and_by_journal(tmp_path):
    """Either is enough: a home whose folder was emptied, and a journal that was not written."""
    for by_file in (True, False):
        scene = Scene(tmp_path / str(by_file))
        if by_file:
            scene.latch.stop(by_hand())
        else:
            scene.record.standing["1-stop"] = by_hand()
        scene.watch = scene.watching()

        scene.watch.begin()

        assert scene.standing.trading_state is TradingState.HALTED
        assert [one.key for one in Latch(scene.home).read().stops] == ["1-stop"]
        assert not scene.executor._may_leave(BTC, "any")


async def test_what_a_killed_worker_had_chosen_is_closed_and_no_more(scene):
    """After a restart the trades of the journal's choice are left; the halving is not done a second time."""
    await scene.enters()
    await scene.enters(ETH)
    trades = {one.symbol: one.plan.trade_id for one in scene.executor.book.active()}
    order = StopOrder(key="1-drawdown", evaluator=Evaluator.DRAWDOWN, reason="x", actions=ACTIONS[Evaluator.DRAWDOWN])
    scene.record.standing[order.key] = order
    scene.record.chosen[order.key] = (trades[BTC],)
    scene.watch = scene.watching()
    scene.watch.begin()

    await scene.looks(10)

    assert scene.gateway.held[BTC] == 0
    assert scene.gateway.held[ETH] > 0
    assert len(scene.told(CONFIRMED)) == 1


async def test_a_home_that_cannot_be_written_stops_all_the_same(scene):
    """Memory and journal hold the stop until the file can be written."""
    (scene.home / "emergency").parent.mkdir(exist_ok=True)
    (scene.home / "emergency").write_text("not a folder")
    scene.health = HealthLevel.EMERGENCY

    await scene.looks()
    assert scene.standing.trading_state is TradingState.HALTED
    assert scene.told(STOPPED)

    (scene.home / "emergency").unlink()
    await scene.looks()
    assert [one.evaluator for one in Latch(scene.home).read().stops] == [Evaluator.SYSTEM_HEALTH]


async def test_a_folder_that_cannot_be_read_enters_nothing(scene):
    """Whether anything is latched is not known: entries are held, and pass once it is."""
    (scene.home / "emergency").write_text("not a folder")
    await scene.looks()
    assert "cannot be read" in scene.watch.reason
    assert not await scene.enters()

    (scene.home / "emergency").unlink()
    await scene.looks()
    assert await scene.enters()


async def test_a_folder_that_is_read_again_halts_no_more_while_an_input_is_missing(scene):
    """What was not readable is no reason once it is; the missing input holds entries by itself, and says so."""
    (scene.home / "emergency").write_text("not a folder")
    await scene.looks()
    assert scene.standing.trading_state is TradingState.HALTED
    (scene.home / "emergency").unlink()
    scene.health = None
    await scene.looks()

    assert scene.standing.trading_state is TradingState.ACTIVE
    assert not scene.standing.objections
    assert scene.watch.withheld == Evaluator.SYSTEM_HEALTH.value
    assert not await scene.enters()
    assert scene.executor.door.denied["RISK_INPUT_MISSING"] == 1


@pytest.mark.parametrize("content", [b"", b"{", b'{"key": 3}', b"\xff\xfe", b'{"key":"other","reason":"x"}'])
def test_a_stop_that_cannot_be_read_is_one_and_such_a_reset_is_none(tmp_path, content):
    """Half a file, another version's or nonsense: the name of a stop suffices, that of a reset does not."""
    latch = Latch(tmp_path)
    latch.stop(by_hand())
    (tmp_path / "emergency" / "stop-9-torn.json").write_bytes(content)
    (tmp_path / "emergency" / "reset-9-torn.json").write_bytes(content)

    found = latch.read()

    assert [one.key for one in found.standing] == ["1-stop", "9-torn"]
    assert found.resets == ()
    assert Action.CANCEL_ENTRIES in found.stops[1].actions


def test_links_and_strange_names_are_not_followed(tmp_path):
    """A link for a stop is a stop nobody can read; other names are nothing."""
    latch = Latch(tmp_path)
    latch.stop(by_hand())
    (tmp_path / "secret").write_text("{}")
    (tmp_path / "emergency" / "stop-2-link.json").symlink_to(tmp_path / "secret")
    (tmp_path / "emergency" / "stop-UPPER.json").write_text("{}")

    assert [one.key for one in latch.read().stops] == ["1-stop", "2-link"]
    with pytest.raises(ValueError, match="A key is made of"):
        latch.stop(by_hand(key="../out"))


def test_keys_sort_by_time_and_are_names_of_files():
    """A moment's digits first, then who asked, in letters that any file system takes."""
    keys = [key_of("2026-11-30T09:00:00.001+00:00", "Stop 12"), key_of("2026-11-30T09:00:00.002+00:00", "a")]

    assert keys == ["20261130090000001-stop-12", "20261130090000002-a"]


def test_the_record_is_the_same_after_a_restart():
    """What was journaled of stops, choices, confirmations and resets gives back what stood."""
    live, again = EmergencyRecord(), EmergencyRecord()
    events = [
        Noted(event_type=STOPPED, detail={"key": "1-a", "evaluator": "DRAWDOWN", "reason": "x", "actions": "ALERT"}),
        Noted(event_type=CHOSEN, detail={"key": "1-a", "trades": "t1 t2"}),
        Noted(event_type=CONFIRMED, detail={"key": "1-a"}),
        Noted(event_type=STOPPED, detail={"key": "2-b", "evaluator": "of another version", "actions": "SING"}),
        Noted(event_type=RESET, detail={"key": "3-r", "stops": "1-a", "equity": "90"}),
        Noted(event_type=STOPPED, detail={"key": "1-a", "evaluator": "DRAWDOWN"}),
    ]
    for event in events:
        live.visit(event, T0)
        again.visit(Noted(event_type=event.event_type, detail=json.loads(json.dumps(dict(event.detail)))), T0)

    assert live == again
    assert list(live.standing) == ["2-b"]
    assert live.standing["2-b"].actions == ACTIONS[Evaluator.MANUAL]
    assert (live.reset_ms, live.reset_equity) == (T0, Decimal(90))
    assert not Book().trades


def qtctl(home, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "inference.cli", *arguments, "--home", str(home)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_commands_without_a_worker_leave_the_latch_and_say_so(tmp_path):
    """Stop is obeyed by the next worker; flatten closes nothing and fails; resume ends both."""
    stopped = qtctl(tmp_path, "stop", "--reason", "drill", "--json")
    flattened = qtctl(tmp_path, "flatten", "--reason", "drill")

    assert stopped.returncode == 0
    assert json.loads(stopped.stdout)["worker"] == "none"
    assert flattened.returncode == 1
    assert "no worker runs" in flattened.stdout
    assert len(Latch(tmp_path).read().standing) == 2

    resumed = qtctl(tmp_path, "resume", "--reason", "over")
    assert resumed.returncode == 0
    assert Latch(tmp_path).read().standing == ()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("stop",), 2, "reason"),
        (("stop", "--reason", "  "), 2, "say why"),
        (("stop", "--reason", "x" * 501), 2, "at most 500"),
        (("resume", "--reason", "x"), 0, "Nothing is latched"),
    ],
)
def test_commands_refuse_what_says_nothing(tmp_path, arguments, status, words):
    """A stop and a reset need a reason that somebody can read."""
    done = qtctl(tmp_path, *arguments)

    assert done.returncode == status
    assert words in done.stdout + done.stderr


def test_a_home_that_cannot_be_written_is_said(tmp_path):
    """Nothing is latched, and the message says what to do."""
    (tmp_path / "emergency").write_text("not a folder")
    done = qtctl(tmp_path, "stop", "--reason", "drill")

    assert done.returncode == 1
    assert "nothing is latched" in done.stderr
