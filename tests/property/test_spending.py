"""Whatever is asked in whatever order, what is spent within a window stays within the venue's limit."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.venue.requests import Urgency
from feature_store.venue.spending import Demand, Limit, Spending, decode, encode

LIMIT = Limit(100, window_s=10, margin_s=1, bulk=0.6, usual=0.8, orders=((5, 2.0), (12, 10.0)))
DEMANDS = st.builds(
    Demand,
    cost=st.floats(0, 60),
    urgency=st.sampled_from(Urgency),
    orders=st.sampled_from([0, 0, 1, 1, 2]),
    account=st.sampled_from(["one", "other"]),
)
STEPS = st.lists(st.tuples(st.floats(0, 3), DEMANDS), max_size=60)


def run(steps) -> list[tuple[float, Demand]]:
    """Ask step after step, writing down and reading in between as processes do; return what was admitted, and when."""
    now, text, admitted = 0.0, None, []
    for pause, demand in steps:
        now += pause
        spending = decode(text)
        spending.trim(LIMIT, now)
        if spending.wait_s(demand, LIMIT, now) <= 0:
            spending.spend(demand, LIMIT, now)
            admitted.append((now, demand))
        text = encode(spending)
    return admitted


@given(STEPS)
def test_no_window_holds_more_than_the_limit(steps):
    """Weight of the address, and orders of each account, stay within every window, wherever one lays it."""
    admitted = run(steps)
    for begin, _ in admitted:
        inside = [(at, demand) for at, demand in admitted if begin <= at < begin + LIMIT.window_s]
        assert sum(min(demand.cost, LIMIT.cost) for _, demand in inside) <= LIMIT.cost + 1e-6
        for account in ("one", "other"):
            for most, seconds in LIMIT.orders:
                orders = [d.orders for at, d in inside if d.account == account and at < begin + seconds]
                assert sum(orders) <= most


@given(STEPS)
def test_what_can_wait_leaves_room_for_what_cannot(steps):
    """Of the limit, flows and entries never use more than their shares: the rest is for exits alone."""
    admitted = run([(pause, demand) for pause, demand in steps if demand.urgency is not Urgency.URGENT])
    for begin, _ in admitted:
        inside = [demand for at, demand in admitted if begin <= at < begin + LIMIT.window_s]
        bulk = sum(demand.cost for demand in inside if demand.urgency is Urgency.BULK)
        assert sum(demand.cost for demand in inside) <= LIMIT.cost * LIMIT.usual + 1e-6
        assert bulk <= LIMIT.cost * LIMIT.bulk + 1e-6


@given(STEPS, st.floats(0, 20))
def test_an_exit_passes_where_entries_starve(steps, cost):
    """Whatever entries and flows have used up, an exit of the reserved size passes at once."""
    spending, now = Spending(), 0.0
    for pause, demand in steps:
        now += pause
        spending.trim(LIMIT, now)
        if demand.urgency is not Urgency.URGENT and spending.wait_s(demand, LIMIT, now) <= 0:
            spending.spend(demand, LIMIT, now)

    assert spending.wait_s(Demand(cost, Urgency.URGENT, 1, "one"), LIMIT, now) == 0


@given(STEPS, DEMANDS)
def test_who_waits_as_told_is_let_in(steps, demand):
    """The wait that is told is enough where nobody else comes, and never longer than the longest window."""
    now, spending = 0.0, Spending()
    for pause, one in steps:
        now += pause
        spending.trim(LIMIT, now)
        if spending.wait_s(one, LIMIT, now) <= 0:
            spending.spend(one, LIMIT, now)
    wait = spending.wait_s(demand, LIMIT, now)
    later = now + wait + 1e-6
    spending.trim(LIMIT, later)

    # Seconds are sums of floats.
    assert 0 <= wait <= LIMIT.window_s + LIMIT.margin_s + 1e-9
    assert spending.wait_s(demand, LIMIT, later) <= 1e-6


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(250, 500))
def test_many_small_entries_are_merged_and_never_forgotten_early(seed, count):
    """However many requests there are, little is written down, and what is merged counts no shorter than before."""
    limit, chance = Limit(1e9, window_s=5, margin_s=0), random.Random(seed)
    spending, now, alone = Spending(), 0.0, []
    for _ in range(count):
        now, cost = now + chance.uniform(0, 0.02), chance.uniform(0.01, 1)
        spending.trim(limit, now)
        spending.spend(Demand(cost), limit, now)
        alone.append((now, cost))
        still = sum(one for at, one in alone if now - limit.window_s < at <= now)

        assert sum(one for _, one in spending.spent) >= still - 1e-6
    spending.trim(limit, now)
    assert len(spending.spent) <= 102
    spending.trim(limit, now + limit.window_s + 0.101)
    assert spending.spent == []


@given(st.floats(0, 200), st.floats(0, 200))
def test_the_venue_is_believed_where_it_counted_more(ours, told):
    """Others behind the same address show in the venue's count; where it counted less, nothing is taken back."""
    spending = Spending(spent=[(1.0, ours)])
    spending.believe(told, 2.0)

    assert sum(cost for _, cost in spending.spent) == pytest.approx(max(ours, told))


def test_orders_that_others_sent_count_for_the_account():
    """An account that is traded elsewhere too is limited by the venue's counts, each in its own window."""
    spending, now = Spending(orders={"one": [(99.5, 1.0)]}), 100.0
    spending.believe_orders("one", {2.0: 4.0, 10.0: 11.0}, LIMIT, now)

    assert spending.wait_s(Demand(0, Urgency.URGENT, 1, "one"), LIMIT, now) == 0
    assert spending.wait_s(Demand(0, Urgency.URGENT, 2, "one"), LIMIT, now) > 0
    assert spending.wait_s(Demand(0, Urgency.URGENT, 2, "other"), LIMIT, now) == 0
    assert sum(one for _, one in spending.orders["one"]) == 11


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"spent":[["a",1]],"resume_at_ms":0}',
        b'{"spent":[[1,-5]],"resume_at_ms":0}',
        b'{"spent":[[NaN,5]],"resume_at_ms":0}',
        b'{"spent":[[1,Infinity]],"resume_at_ms":0}',
        b'{"spent":[],"resume_at_ms":1e999}',
        b'{"spent":[],"resume_at_ms":0,"orders":[1]}',
        b'{"spent":[[1,2,3]],"resume_at_ms":0}',
        b"\xff\xfe",
    ],
)
def test_what_cannot_be_read_is_as_nothing_spent(text):
    """A file that was damaged, or written by somebody else, holds nobody up and credits nobody."""
    assert decode(text) == Spending()


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), max_size=5),
    st.integers(0, 2**53),
    st.dictionaries(st.text(max_size=8), st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 9)), max_size=3)),
)
def test_what_is_written_is_what_is_read(spent, resume_at_ms, orders):
    """Nothing is lost on the way through the file."""
    spending = Spending(spent, resume_at_ms, orders)

    assert decode(encode(spending)) == spending
