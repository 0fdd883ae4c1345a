"""The emergency stop at work: latched before it acts, whatever is missing, and through every restart."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal

import pytest

from feature_store.venue.errors import VenueDownError
from inference.domain.decision import TradingState
from inference.domain.health import HealthLevel
from inference.domain.trade import ExitReason
from inference.execution.entering import Wish
from inference.risk.emergency import ACTIONS, FLATTEN, Action, Evaluator
from inference.risk.errors import ErrorCounts
from inference.supervision.emergency_latch import Latch, ResetOrder, StopOrder
from inference.supervision.emergency_record import CHOSEN, CONFIRMED, RESET, STOPPED
from tests.emergency_support import AT, BTC, ETH, Scene, by_hand
from tests.worker_values import T0


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


@pytest.mark.parametrize(
    ("traded", "why"),
    [
        pytest.param((BTC, ETH), "close losers", id="last-prices-stand-in"),
        pytest.param((ETH,), "close losers; no price tells whether it loses", id="one-has-no-price-at-all"),
    ],
)
async def test_a_venue_that_is_slow_in_a_crash_keeps_no_loser_open(scene, traded, why):
    """Where quotes do not come the stream's last price stands in; without one nothing is guessed behind the wall."""
    scene.mark(Decimal(10_000))
    await scene.enters()
    await scene.enters(ETH)
    scene.quotes_fail = True
    scene.traded.update(dict.fromkeys(traded, Decimal(49_900)))
    scene.equity = Decimal(7_000)
    scene.clock.seconds += 6

    await scene.looks(8)

    assert scene.told(CHOSEN)[0].detail["why"] == why
    assert scene.gateway.held == {BTC: 0, ETH: 0}


async def test_a_venue_that_did_not_answer_with_quotes_is_asked_once_more(scene):
    """The second answer tells winners from losers, so that nothing is closed for want of a price."""
    scene.mark(Decimal(10_000))
    await scene.enters()
    await scene.enters(ETH)
    scene.gateway.marks.update({BTC: Decimal(49_900), ETH: Decimal(50_100)})
    answer, asked = scene.watch._parts.quotes, []

    async def answers_late():
        asked.append(len(asked))
        if len(asked) == 1:
            raise VenueDownError("no answer")
        return await answer()

    scene.watch._parts = replace(scene.watch._parts, quotes=answers_late)
    scene.latch.stop(by_hand(actions=(Action.CLOSE_LOSERS,)))

    await scene.looks(8)

    assert asked == [0, 1]
    assert scene.told(CHOSEN)[0].detail["why"] == "close losers"
    assert scene.gateway.held[BTC] == 0
    assert scene.gateway.held[ETH] != 0


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
