"""However a journal is divided, its tables come out the same, and they say what the book says."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from decimal import Decimal
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference import cli
from inference.domain.events import (
    ExitRequested,
    FillBooked,
    OrderFoundAbsent,
    OrderIntended,
    OrderRefused,
    OrderReported,
    PositionFoundChanged,
    TradeClosed,
    TradePlanned,
)
from inference.domain.order import Fill, OrderIntent, OrderReport, OrderStatus, OrderType, Purpose, Side
from inference.domain.signal import Direction
from inference.domain.trade import ExitReason, TradePlan, TradeResult
from inference.execution.book import Book
from inference.journal.codec import event_of
from inference.storage import schema
from inference.storage.database import open_database
from inference.storage.loading import load
from inference.storage.migrating import upgrade
from inference.storage.projection import Named
from inference.storage.projector import Projector
from inference.storage.repositories import Performance
from tests.storage_support import dump, projected, traded, write_journal
from tests.worker_support import MemoryJournal
from tests.worker_values import T0

NUMBERS = count()
SYMBOL = "BTC/USDT:USDT"
TRADES = ("a", "b", "c")
amounts = st.sampled_from([Decimal("0.1"), Decimal("0.30"), Decimal(1), Decimal(1) / 7])
prices = st.sampled_from([Decimal(100), Decimal("99.95"), Decimal(1000) / 3])
trade_ids = st.sampled_from(TRADES)
purposes = st.sampled_from(list(Purpose))
directions = st.sampled_from([Direction.LONG, Direction.SHORT])


def order_ids(purpose: Purpose, trade_id: str) -> str:
    return f"qt-{trade_id}-{purpose.value[0]}1"


keys = st.builds(order_ids, purposes, trade_ids)


@st.composite
def events(draw):
    """Return an event on one of three trades, whether or not it makes sense there."""
    moment, trade_id, purpose = draw(st.integers(T0, T0 + 3 * 86_400_000)), draw(trade_ids), draw(purposes)
    key, amount, price = order_ids(purpose, trade_id), draw(amounts), draw(prices)
    plan = TradePlan(
        trade_id=trade_id, trace_id=f"trace-{trade_id}", symbol=SYMBOL, direction=draw(directions),
        quantity=amount, reference_price=price, stop_price=price - 1, target_price=price + 1, risk=Decimal(1),
        confidence=0.7, model_version="1", candle_close_ms=moment, planned_at_ms=moment,
    )  # fmt: skip
    result = TradeResult(
        symbol=SYMBOL, direction=plan.direction, reason=draw(st.sampled_from(list(ExitReason))), quantity=amount,
        entry_price=draw(st.none() | prices), exit_price=price, pnl=price - 150, fees=amount, opened_at_ms=moment,
        closed_at_ms=moment, fills_complete=draw(st.booleans()),
    )  # fmt: skip
    intent = OrderIntent(
        client_order_id=key, trade_id=trade_id, trace_id="", symbol=SYMBOL, side=draw(st.sampled_from(list(Side))),
        order_type=draw(st.sampled_from(list(OrderType))), purpose=purpose, quantity=amount, trigger_price=price,
    )  # fmt: skip
    report = OrderReport(
        client_order_id=key, venue_order_id=draw(st.sampled_from("123")), symbol=SYMBOL,
        status=draw(st.sampled_from(list(OrderStatus))), filled=amount, average_price=draw(st.none() | prices),
        event_time_ms=moment, child_order_id=draw(st.none() | st.just("9")),
    )  # fmt: skip
    fill = Fill(
        fill_id=draw(st.sampled_from("xyz")), client_order_id=key, venue_order_id="1", symbol=SYMBOL, side=intent.side,
        quantity=amount, price=price, fee=Decimal("0.01"), is_maker=False, event_time_ms=moment,
    )  # fmt: skip
    return draw(
        st.sampled_from(
            [
                TradePlanned(plan=plan),
                OrderIntended(intent=intent),
                OrderReported(report=report),
                OrderRefused(client_order_id=key, code="-1", message="no"),
                OrderFoundAbsent(client_order_id=key),
                FillBooked(fill=fill, order_type=intent.order_type),
                ExitRequested(trade_id=trade_id, reason=result.reason),
                PositionFoundChanged(trade_id=trade_id, symbol=SYMBOL, open_quantity=amount, price=price),
                TradeClosed(trade_id=trade_id, result=result),
            ]
        )
    )


def journal_of(given_events):
    journal = MemoryJournal()
    for number, event in enumerate(given_events):
        journal.record(event, timestamp_ms=T0 + number)
    return journal.entries


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder for the databases of all examples, with one whose tables are made and empty."""
    folder = tmp_path_factory.mktemp("projection")
    with closing(open_database(None, folder)) as database:
        upgrade(database)
    return folder


