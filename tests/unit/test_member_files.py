"""Members as files: frames and members survive the way through bytes, and a bundle of ready members is the same one."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from feature_store.errors import BadInputError
from flows.retraining.keeping import KeptMembers, taken_over
from flows.trainers import fit_one
from flows.training.config import TreeConfig
from flows.training.dataset import Dataset, FrameSet, LearnedLabels, TrainingFrame
from flows.training.fitting import StoredMember, decode_member, encode_member, fit_member, why_not_kept
from flows.training.frame_file import decode_frames, encode_frames
from flows.training.pipeline import rows_to_fit, train_candidate
from flows.training.splits import plan_splits
from inference.models.bundle import load_bundle
from inference.models.manifest import TimeWindow
from tests.training_support import make_frames, silent, small_config

TREES = ("xgboost", "lightgbm")


@pytest.fixture(scope="module")
def fitted():
    frames, config = make_frames(series=3, candles=1500, edge=1.0), small_config(members=TREES)
    return frames, config, {name: encode_member(fit_member(name, frames, config, silent)) for name in TREES}


def arrays(frames: FrameSet):
    for frame in frames.frames:
        learned = frame.learned
        yield from (frame.open_time_ms, frame.inputs, frame.log_return, frame.close, frame.eligible, frame.late)
        yield from () if learned is None else (learned.value, learned.end_ms, learned.latest_end_ms)


def test_how_long_a_member_took_is_told_beside_its_file(fitted):
    """The file is the same each time, and the time, which is not, is no part of it."""
    frames, config, _ = fitted
    first, second = (fit_one.fn("linear", frames, config) for _ in range(2))

    assert first.content == second.content
    assert decode_member(first.content).name == "linear"
    assert min(first.seconds, second.seconds) > 0


@given(st.integers(0, 40), st.booleans(), st.booleans(), st.booleans())
def test_frames_survive_bytes(candles, has_marks, has_late, has_learned):
    """Every array comes back equal to the bit, absent ones absent, NaN and infinite values among them."""
    rng = np.random.default_rng(candles)
    inputs = rng.choice([1.5, np.nan, np.inf, -np.inf], (candles, 2)).astype(np.float32)
    times, values = np.arange(candles, dtype=np.int64), rng.normal(size=candles)
    frame = TrainingFrame(
        "BTC/USDT:USDT", times, inputs, values, values,
        values > 0 if has_marks else None, values < 0 if has_late else None,
        LearnedLabels(values, times, times) if has_learned else None,
    )  # fmt: skip
    before = FrameSet((frame, frame), ("rsi", "mfi"), "f" * 64, 300_000)
    content = encode_frames(before)
    after = decode_frames(content)

    assert (after.symbols, after.input_names, after.feature_fingerprint, after.timeframe_ms) == (
        before.symbols, before.input_names, before.feature_fingerprint, before.timeframe_ms,
    )  # fmt: skip
    for one, other in zip(arrays(before), arrays(after), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
    assert encode_frames(after) == content


def test_a_bundle_of_ready_members_is_the_same_bundle(fitted, tmp_path):
    """Fitted elsewhere and sent back as bytes, members make the very bundle that one process makes alone."""
    frames, config, members = fitted
    ready = {name: StoredMember(decode_member(content)) for name, content in members.items()}
    alone = train_candidate(frames, config, tmp_path / "alone", silent)
    together = train_candidate(frames, config, tmp_path / "together", silent, ready=ready)

    assert together.bundle_digest == alone.bundle_digest
    assert together.kept_members == {}
    assert [one.parity for one in together.members] == [0.0, 0.0]


def test_a_member_of_an_earlier_candidate_is_named(fitted, tmp_path):
    """Taken over onto newer candles, it judges and trades as before, and report and manifest say how old it is."""
    _, config, members = fitted
    newer = make_frames(series=3, candles=1560, edge=1.0)
    member = decode_member(members["xgboost"])
    assert why_not_kept(member, newer, config) is None
    report = train_candidate(newer, config, tmp_path, silent, ready={"xgboost": StoredMember(member)})
    bundle = load_bundle(tmp_path, expected_fingerprint=newer.feature_fingerprint)

    assert report.kept_members == bundle.manifest.kept_members == {"xgboost": member.fit}
    assert report.windows.fit != member.fit
    assert Path(tmp_path / "xgboost.ubj").read_bytes() == member.files["xgboost.ubj"]


def cut(frames: FrameSet, first: int, last: int) -> FrameSet:
    """Return the candles from one place to another, of every series."""
    names = ("open_time_ms", "inputs", "log_return", "close")
    parts = (
        TrainingFrame(frame.symbol, **{name: getattr(frame, name)[first:last] for name in names})
        for frame in frames.frames
    )
    return dataclasses.replace(frames, frames=tuple(parts))


def parity_rows(frames: FrameSet, config):
    """Return the frames end to end, and the rows at which exports are held against what was trained."""
    dataset = Dataset(frames, horizon=config.horizon, window=config.window)
    splits = plan_splits(dataset.start_ms, dataset.end_ms, config, timeframe_ms=frames.timeframe_ms)
    return dataset, rows_to_fit(dataset, splits, config)[1]


def test_a_member_is_taken_over_onto_frames_as_long_as_its_own(tmp_path):
    """A day later the same places hold other candles: the member is asked about those, and answers what it learned."""
    market, config = make_frames(series=3, candles=1700, edge=1.0), small_config(members=TREES)
    before, after = cut(market, 48, 1548), cut(market, 96, 1596)
    member = fit_member("xgboost", before, config, silent)
    assert why_not_kept(member, after, config) is None
    assert tuple(parity_rows(after, config)[1].index.tolist()) == member.sample, "else it tells nothing"

    report = train_candidate(after, config, tmp_path, silent, ready={"xgboost": StoredMember(member)})
    assert report.kept_members == {"xgboost": member.fit}
    assert load_bundle(tmp_path, expected_fingerprint=after.feature_fingerprint).digest == report.bundle_digest


def test_a_member_is_asked_anew_where_candles_were_corrected(fitted):
    """At the same places and moments, other inputs are another question; equal ones are answered as they were."""
    frames, config, members = fitted
    member = decode_member(members["lightgbm"])
    stored = StoredMember(replace(member, trained=tuple(0.5 for _ in member.trained)))
    dataset, rows = parity_rows(frames, config)
    corrected = [dataclasses.replace(frame, inputs=frame.inputs * np.float32(1.01)) for frame in frames.frames]
    other, same = parity_rows(dataclasses.replace(frames, frames=tuple(corrected)), config)

    assert rows.open_time_ms.tolist() == same.open_time_ms.tolist()
    assert set(stored.predict(dataset, rows).tolist()) == {0.5}
    assert 0.5 not in stored.predict(other, same).tolist()


def test_what_cannot_be_taken_over_says_why(fitted):
    """Other inputs, symbols or sizes, and a fit window that ends later than today's, are each refused by name."""
    frames, config, members = fitted
    member = decode_member(members["xgboost"])
    later = TimeWindow(start_ms=member.fit.start_ms, end_ms=member.fit.end_ms + 300_000)
    other = FrameSet(frames.frames, frames.input_names, "0" * 64, frames.timeframe_ms)

    assert why_not_kept(member, frames, config) is None
    assert why_not_kept(member, frames, replace(config, created_at="2027", threads=2, lightgbm=TreeConfig())) is None
    assert why_not_kept(member, other, config) == "it reads other inputs"
    assert why_not_kept(replace(member, symbols=("A",)), frames, config) == "it was fitted on other symbols"
    assert why_not_kept(member, frames, replace(config, xgboost=TreeConfig())) == "it was fitted in another way"
    assert "has seen candles" in str(why_not_kept(replace(member, fit=later), frames, config))


