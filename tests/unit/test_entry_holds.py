"""What a venue says that holds entries back, for how long, and where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.execution.entry_holds import ACCOUNT, REDUCE_ONLY, SYMBOL, EntryHolds

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"


@pytest.mark.parametrize(
    ("refusal", "kind", "elsewhere", "seconds"),
    [
        ("AccountError", ACCOUNT, True, 300),
        ("-2015", ACCOUNT, True, 300),
        ("-4400", REDUCE_ONLY, True, 600),
        ("-4048", SYMBOL, False, 60),
        ("-4108", SYMBOL, False, 60),
    ],
)
def test_a_refusal_holds_entries_for_its_time(refusal, kind, elsewhere, seconds):
    """The account everywhere, a symbol only itself; and each ends by itself."""
    holds = EntryHolds()

    assert holds.note(BTC, refusal, 100.0) == kind
    assert holds.blocks(BTC, 100.0 + seconds - 1)
    assert holds.blocks(ETH, 100.0 + seconds - 1) is elsewhere
    assert not holds.blocks(BTC, 100.0 + seconds)
    assert holds.standing(100.0 + seconds) == {}


@pytest.mark.parametrize("refusal", ["-2019", "-4131", "-1111", "NOTHING_HAPPENED", "ABSENT", "", "nonsense"])
def test_a_refusal_of_one_order_holds_nothing(refusal):
    """What was wrong with the order or only happened once leaves the next entry free."""
    holds = EntryHolds()

    assert holds.note(BTC, refusal, 100.0) is None
    assert not holds.blocks(BTC, 100.0)


@given(st.lists(st.tuples(st.sampled_from([BTC, ETH]), st.sampled_from(["-2015", "-4400", "-4108", "-1"]),
                          st.floats(0, 1_000)), max_size=20))  # fmt: skip
def test_a_later_refusal_never_shortens_a_hold(refusals):
    """Whatever comes in whatever order, what was held at a time is still held after one more refusal."""
    holds = EntryHolds()
    for symbol, refusal, now in refusals:
        held = [one for one in (BTC, ETH) if holds.blocks(one, now)]
        holds.note(symbol, refusal, now)
        assert all(holds.blocks(one, now) for one in held)
