"""What tuning may choose: only what exists, only what is asked for, and never what judges a candidate."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from dataclasses import replace as with_fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from feature_store.errors import BadInputError
from feature_store.features.definition import MODEL_INPUT_NAMES
from flows.settings import FlowSettings
from flows.training.calibrate import thresholds_within
from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset
from flows.training.splits import plan_splits
from flows.tuned import Tuned, keep, read_tuned
from flows.tuning.exits import base_policy, policy_with
from flows.tuning.objective import scores, tuning_folds
from flows.tuning.search import variant_of, variants
from flows.tuning.space import PARTS, STOPS, TARGETS, Space, applied, chosen, families, parse_space
from flows.tuning.studies import parse_place
from inference.domain.errors import PolicyError
from inference.domain.policy import Policy
from inference.models.manifest import TimeWindow
from inference.policy.policy_file import policy_text
from tests.training_support import make_frames

BASE = TrainingConfig(created_at="2026-01-01T00:00:00+00:00", code_version="test", evaluation_stride=3)
SEEN = TimeWindow(start_ms=0, end_ms=1_000)


class Drawn:
    """Asks hypothesis in place of Optuna."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Return a whole number of the range."""
        return self._data.draw(st.integers(low, high), label=name)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a number of the range."""
        return self._data.draw(st.floats(low, high), label=name)

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        """Return one of the words."""
        return self._data.draw(st.sampled_from(list(choices)), label=name)


@given(st.data())
def test_every_choice_can_be_trained(data: st.DataObject) -> None:
    """Whatever is drawn can be trained, and leaves alone what judges."""
    parts = tuple(data.draw(st.lists(st.sampled_from(PARTS), min_size=1, unique=True)))
    space = Space(parts=parts)
    config = chosen(Drawn(data), BASE, space, MODEL_INPUT_NAMES)
    assert set(config.members) <= {"xgboost", "lightgbm"}
    assert config.members
    assert "choice" in parts or len(config.members) == 2
    assert config.member_inputs(MODEL_INPUT_NAMES)
    assert set(config.dropped_inputs) < set(MODEL_INPUT_NAMES)
    assert variant_of(config) in variants(BASE, space)
    # What baselines read, what trades cost, and what judges stay as they were.
    assert config.row_inputs(MODEL_INPUT_NAMES) == BASE.row_inputs(MODEL_INPUT_NAMES)
    same = ("fee_bps", "slippage_bps", "horizon", "embargo", "fit_share", "validation_share", "calibration_share")
    assert {name: asdict(config)[name] for name in same} == {name: asdict(BASE)[name] for name in same}


@given(st.data())
def test_only_what_is_searched_changes(data: st.DataObject) -> None:
    """Parts that are not named keep their settings."""
    config = chosen(Drawn(data), BASE, Space(parts=("ensemble",)), MODEL_INPUT_NAMES)
    assert (config.xgboost, config.lightgbm, config.dropped_inputs) == (BASE.xgboost, BASE.lightgbm, ())
    assert config.label == BASE.label


@given(st.data())
def test_a_candidate_keeps_its_members(data: st.DataObject) -> None:
    """A training takes the choice, and its own members."""
    tuned = chosen(Drawn(data), BASE, Space(parts=PARTS), MODEL_INPUT_NAMES)
    config = applied(BASE, tuned)
    assert config.members == BASE.members
    assert config.xgboost == tuned.xgboost
    assert config.label == tuned.label
    # Weights were found for other members than those that vote here.
    assert (config.weighting, config.member_shares) == (BASE.weighting, None)
    assert applied(BASE, tuned, members=True).members == tuned.members
    assert applied(BASE, tuned, members=True).member_shares == tuned.member_shares


@given(st.data())
def test_exits_are_positive_and_finite(data: st.DataObject) -> None:
    """Wherever trades are to end, a policy takes it, a file keeps it, and no other rule is touched."""
    config = chosen(Drawn(data), BASE, Space(parts=("exits",)), MODEL_INPUT_NAMES)
    assert config.traded_exits is not None
    policy = policy_with(Policy(max_positions=3), config.traded_exits)
    assert 0 < policy.stop_atr_multiple <= STOPS[1]
    assert 0 < policy.target_atr_multiple <= TARGETS[1]
    assert 1 <= policy.max_holding_candles <= 4 * BASE.horizon
    rules = {"stop_atr_multiple", "target_atr_multiple", "max_holding_candles"}
    for field in fields(Policy):
        if field.name not in rules:
            assert getattr(policy, field.name) == getattr(Policy(max_positions=3), field.name)
    # Trades alone end there: nothing else is trained.
    assert replace(config, traded_exits=None) == replace(BASE, members=config.members, compared=())


@given(st.data())
def test_fixed_weights_lie_on_the_simplex(data: st.DataObject) -> None:
    """Shares are positive and sum to one over just the members that vote."""
    members = ("xgboost", "lightgbm", "nhits")
    config = chosen(Drawn(data), BASE, Space(parts=("choice", "weights"), members=members), MODEL_INPUT_NAMES)
    assert config.weighting == "fixed"
    assert config.member_shares is not None
    assert tuple(config.member_shares) == config.members
    assert all(0 < share <= 1 for share in config.member_shares.values())
    assert sum(config.member_shares.values()) == pytest.approx(1)


@given(st.data())
def test_a_net_that_is_named_is_searched(data: st.DataObject) -> None:
    """It trains about as long as its size says, and a training takes what was found of it."""
    tuned = chosen(Drawn(data), BASE, Space(parts=("members",), members=("nhits",)), MODEL_INPUT_NAMES)
    assert BASE.nhits.max_steps // 2 <= tuned.nhits.max_steps <= 2 * BASE.nhits.max_steps
    assert (tuned.members, tuned.xgboost, tuned.patchtst) == (("nhits",), BASE.xgboost, BASE.patchtst)
    assert applied(BASE, tuned).nhits == tuned.nhits


@given(st.data())
def test_what_was_found_is_read_as_it_was_written(data: st.DataObject) -> None:
    """Any choice survives its file."""
    config = chosen(Drawn(data), BASE, Space(parts=PARTS), MODEL_INPUT_NAMES)
    tuned = Tuned(
        study="a", trials=1, number=0, net_per_slot_bps=0.0, standard_net_per_slot_bps=0.0, venue="sandbox",
        looked_at=SEEN, config=config, takes_members=True,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as home:
        settings = FlowSettings.of(home=Path(home))
        keep(settings, tuned)
        assert read_tuned(settings, "a") == tuned


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        ({"traded_exits": {"stop_atr_multiple": -1, "target_atr_multiple": 2, "holding_candles": 3}}, "positive"),
        ({"traded_exits": {"stop_atr_multiple": 1, "target_atr_multiple": 0, "holding_candles": 3}}, "positive"),
        ({"barriers": {"stop_atr_multiple": 1, "target_atr_multiple": 2, "holding_candles": 10**12}}, "holds 1 to"),
        ({"traded_exits": {"stop_atr_multiple": "1", "target_atr_multiple": 2, "holding_candles": 3}}, "float"),
        ({"member_shares": {"xgboost": 2.0, "lightgbm": -1.0}}, "sum to one"),
        ({"member_shares": {"xgboost": 0.5}}, "sum to one"),
        ({"member_shares": {"os.system": 1.0}}, "Unknown member"),
        ({"members": ["xgboost", "../up"]}, "Unknown member"),
        ({"trials": 0}, "at least 1"),
        ({"looked_at": {"start_ms": 2, "end_ms": 1}}, "end after its start"),
        ({"looked_at": {"start_ms": 1, "end_ms": "2"}}, "int"),
        ({"looked_at": None}, "object"),
    ],
)
def test_a_tuning_that_was_tampered_with_is_refused(part: dict[str, Any], problem: str, tmp_path: Path) -> None:
    """What no search finds is told, with what to do."""
    settings = FlowSettings.of(home=tmp_path)
    tuned = Tuned(
        study="a", trials=3, number=0, net_per_slot_bps=0.0, standard_net_per_slot_bps=0.0, venue="sandbox",
        looked_at=SEEN, config=BASE,
    )  # fmt: skip
    path = keep(settings, tuned)
    told = json.loads(path.read_bytes())
    (told if part.keys() & told.keys() else told["config"]).update(part)
    path.write_text(json.dumps(told))
    with pytest.raises(BadInputError, match=f"cannot be used.*{problem}.*qtctl tune --study a"):
        read_tuned(settings, "a")


def test_families_are_those_of_the_features() -> None:
    """Inputs fall to the family of the feature they are made of."""
    found = families(("rsi", "log_return_1", "own_input"))
    assert sorted(name for names in found.values() for name in names) == ["log_return_1", "rsi"]


@pytest.mark.parametrize("text", ["", "members,nothing", " , "])
def test_a_part_that_does_not_exist_is_told(text: str) -> None:
    """The error lists the parts there are."""
    with pytest.raises(BadInputError, match="members, features, labels, exits, ensemble, thresholds, choice, weights"):
        parse_space(text)


@pytest.mark.parametrize("text", ["", "xgboost,xgboost", "nothing", "xgboost;lightgbm"])
def test_members_that_do_not_exist_are_told(text: str) -> None:
    """Each is named once, and is one that there is."""
    with pytest.raises(BadInputError, match="member"):
        parse_space("choice", text)


def test_a_policy_needs_somebody_who_asks_it(tmp_path: Path) -> None:
    """Rules begin with those of the file, and a file without a search for exits is a mistake."""
    file = tmp_path / "policy.toml"
    file.write_text(policy_text(Policy(leverage=2)))
    assert base_policy("exits,ensemble", str(file)) == Policy(leverage=2)
    assert base_policy("ensemble", None) is None
    with pytest.raises(BadInputError, match="only part exits"):
        base_policy("ensemble", str(file))
    file.write_text("stop_atr_multiple = inf")
    with pytest.raises(PolicyError, match="stop_atr_multiple"):
        base_policy("exits", str(file))


def test_nothing_to_tune_is_told() -> None:
    """Members without settings to search are refused."""
    with pytest.raises(BadInputError, match="none of them is a member"):
        chosen(None, replace(BASE, members=("nhits",)), Space(), MODEL_INPUT_NAMES)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "../up", "A", "a/b", "x" * 80])
def test_a_study_cannot_leave_its_folder(name, tmp_path) -> None:
    """A name is a plain name."""
    with pytest.raises(BadInputError, match="small letters"):
        parse_place(name, "net", tmp_path, None)


def test_an_aim_that_does_not_exist_is_told(tmp_path) -> None:
    """The error lists the aims there are."""
    with pytest.raises(BadInputError, match="net or net-and-drawdown"):
        parse_place("a", "profit", tmp_path, None)


def test_folds_lie_inside_the_fit_window() -> None:
    """Every window of every fold ends before the candidate is weighed, with a pause between any two."""
    frames = make_frames(series=2, candles=2400)
    dataset = Dataset(frames, horizon=BASE.horizon, window=BASE.window)
    outer = plan_splits(dataset.start_ms, dataset.end_ms, BASE, timeframe_ms=frames.timeframe_ms)
    last = 0
    for splits in tuning_folds(dataset, BASE):
        windows = (splits.fit, splits.validation, splits.calibration, splits.shadow)
        pause = BASE.embargo * frames.timeframe_ms
        assert splits.fit.end_ms + pause <= splits.validation.start_ms
        assert splits.validation.end_ms + pause <= splits.calibration.start_ms
        assert splits.calibration.end_ms + pause <= splits.shadow.start_ms
        assert all(outer.fit.start_ms <= one.start_ms and one.end_ms <= outer.fit.end_ms for one in windows)
        assert splits.shadow.end_ms > last
        last = splits.shadow.end_ms


def test_what_comes_after_the_fit_window_changes_no_score() -> None:
    """Candles that weigh, calibrate or judge a candidate are never looked at."""
    config = replace(
        BASE,
        members=("xgboost",), compared=(), summarised_inputs=(),
        xgboost=replace(BASE.xgboost, rounds=10, min_leaf_rows=20),
    )  # fmt: skip
    frames = make_frames(series=2, candles=2400)
    dataset = Dataset(frames, horizon=BASE.horizon, window=BASE.window)
    outer = plan_splits(dataset.start_ms, dataset.end_ms, config, timeframe_ms=frames.timeframe_ms)
    changed = []
    for frame in frames.frames:
        late = frame.open_time_ms >= outer.fit.end_ms
        inputs, close = frame.inputs.copy(), frame.close.copy()
        inputs[late] *= -3
        close[late] *= 2
        changed.append(with_fields(frame, inputs=inputs, close=close))
    other = with_fields(frames, frames=tuple(changed))
    assert list(scores(frames, config)) == list(scores(other, config))


@given(st.data())
def test_thresholds_are_searched_by_their_bounds(data: st.DataObject) -> None:
    """Every draw holds a confidence that is tried, changes nothing else, and goes into the training that takes it."""
    config = chosen(Drawn(data), BASE, Space(parts=("thresholds",)), MODEL_INPUT_NAMES)
    least, most = config.threshold_bounds
    assert thresholds_within(config.threshold_bounds)
    assert 0.51 <= least <= 0.62
    assert least <= most <= 0.75
    assert replace(config, threshold_bounds=BASE.threshold_bounds) == replace(BASE, members=config.members, compared=())
    assert applied(BASE, config).threshold_bounds == config.threshold_bounds


def test_a_tuned_threshold_that_none_can_be_is_refused(tmp_path: Path) -> None:
    """A file that was changed by hand is told before anything is trained."""
    settings = FlowSettings.of(home=tmp_path)
    config = replace(BASE, threshold_bounds=(0.8, 0.9))
    found = Tuned(
        study="a", trials=1, number=0, net_per_slot_bps=0.0, standard_net_per_slot_bps=0.0, venue="sandbox",
        looked_at=SEEN, config=config,
    )  # fmt: skip
    keep(settings, found)
    with pytest.raises(BadInputError, match="threshold_bounds must hold a confidence"):
        read_tuned(settings, "a")