def test_a_torn_member_is_refused(fitted):
    """A byte that was changed, or an end that is missing, is no member."""
    _, _, members = fitted
    content = members["xgboost"]
    for torn in (content[:-1], content[:40] + bytes([content[40] ^ 1]) + content[41:], b""):
        with pytest.raises(BadInputError):
            decode_member(torn)
    with pytest.raises(BadInputError, match="load the candles again"):
        decode_frames(content)


def _content(member, **changes):
    return encode_member(replace(member, **changes))


@pytest.fixture(scope="module")
def kept(fitted):
    return decode_member(fitted[2]["lightgbm"])


@given(names=st.sets(st.sampled_from(["../over.txt", "/tmp/over.txt", "lightgbm.txt", "b.txt", "."]) | st.text()))
def test_other_files_than_it_names_are_refused(kept, names):
    """Whatever names a kept member's contents have, only those that its export states are accepted."""
    (content,) = kept.files.values()
    forged = _content(kept, files=dict.fromkeys(names, content))
    if names == {"lightgbm.txt"}:
        assert decode_member(forged) == kept
        return
    with pytest.raises(BadInputError, match="holds others"):
        decode_member(forged)


def test_only_named_files_are_written(kept, tmp_path):
    """Contents beside those of the export reach no folder, not even where nobody has checked the member."""
    inside = tmp_path / "inside"
    inside.mkdir()
    StoredMember(replace(kept, files=kept.files | {"../outside.txt": b"x"})).export(inside)

    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lightgbm.txt"]


def _forged(kept, name: str, content: bytes):
    """Return the member with another file, its digests mended."""
    entry = replace(kept.export.file, name=name, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    return _content(kept, files={name: content}, export=replace(kept.export, file=entry))


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        pytest.param(
            lambda kept: _content(kept, files={"lightgbm.txt": kept.files["lightgbm.txt"] + b" "}),
            "not what was exported",
            id="digest",
        ),
        pytest.param(lambda kept: _forged(kept, "lightgbm.txt", b"tree\nversion=v4\n"), "lightgbm", id="no-trees"),
        pytest.param(lambda kept: _forged(kept, "lightgbm.pkl", b"\x80\x04N."), "whose files end", id="pickle"),
        pytest.param(
            lambda kept: _content(kept, export=replace(kept.export, raw_scale=float("nan"))), "nan", id="no-number"
        ),
        pytest.param(lambda kept: _content(kept, trained=kept.trained[1:]), "one answer for each row", id="short"),
    ],
)
def test_a_forged_member_is_fitted_anew(kept, fitted, tmp_path, forge, message):
    """A file with mended digests is taken apart before a library reads it; the job fits the member and says why."""
    frames, _, _ = fitted
    folder, told = KeptMembers(tmp_path), []
    folder.write("nhits", "retrain_20251213_041028", forge(kept))

    assert taken_over(folder, frames, small_config(members=("nhits",)), told.append) == {}
    (sentence,) = told
    assert sentence.startswith("nhits is fitted: ")
    assert message in sentence
    assert list(tmp_path.iterdir()) == [tmp_path / "nhits@retrain_20251213_041028.member"]
