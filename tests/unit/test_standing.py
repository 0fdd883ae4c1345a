"""Objections to trading: the strictest counts, and of several causes the newest is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inference.domain.decision import TradingState
from inference.supervision.standing import Standing

ACTIVE, REDUCING, HALTED = TradingState
said = st.lists(
    st.tuples(st.sampled_from(["halted", "reconcile"]), st.sampled_from([REDUCING, HALTED]), st.sampled_from("abc")),
    max_size=12,
)


def test_a_later_cause_of_a_halt_takes_the_place_of_the_first():
    """A folder that could not be read, then a real stop: the status says the stop, and it is news once."""
    standing = Standing()
    heard = [standing.object("emergency", HALTED, reason) for reason in ("unreadable", "MANUAL", "MANUAL")]

    assert heard == [True, True, False]
    assert standing.reason == "MANUAL"
    assert standing.objections == {"emergency": (HALTED, "MANUAL")}


def test_what_halts_is_not_softened():
    """The same name that only asks for less afterwards changes neither state nor reason."""
    standing = Standing()
    standing.object("halted", HALTED, "a bug")

    assert not standing.object("halted", REDUCING, "a trifle")
    assert not standing.lift("halted")
    assert (standing.trading_state, standing.reason) == (HALTED, "a bug")


def test_what_reduces_is_news_once_whatever_its_words():
    """Another text of the same hold is shown, and journaled by nobody again; a halt that follows it is."""
    standing = Standing()

    assert standing.object("equity", REDUCING, "timed out")
    assert not standing.object("equity", REDUCING, "timed out again")
    assert standing.reason == "timed out again"
    assert standing.object("equity", HALTED, "gone")


@given(said)
def test_the_reason_is_the_newest_of_the_strictest(objections):
    """Whatever is said in which order: the strictest state counts, and its newest cause is told."""
    standing, newest = Standing(), {}
    for name, state, reason in objections:
        standing.object(name, state, reason)
        if newest.get(name, (REDUCING, ""))[0] is REDUCING or state is HALTED:
            if newest.get(name) != (state, reason):
                newest.pop(name, None)
            newest[name] = (state, reason)
    strictest = max((state for state, _ in newest.values()), key=list(TradingState).index, default=ACTIVE)
    texts = [reason for state, reason in newest.values() if state is strictest]

    assert standing.trading_state is strictest
    assert standing.reason == (texts[-1] if texts else "")
