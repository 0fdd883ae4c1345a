from __future__ import annotations

from inference.decision import decide
from inference.domain.events import CandlesDecided
from inference.domain.policy import Policy
from inference.domain.signal import Direction
from inference.journal.codec import GENESIS, chained, entry_of, event_data, event_of, line_of
from inference.journal.replay import replay_decisions
from tests.property.test_decision_invariants import NOW
from tests.worker_values import make_candidate, make_snapshot

# (310.001 to the stop + 0.0007 of both prices in costs) * 0.039 = 14.8124 at risk.
GOLDEN = (
    b'{"approved":[{"direction":"LONG","quantity":"0.039","reference_price":"50015.0010","risk":"14.81239502730",'
    b'"signal":'
)


def decided():
    snapshot = make_snapshot(
        (
            make_candidate("BTC/USDT:USDT"),
            make_candidate("ETH/USDT:USDT", direction=Direction.SHORT, expected_return=-0.0001),
        ),
        incomplete={"XRP/USDT:USDT": "warm-up: 12 of 400 candles"},
    )
    policy = Policy()
    return CandlesDecided.of(snapshot, policy, NOW, decide(snapshot, policy, NOW))


def test_one_decision_byte_for_byte():
    """The decision for one fixed snapshot is this text and no other, on any day and any machine."""
    event = decided()

    assert event_data(event).startswith(GOLDEN)
    assert [(one.symbol, one.code.value, dict(one.context)) for one in event.denied] == [
        (
            "ETH/USDT:USDT",
            "EDGE_BELOW_COSTS",
            {
                "direction": "SHORT",
                "expected_return": "-0.0001",
                "costs": "0.0016",
                "net_edge": "-0.0015",
            },
        ),
        ("XRP/USDT:USDT", "FEATURES_INCOMPLETE", {"found": "warm-up: 12 of 400 candles"}),
    ]


def test_a_recorded_decision_is_made_again_bit_for_bit():
    """Snapshot, policy and answers survive the journal's text unchanged, and replay gives the same bytes."""
    event = decided()
    entry = entry_of(line_of(chained(event, seq=1, timestamp_ms=NOW, trace_id="t", previous=GENESIS)))

    assert event_of(entry) == event
    assert replay_decisions([entry]) == (1, [])


def test_a_decision_that_was_not_made_so_is_reported():
    """Replay names the entry whose recorded answers today's code does not give."""
    event = decided()
    forged = CandlesDecided.of(event.snapshot, event.policy, NOW, event.denied)
    count, (deviation,) = replay_decisions([chained(forged, seq=7, timestamp_ms=NOW, trace_id="t", previous=GENESIS)])

    assert (count, deviation.seq) == (1, 7)
