"""What a champion said live is read from the journal, and takes the place of what it would have said."""

from __future__ import annotations

import numpy as np
import pytest

from flows.live_predictions import LivePredictions, live_predictions
from flows.training.dataset import Dataset, Rows
from inference.domain.events import CandlesDecided, Noted
from inference.domain.policy import Policy
from inference.domain.signal import Direction
from inference.journal.codec import GENESIS, chained, line_of
from tests.training_support import FIVE_MINUTES_MS, make_frames
from tests.worker_values import make_candidate, make_snapshot

VERSION, DIGEST = "3", "a" * 64


def _journal(path, *candidates, noted=()):
    decided = CandlesDecided.of(make_snapshot(candidates), Policy(), 1_000, ())
    previous, lines = GENESIS, []
    for seq, event in enumerate((Noted(event_type="model.loaded", detail={"version": "3"}), decided, *noted)):
        entry = chained(event, seq=seq, timestamp_ms=1_000, trace_id="t", previous=previous)
        previous = entry.digest
        lines.append(line_of(entry))
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    ("direction", "probability", "rising"),
    [(Direction.LONG, 0.7, 0.7), (Direction.SHORT, 0.7, 0.3), (Direction.FLAT, 0.0, 0.5)],
)
def test_what_was_said_is_read(tmp_path, direction, probability, rising):
    """Of the champion's own signals the expected return and the probability of a rise are known, by candle."""
    said = {"model_version": f"{VERSION}:{DIGEST[:12]}", "expected_return": 0.002, "feature_time_ms": 600_000}
    mine = make_candidate("A/USDT:USDT", direction=direction, probability=probability, **said)
    other = make_candidate("B/USDT:USDT", **(said | {"model_version": "2:bbbbbbbbbbbb"}))
    _journal(tmp_path / "journal.jsonl", mine, other)

    found = live_predictions(tmp_path / "journal.jsonl", VERSION, DIGEST).said

    assert list(found) == [("A/USDT:USDT", 600_000)]
    assert found["A/USDT:USDT", 600_000] == pytest.approx((0.002, rising))


def _found(event: str, model: str = f"{VERSION}:{DIGEST[:12]}", *, due_ms: int = 2_000) -> Noted:
    figures = {"measure": "brier", "outcomes": "70", "right": "0.48", "brier": "0.29", "base_brier": "0.25"}
    if event == "model.opinions_matured":
        figures |= {"said_ms": "1000", "due_ms": str(due_ms), "stated": "0.5", "rose": "0.5"}
    return Noted(event_type=event, detail={"model_version": model, **figures, "evidence": "131.0", "limit": "100"})


def _started(venue: str) -> Noted:
    return Noted(event_type="health.started", detail={"venue": venue, "mode": venue})


@pytest.mark.parametrize(
    ("noted", "poor", "recovered"),
    [
        pytest.param([_found("model.opinions_matured")], False, False, id="watched"),
        pytest.param([_found("model.quality_found_poor")], True, False, id="found-poor"),
        pytest.param(
            [_found("model.quality_found_poor"), _found("model.opinions_matured"), _found("model.quality_recovered")],
            False, True, id="recovered",
        ),
        pytest.param(
            [_found("model.quality_found_poor"), _found("model.quality_recovered", "2:bbbbbbbbbbbb")],
            True, False, id="another-has-recovered",
        ),
        pytest.param(
            [_started("sandbox"), _found("model.quality_found_poor"), _started("sandbox"),
             _found("model.opinions_matured")],
            True, False, id="restarted",
        ),
        pytest.param(
            [_started("sandbox"), _found("model.quality_found_poor"), _started("live"),
             _found("model.opinions_matured")],
            False, False, id="found-poor-elsewhere",
        ),
        pytest.param(
            [_found("model.opinions_matured", due_ms=9_000), _found("model.quality_found_poor"),
             _found("model.opinions_matured", due_ms=3_000)],
            False, False, id="time-set-back",
        ),
    ],
)  # fmt: skip
def test_what_a_worker_found_of_live_opinions_is_read(tmp_path, noted, poor, recovered):
    """The newest finding on the champion counts, whatever became of other models."""
    _journal(tmp_path / "journal.jsonl", make_candidate(), noted=noted)

    found = live_predictions(tmp_path / "journal.jsonl", VERSION, DIGEST).quality

    assert (found.poor, found.recovered) == (poor, recovered)
    assert not poor or (found.outcomes, found.brier, found.evidence) == (70, 0.29, 131.0)


def test_without_a_worker_nothing_was_watched(tmp_path):
    """What no worker matured, and what it found of another model, is no word on the champion."""
    _journal(tmp_path / "journal.jsonl", make_candidate(), noted=[_found("model.quality_found_poor", "2:bbbbbbbbbbbb")])

    assert live_predictions(tmp_path / "journal.jsonl", VERSION, DIGEST).quality is None


def test_no_journal_is_nothing_said(tmp_path):
    """Where no worker ran, everything is replayed."""
    assert live_predictions(tmp_path / "none.jsonl", VERSION, DIGEST).said == {}


def test_live_takes_the_place_of_replayed():
    """Rows that a worker decided on hold what it said; all others what the bundle says."""
    frames = make_frames(series=2, candles=200)
    dataset = Dataset(frames, horizon=12, window=16)
    places = np.array([80, 81, 82])
    rows = Rows(places, np.zeros(3, np.int64), dataset.open_time_ms[places], dataset.label[places])
    close_ms = int(rows.open_time_ms[1]) + FIVE_MINUTES_MS
    live = LivePredictions({(dataset.symbols[0], close_ms): (0.5, 0.9)})

    expected, up, count = live.over(dataset, rows, np.zeros(3), np.full(3, 0.5))

    assert count == 1
    assert expected.tolist() == [0.0, 0.5, 0.0]
    assert up.tolist() == [0.5, 0.9, 0.5]
