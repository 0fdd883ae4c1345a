"""What a bundle carries for the worker beside its members: learned in every training, absent with a reason."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from flows.training.dataset import Dataset
from flows.training.live_readings import learn_readings
from flows.training.splits import plan_splits
from inference.models import manifest as manifests
from inference.models.bundle import read_manifest
from inference.models.card import model_card
from inference.models.comparison import changes, flattened
from inference.models.manifest import FileEntry, MemberEntry
from tests.training_support import make_candle_frames, make_frames, small_config
from tests.worker_bundle import make_bundle


def _learned(frames, **changed):
    config = small_config(**changed)
    dataset = Dataset(frames, horizon=config.horizon, window=config.window)
    splits = plan_splits(dataset.start_ms, dataset.end_ms, config, timeframe_ms=frames.timeframe_ms)
    rows = (dataset.learned_rows(splits), dataset.rows(splits.calibration, splits))
    file = FileEntry(name="a.ubj", sha256="a" * 64, size=1)
    reads = (frames.input_names[0], f"{frames.input_names[1]}/mean_8", "returns")
    member = MemberEntry(name="a", kind="xgboost", file=file, weight=1.0, scale=1.0, inputs=reads)
    return learn_readings(dataset, splits.fit, rows, (member,), config)


@pytest.fixture(scope="module")
def learned():
    """Return what a training on four series of real inputs learns."""
    return _learned(make_candle_frames(series=4, candles=3200))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Return the manifest of a small bundle, which has neither."""
    return read_manifest(make_bundle(tmp_path_factory.mktemp("one") / "bundle"))


def test_training_learns_both_and_the_same_each_time(learned):
    """Regimes and ranges are there, of the inputs that members read alone, and a second run says the same."""
    again = _learned(make_candle_frames(series=4, candles=3200))

    assert learned.regime_model is not None
    assert len(learned.regime_model.scales) == 4
    assert learned.trained_inputs is not None
    assert len(learned.trained_inputs.names) == 2
    assert set(learned.metrics) == {"regime_model/doubted", "inputs/later"}
    assert learned.notes == ()
    assert (again.regime_model, again.trained_inputs) == (learned.regime_model, learned.trained_inputs)


def test_what_cannot_be_learned_is_absent_with_a_reason():
    """Frames without the inputs that regimes need, and too few rows for ranges, end no training: it says so."""
    found = _learned(make_frames(series=2, candles=1500))

    assert found.regime_model is None
    assert found.trained_inputs is None
    assert found.metrics == {}
    assert [note.partition(":")[0] for note in found.notes] == ["No model of regimes", "No ranges of inputs"]


def test_a_manifest_holds_both_to_the_byte(learned, manifest):
    """What was learned comes back from a manifest as it was, and one of before it has neither."""
    full = replace(manifest, regime_model=learned.regime_model, trained_inputs=learned.trained_inputs)

    content = manifests.encode(full)

    assert manifests.decode(content) == full
    assert manifests.encode(manifests.decode(content)) == content
    older = {
        name: value
        for name, value in msgspec.json.decode(manifests.encode(manifest)).items()
        if name not in ("regime_model", "trained_inputs")
    }
    assert manifests.decode(msgspec.json.encode(older)) == manifest


def test_a_manifest_of_other_inputs_is_refused(learned, manifest):
    """A model of regimes, or ranges, over inputs that the bundle does not read is no manifest."""
    few = tuple(name for name in manifest.model_inputs if name != "adx")
    members = tuple(replace(one, inputs=few) for one in manifest.members)
    other = replace(learned.trained_inputs, names=("nowhere", *learned.trained_inputs.names[1:]))

    with pytest.raises(ValueError, match="adx"):
        replace(manifest, model_inputs=few, members=members, regime_model=learned.regime_model)
    with pytest.raises(ValueError, match="nowhere"):
        replace(manifest, trained_inputs=other)


def test_card_and_comparison_tell_of_both(learned, manifest):
    """The model card says what was learned and what was not, and a comparison files each under its section."""
    full = replace(manifest, regime_model=learned.regime_model, trained_inputs=learned.trained_inputs)

    card, bare = model_card(full, "a" * 64), model_card(manifest, "a" * 64)
    found = changes(flattened(manifest), flattened(full))

    assert "6 hidden states" in card
    assert "Ranges of the 2 inputs" in card
    assert "Nothing was learned to tell regimes" in bare
    sections = {one.field.partition(".")[0]: one.section for one in found}
    assert sections == {"regime_model": "thresholds", "trained_inputs": "inputs"}
