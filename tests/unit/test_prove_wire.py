"""What a replay of a worker's opinions leaves out: those that the worker or the venue could not act on."""

from __future__ import annotations

from inference.decision import decide
from inference.domain.decision import Denied, TradingState
from inference.domain.events import CandlesDecided
from inference.domain.policy import Policy
from infra.prove.wire_worker import kept_out
from tests.worker_values import T0, make_candidate, make_snapshot

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"


def decided(**changes):
    """Return what is decided on two candidates, of which the strategy wants one."""
    snapshot = make_snapshot((make_candidate(BTC), make_candidate(ETH, probability=0.55)), **changes)
    denied = tuple(one for one in decide(snapshot, Policy(), T0) if isinstance(one, Denied))
    return CandlesDecided(now_ms=T0, policy=Policy(), snapshot=snapshot, approved=(), denied=denied)


def test_what_the_strategy_does_not_want_is_replayed():
    """A signal that is too weak is the strategy's word, which a replay has to arrive at itself."""
    event = decided()
    assert [one.symbol for one in event.denied] == [ETH]
    assert kept_out(event) == frozenset()


def test_what_a_worker_that_was_not_ready_denied_is_not_replayed():
    """Until journal and venue agree nothing is entered, whatever the model says."""
    assert kept_out(decided(trading_state=TradingState.REDUCING)) == {BTC, ETH}


def test_what_had_no_quote_is_not_replayed():
    """A venue that did not answer in time is no part of the strategy."""
    assert kept_out(decided(quotes={})) == {BTC, ETH}
