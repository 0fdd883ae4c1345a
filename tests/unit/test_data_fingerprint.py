"""What a bundle says of its data: equal for equal data, and another for any difference that was learned from."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest

from flows.training.data_fingerprint import data_fingerprint
from flows.training.dataset import FrameSet, LearnedLabels
from inference.models import manifest as manifests
from inference.models.bundle import read_manifest
from inference.models.manifest import TimeWindow, TrainingWindows
from tests.training_support import FIVE_MINUTES_MS, START_MS, make_frames, small_config, trained_candidate

FRAMES = make_frames(series=2, candles=400)
SEEN = 300


def _window(start: int, end: int) -> TimeWindow:
    return TimeWindow(start_ms=START_MS + start * FIVE_MINUTES_MS, end_ms=START_MS + end * FIVE_MINUTES_MS)


WINDOWS = TrainingWindows(
    fit=_window(64, 200), validation=_window(212, 250), calibration=_window(262, SEEN), shadow=_window(312, 400)
)


def _changed(field: str, place: int, value: float) -> FrameSet:
    first, *rest = FRAMES.frames
    values = getattr(first, field).copy()
    values.reshape(len(values), -1)[place, 0] = value
    return dataclasses.replace(FRAMES, frames=(dataclasses.replace(first, **{field: values}), *rest))


def test_equal_data_have_equal_fingerprints():
    """Made twice, from arrays in other memory and with other bits for NaN, the fingerprint is the same."""
    ours = data_fingerprint(FRAMES, WINDOWS, small_config())
    copies = tuple(
        dataclasses.replace(one, inputs=np.asfortranarray(np.where(np.isnan(one.inputs), -np.nan, one.inputs)))
        for one in FRAMES.frames
    )

    assert data_fingerprint(dataclasses.replace(FRAMES, frames=copies), WINDOWS, small_config()) == ours
    assert ours.candles == 2 * SEEN
    assert set(ours.series) == set(FRAMES.symbols)


@pytest.mark.parametrize("field", ["close", "log_return", "inputs"])
@pytest.mark.parametrize("place", [100, SEEN - 1])
def test_any_changed_number_that_was_seen_shows(field, place):
    """One number of one candle changes the digest of its series, and of the whole, and of no other series."""
    before = data_fingerprint(FRAMES, WINDOWS, small_config())
    after = data_fingerprint(_changed(field, place, 0.123), WINDOWS, small_config())
    first, second = FRAMES.symbols

    assert after.digest != before.digest
    assert after.series[first] != before.series[first]
    assert after.series[second] == before.series[second]


@pytest.mark.parametrize("field", ["close", "log_return", "inputs"])
def test_what_nobody_saw_does_not_matter(field):
    """Candles from the end of the calibration window on are not part of it."""
    after = data_fingerprint(_changed(field, SEEN, 0.123), WINDOWS, small_config())

    assert after == data_fingerprint(FRAMES, WINDOWS, small_config())


def test_moment_universe_windows_and_labels_are_part_of_it():
    """The same candles learned as of another moment, of another universe, cut or labelled otherwise are other data."""
    first, *rest = FRAMES.frames
    ends = first.open_time_ms + 13 * FIVE_MINUTES_MS
    labels = LearnedLabels(np.zeros(400), ends, ends)
    labelled = dataclasses.replace(FRAMES, frames=(dataclasses.replace(first, learned=labels), *rest))
    moved = msgspec.structs.replace(WINDOWS, fit=_window(65, 200))
    found = {
        data_fingerprint(FRAMES, WINDOWS, small_config()).digest,
        data_fingerprint(FRAMES, WINDOWS, small_config(as_of="2025-03-01T00:00:00+00:00")).digest,
        data_fingerprint(FRAMES, WINDOWS, small_config(universe="u" * 64)).digest,
        data_fingerprint(FRAMES, moved, small_config()).digest,
        data_fingerprint(labelled, WINDOWS, small_config()).digest,
    }

    assert len(found) == 5


def test_labels_that_end_where_nobody_looked_do_not_matter():
    """A learned label whose outcome lies beyond what was seen is left out, as training leaves it out."""
    first, *rest = FRAMES.frames
    ends = first.open_time_ms + 13 * FIVE_MINUTES_MS
    found = []
    for late in (0.0, 9.0):
        values = np.where(ends > WINDOWS.seen_until_ms, late, 0.5)
        learned = LearnedLabels(values, ends, ends)
        frames = dataclasses.replace(FRAMES, frames=(dataclasses.replace(first, learned=learned), *rest))
        found.append(data_fingerprint(frames, WINDOWS, small_config()))

    assert found[0] == found[1]


def test_a_bundle_carries_it_and_cannot_contradict_it():
    """Training writes it; a manifest whose windows or series were changed afterwards is refused."""
    manifest = read_manifest(trained_candidate().path)
    spoilt = msgspec.to_builtins(manifest)
    spoilt["data_fingerprint"]["candles"] += 1

    assert manifest.data_fingerprint is not None
    assert set(manifest.data_fingerprint.series) == set(manifest.symbols)
    with pytest.raises(msgspec.ValidationError, match="data fingerprint does not fit"):
        manifests.decode(msgspec.json.encode(spoilt))
