"""The worker makes each recorded candle's decisions again, and its committee hears of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import pytest
from msgspec import Raw, structs

from feature_store.features.definition import fingerprint
from inference.decision import decide
from inference.domain.bias import BiasMode
from inference.domain.events import CandlesDecided
from inference.domain.policy import Policy
from inference.domain.signal import Direction
from inference.feed.batches import CandleBatch
from inference.journal.codec import Entry, entry_of
from inference.journal.writer import JournalWriter
from inference.models.bundle import load_bundle
from inference.supervision.model_watch import ActiveModel
from inference.supervision.reproducing import Reproducer
from tests.worker_bundle import make_bundle
from tests.worker_stage import BTC, ETH, History, candles, process, staged
from tests.worker_values import T0, make_snapshot


@pytest.fixture
def stage(tmp_path):
    """Return a worker that follows two symbols, with the clock and gateway behind it."""
    with staged(tmp_path, History()) as one:
        yield one


def recorded(tmp_path, *, forged: bool = False) -> Entry:
    """Return the entry of one candle; a forged one says that nothing was approved."""
    snapshot, policy = make_snapshot(), Policy()
    decisions = () if forged else decide(snapshot, policy, T0)
    path = tmp_path / f"journal-{forged}.jsonl"
    with JournalWriter.open(path) as journal:
        journal.record(CandlesDecided.of(snapshot, policy, T0, decisions), timestamp_ms=T0)
    return entry_of(path.read_bytes().splitlines()[-1])


async def answered(reproducer: Reproducer, entry: Entry) -> bool | None:
    """Let an entry be looked at to the end."""
    reproducer.look(entry)
    await reproducer._task
    return reproducer.answer


@pytest.mark.parametrize("damage", ["forged", "torn"])
async def test_what_was_recorded_comes_out_again_and_what_was_damaged_does_not(tmp_path, damage):
    """Once one did not come out the same, that stays so, whatever follows; the journal is told once."""
    told: list[str] = []
    reproducer = Reproducer(lambda kind, _: told.append(kind), after_s=0)
    sound = recorded(tmp_path)
    damaged = recorded(tmp_path, forged=True) if damage == "forged" else structs.replace(sound, text=Raw(b"{}"))

    assert reproducer.answer is None
    answers = [await answered(reproducer, one) for one in (sound, sound, damaged, sound, damaged)]

    assert answers == [True, True, False, False, False]
    assert told == ["audit.not_reproduced"]


async def test_a_candle_that_comes_too_soon_is_left_out_and_an_end_waits_for_nobody(tmp_path):
    """One is looked at at a time, and a worker that stops leaves it."""
    reproducer = Reproducer(lambda *_: None, after_s=60)
    reproducer.look(recorded(tmp_path))
    first = reproducer._task
    reproducer.look(recorded(tmp_path, forged=True))

    assert reproducer._task is first
    async with asyncio.timeout(1):
        await reproducer.stop()
    assert first.cancelled()
    assert reproducer.answer is None


async def test_what_is_decided_on_lies_in_the_order_that_the_record_has(stage, monkeypatch):
    """Sums of decimals depend on their order to the last digit: a book's own order is that of its trades."""
    worker, _, _ = stage
    book = worker.executor.book
    position = SimpleNamespace(notional=Decimal(1), direction=Direction.LONG)
    monkeypatch.setattr(book, "positions", lambda: dict.fromkeys((ETH, BTC), position))
    monkeypatch.setattr(book, "in_flight", lambda: dict.fromkeys((ETH, BTC), Decimal(1)))
    monkeypatch.setattr(book, "heat", lambda: dict.fromkeys((ETH, BTC), Decimal(1)))
    opinion = SimpleNamespace(candidates=(), incomplete=frozenset())
    snapshot = worker._snapshot(
        CandleBatch(close_time_ms=T0, blocks={}, late=()), opinion, account=make_snapshot().account, quotes={}
    )

    for part in (snapshot.positions, snapshot.in_flight, snapshot.heat):
        assert list(part) == [BTC, ETH]


@pytest.mark.parametrize("answer", [None, True, False])
async def test_a_record_that_is_not_reproduced_lets_nothing_in_where_the_committee_is_enforced(stage, tmp_path, answer):
    """The next candle is vetoed by the auditor; one that came out the same, or the first, is not."""
    worker, clock, _ = stage
    policy = Policy(
        confidence_threshold=0.5, taker_fee=Decimal(0), slippage=Decimal(0), committee_mode=BiasMode.ENFORCE
    )
    worker.plan = replace(worker.plan, policy=policy)
    await clock.drive(worker.executor.start())
    bundle = load_bundle(make_bundle(tmp_path / "bundle"), expected_fingerprint=fingerprint())
    worker.models.offered = ActiveModel(bundle=bundle, version="1", gated=True, source="test")
    worker.reproducer = Reproducer(worker.note, after_s=0)
    worker.reproducer.answer = answer
    block = candles(T0, 400)
    batch = CandleBatch(close_time_ms=T0, blocks={BTC: block, ETH: block}, late=())

    await process(worker, batch, until=lambda: worker.counters.last_signals or worker.standing.reason)
    if worker.reproducer._task is not None:
        await worker.reproducer._task

    outcomes = {outcome for _, outcome in worker.counters.last_signals.values()}
    assert outcomes == ({"COMMITTEE_VETO"} if answer is False else {"APPROVED"})
    assert worker.reproducer.answer is (answer is not False)
