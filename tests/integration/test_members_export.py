"""Members as trained and as exported."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from feature_store.errors import BadInputError
from flows.training.dataset import Dataset, FrameSet
from flows.training.pack import PARITY, ExportParityError, export_member
from flows.training.pipeline import train_candidate
from inference.models.bundle import load_bundle
from inference.models.ensemble import open_member
from tests.training_support import FINGERPRINT, bundle_inputs, make_frames, silent, small_config, trained_candidate


def _members():
    trained = trained_candidate()
    manifest = load_bundle(trained.path, expected_fingerprint=FINGERPRINT).manifest
    return {
        entry.name: open_member(entry, (trained.path / entry.file.name).read_bytes(), manifest.model_inputs)
        for entry in manifest.members
    }


def test_exports_answer_as_the_trained_members_did():
    """Trees are equal to the bit, nets to 1e-5 of the spread of their predictions."""
    parity = {member.name: member.parity for member in trained_candidate().report.members}

    assert parity["xgboost"] == parity["lightgbm"] == 0
    assert 0 < parity["nhits"] <= PARITY
    assert 0 < parity["patchtst"] <= PARITY


def test_members_say_what_they_consume():
    """Trees read rows, N-HiTS windows of returns and of a few inputs, PatchTST returns alone."""
    inputs = {member.name: member.inputs for member in trained_candidate().report.members}

    assert inputs["xgboost"] == inputs["lightgbm"]
    assert "last_return/mean_32" in inputs["xgboost"]
    assert inputs["nhits"] == ("returns", "hidden_state", "momentum_12")
    assert inputs["patchtst"] == ("returns",)


@pytest.mark.parametrize("name", ["xgboost", "lightgbm", "nhits", "patchtst"])
def test_a_row_scores_the_same_in_any_batch(name):
    """Alone, among others, or in another order: a symbol's score does not depend on its neighbours."""
    member, arrays = _members()[name], bundle_inputs(trained_candidate().frames, 16)
    whole = member.predict(*arrays)
    alone = np.concatenate([member.predict(*(one[row : row + 1] for one in arrays)) for row in range(16)])
    turned = member.predict(*(np.ascontiguousarray(one[::-1]) for one in arrays))[::-1]

    np.testing.assert_allclose(alone, whole, atol=1e-5 * whole.std())
    np.testing.assert_allclose(turned, whole, atol=1e-5 * whole.std())


@pytest.mark.parametrize("name", ["nhits", "patchtst"])
def test_a_net_given_nan_answers_nan(name):
    """The graph itself does not swallow an undefined input: onnxruntime's Clip and MaxPool would."""
    inputs, windows, returns = bundle_inputs(trained_candidate().frames, 3)
    returns[1, 10] = np.nan
    answer = _members()[name].predict(inputs, windows, returns)

    assert np.isnan(answer).tolist() == [False, True, False]


def test_training_twice_gives_the_same_bundle(tmp_path):
    """Equal frames, configuration and seed give equal bytes in every file, nets included."""
    frames, config = make_frames(series=2, candles=1500), small_config()
    digests = [train_candidate(frames, config, tmp_path / name, silent).bundle_digest for name in ("first", "second")]

    assert digests[0] == digests[1]


def test_an_export_that_answers_differently_is_refused(tmp_path):
    """A file that is off by one part in a thousand fails the export, whatever the exporter claims."""
    trained = trained_candidate()
    dataset = Dataset(trained.frames, horizon=12, window=64)
    members = _members()
    rows = dataset.rows(trained.report.windows.fit, _splits(trained)).take(np.arange(64))

    class Lying:
        """A member whose file is another's."""

        name = "lightgbm"

        def predict(self, dataset, rows):
            arrays = dataset.inputs(rows), dataset.windows(rows), dataset.returns(rows)
            return 1.001 * members["lightgbm"].predict(*arrays)

        def export(self, folder):
            entry = load_bundle(trained.path, expected_fingerprint=FINGERPRINT).manifest.members[1]
            (folder / "lightgbm.txt").write_bytes((trained.path / "lightgbm.txt").read_bytes())
            from flows.training.members.base import Export

            return Export(kind="lightgbm", file=entry.file, inputs=entry.inputs, raw_scale=entry.scale)

        def importance(self):
            return {}

    with pytest.raises(ExportParityError, match="differs from the trained lightgbm"):
        export_member(Lying(), dataset, rows, tmp_path)


def _splits(trained):
    from flows.training.splits import plan_splits

    dataset = Dataset(trained.frames, horizon=12, window=64)
    return plan_splits(dataset.start_ms, dataset.end_ms, trained.config, timeframe_ms=300_000)


def _scrambled_after(frames: FrameSet, from_ms: int) -> FrameSet:
    """Return frames whose candles from a moment on are another market's."""
    other = make_frames(series=len(frames.frames), candles=len(frames.frames[0].close), edge=0.0, seed=99)
    mixed = []
    for ours, theirs in zip(frames.frames, other.frames, strict=True):
        late = ours.open_time_ms >= from_ms
        close = np.where(late, theirs.close * ours.close[~late][-1] / theirs.close[~late][-1], ours.close)
        mixed.append(
            dataclasses.replace(
                ours,
                inputs=np.where(late[:, None], theirs.inputs, ours.inputs),
                log_return=np.where(late, theirs.log_return, ours.log_return),
                close=close,
            )
        )
    return dataclasses.replace(frames, frames=tuple(mixed))


def test_nothing_in_the_bundle_has_seen_the_shadow_window(tmp_path):
    """With another market in the locked window every byte of the bundle stays the same."""
    frames, config = make_frames(series=3, candles=2000), small_config(members=("xgboost", "lightgbm"))
    report = train_candidate(frames, config, tmp_path / "a", silent)
    changed = _scrambled_after(frames, report.windows.shadow.start_ms)

    assert train_candidate(changed, config, tmp_path / "b", silent).bundle_digest == report.bundle_digest


def test_members_and_scalers_have_seen_the_fit_window_alone(tmp_path):
    """With another market after the fit window the members' files stay the same; only what is learned later moves."""
    frames, config = make_frames(series=2, candles=1500), small_config()
    report = train_candidate(frames, config, tmp_path / "a", silent)
    other = train_candidate(
        _scrambled_after(frames, report.windows.validation.start_ms), config, tmp_path / "b", silent
    )

    for member in report.members:
        assert (tmp_path / "a" / member.file).read_bytes() == (tmp_path / "b" / member.file).read_bytes()
    assert other.bundle_digest != report.bundle_digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"members": ("xgboost", "oracle")}, "Unknown member 'oracle'", id="unknown-member"),
        pytest.param({"members": ()}, "at least one member", id="no-members"),
        pytest.param({"nhits_inputs": ("astrology",), "members": ("nhits",)}, "astrology", id="unknown-input"),
        pytest.param({"summary_lengths": (128,), "members": ("xgboost",)}, "reach back 64", id="mean-beyond-window"),
    ],
)
def test_a_configuration_that_cannot_be_trained_is_refused(tmp_path, changes, message):
    """What does not exist is named in the error."""
    with pytest.raises(BadInputError, match=message):
        train_candidate(make_frames(series=2, candles=1500), small_config(**changes), tmp_path, silent)