def new_home(folder: Path) -> Path:
    """Return a home with empty tables; making them takes longer than most examples."""
    home = folder / str(next(NUMBERS))
    (home / "database").mkdir(parents=True)
    shutil.copy(folder / "database" / "quantum_trader.db", home / "database")
    return home


def tables_of(folder: Path, entries, *, at_once: int = 2000, cut: int | None = None):
    """Return all tables of a journal that was there at once, or up to `cut` first."""
    home = new_home(folder)
    path = home / "journal.jsonl"
    with closing(open_database(None, home)) as database:
        if cut is not None:
            projected(database, write_journal(path, entries[:cut]), at_once=at_once)
        return dump(projected(database, write_journal(path, entries), at_once=at_once))


@settings(max_examples=25)
@given(seed=st.integers(0, 5), cut=st.integers(0, 400), at_once=st.integers(7, 90))
def test_a_prefix_and_the_rest_give_the_whole(folder, seed, cut, at_once):
    """A traded journal, projected up to any entry and then to its end, in batches of any size, gives the same rows."""
    entries = traded(seed)

    assert tables_of(folder, entries, at_once=at_once, cut=cut) == tables_of(folder, entries)


@settings(max_examples=40)
@given(given_events=st.lists(events(), max_size=40), cut=st.integers(0, 40), at_once=st.integers(1, 9))
def test_so_it_does_for_events_that_make_no_sense(folder, given_events, cut, at_once):
    """Plans made again, executions without orders, results that come twice: still the same rows, none refused."""
    entries = journal_of(given_events)

    assert tables_of(folder, entries, at_once=at_once, cut=cut) == tables_of(folder, entries)


@settings(max_examples=40)
@given(given_events=st.lists(events(), max_size=40))
def test_tables_say_what_the_book_says(folder, given_events):
    """Trades that are read back from their rows are those of the book, orders and executions included."""
    # A trade's id is made of one signal's trace: no other plan comes under it.
    planned = [one.plan.trade_id if isinstance(one, TradePlanned) else "" for one in given_events]
    entries = journal_of(
        [one for place, one in enumerate(given_events) if not planned[place] or planned[place] not in planned[:place]]
    )
    home = new_home(folder)
    book = Book.rebuilt(event_of(entry) for entry in entries)
    with closing(open_database(None, home)) as database:
        projected(database, write_journal(home / "journal.jsonl", entries), at_once=3)
        with database.reading() as connection:
            known = load(connection, Named(frozenset(TRADES), frozenset()))
            sums = Performance(connection).sums()

    assert {key: record.trade for key, record in known.trades.items()} == book.trades
    assert (sums.pnl, sums.fees) == (book.realized_pnl, book.fees)


@pytest.mark.parametrize("seed", range(4))
def test_sums_of_days_are_those_of_the_audit(folder, seed, capsys):
    """Profit, fees, funding and number of trades of all days are what `qtctl audit trades` says, to the last digit."""
    home = folder / f"audit-{seed}"
    path = write_journal(home / "journal" / "journal.jsonl", traded(seed))
    with closing(open_database(None, home)) as database:
        projected(database, path, at_once=5)
        with database.reading() as connection:
            sums, days = Performance(connection).sums(), Performance(connection).days()

    assert cli.run(["audit", "trades", "--home", str(home), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(days) > 1
    assert sums.funding != 0
    assert (sums.trades, str(sums.pnl), str(sums.fees), str(sums.funding)) == (
        told["count"],
        told["pnl"],
        told["fees"],
        told["funding"],
    )


def test_following_a_journal_as_it_grows_gives_what_a_rebuild_gives(folder):
    """A follower that looks after every few entries, a torn last line among them, ends where a rebuild does."""
    entries = traded(3)
    home = folder / "follow"
    path = write_journal(home / "journal.jsonl", ())
    with closing(open_database(None, home)) as database:
        projector = Projector(database, path)
        projector.prepare()
        whole = path.with_suffix(".whole")
        write_journal(whole, entries)
        text = whole.read_bytes()
        for end in range(0, len(text) + 4000, 4000):
            path.write_bytes(text[:end])
            projector.catch_up()
        followed = dump(database)
        projector.begin_anew()
        assert all(rows == [] for rows in dump(database).values())
        projector.catch_up()
        rebuilt = dump(database)

    assert followed == rebuilt
    assert [row["seq"] for row in rebuilt["projection"]] == [len(entries)]
    assert set(rebuilt) == set(schema.metadata.tables)
