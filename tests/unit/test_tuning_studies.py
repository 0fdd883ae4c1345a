"""What a study remembers of its candles, and who may take what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from dataclasses import replace as with_fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from feature_store.candle import Series, Timeframe
from feature_store.clock import utc_now
from feature_store.errors import BadInputError
from flows import tune
from flows.promote import _trials
from flows.registered import RegisteredVersion, RunSummary
from flows.settings import FlowSettings
from flows.sizes import training_config
from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, FrameSet, TrainingFrame
from flows.trials import study_tags
from flows.tune import config_of, market_of
from flows.tuned import Tuned, keep, require_unseen, tuned_for
from flows.tuning.objective import fit_window
from flows.tuning.search import Task, search
from flows.tuning.space import Space
from flows.tuning.studies import (
    Candles,
    Place,
    candles_of,
    keep_to,
    keep_to_candles,
    looked_at,
    note_look,
    open_study,
)
from inference.models.manifest import TimeWindow
from tests.feature_support import BTC, ETH, market
from tests.training_support import make_frames

BASE = TrainingConfig(created_at="2026-01-01T00:00:00+00:00", code_version="test")
CANDLES = 2400
MARKET = {"venue": "sandbox", "timeframe": "5m", "symbols": "all", "days": 30, "size": "full"}


@pytest.fixture(scope="module")
def frames() -> FrameSet:
    """Two series without gaps."""
    return make_frames(series=2, candles=CANDLES)


def _newest(frames: FrameSet, candles: int) -> FrameSet:
    """Return the newest candles alone, as a search over fewer days reads them."""

    def cut(frame: TrainingFrame) -> TrainingFrame:
        columns = {one.name: getattr(frame, one.name) for one in fields(frame)}
        arrays: dict[str, Any] = {name: values for name, values in columns.items() if isinstance(values, np.ndarray)}
        return with_fields(frame, **{name: values[-candles:] for name, values in arrays.items()})

    return with_fields(frames, frames=tuple(cut(one) for one in frames.frames))


def _fit(frames: FrameSet) -> TimeWindow:
    return fit_window(Dataset(frames, horizon=BASE.horizon, window=BASE.window), BASE)


def _found(**other: Any) -> Tuned:
    told: dict[str, Any] = {
        "study": "a", "trials": 3, "number": 0, "net_per_slot_bps": 0.0, "standard_net_per_slot_bps": 0.0,
        "venue": "sandbox", "looked_at": TimeWindow(start_ms=0, end_ms=1_000), "config": BASE,
    }  # fmt: skip
    return Tuned(**(told | other))


def test_a_tuning_over_fewer_days_is_refused(frames: FrameSet) -> None:
    """Its folds lie where a training over more days weighs and judges; over the same days they do not."""
    taken = replace(BASE, tuning_study="a", tuning_looked_at=_fit(_newest(frames, CANDLES // 3)))
    with pytest.raises(BadInputError, match=r"Tuning a looked at candles up to 20.*--days 90"):
        require_unseen(taken, frames, 90)
    require_unseen(replace(taken, tuning_looked_at=_fit(frames)), frames, 30)
    require_unseen(BASE, frames, 30)


@given(st.integers(-10, 10), st.integers(1, 10**6))
def test_no_candle_after_the_fit_window_was_seen(frames: FrameSet, after: int, length: int) -> None:
    """A stretch may end with the fit window, wherever it begins, and not a candle later."""
    end_ms = _fit(frames).end_ms + after * frames.timeframe_ms
    taken = replace(BASE, tuning_study="a", tuning_looked_at=TimeWindow(start_ms=end_ms - length, end_ms=end_ms))
    try:
        require_unseen(taken, frames, 30)
    except BadInputError:
        assert after > 0
    else:
        assert after <= 0


def test_a_training_knows_what_its_tuning_saw(tmp_path: Path) -> None:
    """The stretch goes into the configuration, which a job that goes on after a crash reads again."""
    settings = FlowSettings.of(home=tmp_path, tuned="a")
    keep(settings, _found())
    assert training_config(settings, utc_now()).tuning_looked_at == TimeWindow(start_ms=0, end_ms=1_000)


@pytest.mark.parametrize("asked", [{"venue": "binance"}, {"timeframe": "1h"}])
def test_a_tuning_of_another_market_is_refused(tmp_path: Path, asked: dict[str, Any]) -> None:
    """Venue and timeframe of what was searched and of what is trained are the same."""
    keep(FlowSettings.of(home=tmp_path), _found())
    assert tuned_for(FlowSettings.of(home=tmp_path)) is None
    assert tuned_for(FlowSettings.of(home=tmp_path, tuned="a")) == _found()
    with pytest.raises(BadInputError, match="searched sandbox 5m candles, and this training learns from"):
        training_config(FlowSettings.of(home=tmp_path, tuned="a", **asked), utc_now())


def test_a_tuning_without_dates_is_refused(tmp_path: Path) -> None:
    """A file that does not say which candles were looked at cannot be trusted not to have seen those that judge."""
    settings = FlowSettings.of(home=tmp_path, tuned="a")
    path = keep(settings, _found())
    path.write_text(path.read_text().replace("looked_at", "looked"))
    with pytest.raises(BadInputError, match=r"looked_at.*qtctl tune --study a"):
        tuned_for(settings)


@pytest.mark.parametrize(
    "other", [{"venue": "binance"}, {"timeframe": "1h"}, {"symbols": ["BTC/USDT"]}, {"days": 90}, {"size": "tiny"}]
)
def test_a_study_keeps_to_its_market(tmp_path: Path, frames: FrameSet, other: dict[str, Any]) -> None:
    """Scores on other candles are not put beside those that are there; the sentence says what differs."""
    place = Place(name="a", folder=tmp_path)
    first = Task(base=BASE, space=Space(), frames={"forward": frames}, market=MARKET)
    keep_to(open_study(place), place, first.asked)
    keep_to(open_study(place), place, first.asked)
    second = with_fields(first, market=MARKET | other)
    with pytest.raises(BadInputError, match=f"begun with other {next(iter(other))},.*another --study"):
        keep_to(open_study(place), place, second.asked)


def test_a_market_is_what_was_asked_for() -> None:
    """Symbols are in one order, and all or the universe by that name."""
    asked = FlowSettings.of(symbols="ETH/USDT:USDT,BTC/USDT:USDT", days=9, size="tiny", timeframe="1h")
    assert market_of(asked) == {
        "venue": "sandbox", "timeframe": "1h", "days": 9, "size": "tiny",
        "symbols": ["BTC/USDT:USDT", "ETH/USDT:USDT"],
    }  # fmt: skip
    assert market_of(FlowSettings.of(symbols="all"))["symbols"] == "all"
    assert market_of(FlowSettings.of(symbols="universe"))["symbols"] == "universe"


@given(st.lists(st.tuples(st.integers(0, 2**45), st.integers(1, 2**45)), min_size=1, max_size=5))
def test_a_study_remembers_every_look(looks: list[tuple[int, int]]) -> None:
    """The stretch reaches from the first candle of any run to the last, in whatever order they came."""
    study = optuna.create_study()
    with pytest.raises(BadInputError, match="does not say which candles"):
        looked_at(study)
    for start, length in looks:
        note_look(study, TimeWindow(start_ms=start, end_ms=start + length))
    ends = max(start + length for start, length in looks)
    assert looked_at(study) == TimeWindow(start_ms=min(start for start, _ in looks), end_ms=ends)


def test_a_search_notes_what_it_looks_at(tmp_path: Path, frames: FrameSet) -> None:
    """Noted before a trial is begun: the fit window, and what an earlier tuning saw that it begins from."""
    place, earlier = Place(name="a", folder=tmp_path), TimeWindow(start_ms=5, end_ms=6)
    task = Task(base=replace(BASE, tuning_looked_at=earlier), space=Space(), frames={"forward": frames})
    study = open_study(place)
    keep_to(study, place, task.asked)
    study.add_trial(optuna.trial.create_trial(value=0.0))
    search(place, task, trials=1, processes=1, progress=lambda _step, _share: None)
    assert looked_at(open_study(place)) == TimeWindow(start_ms=5, end_ms=_fit(frames).end_ms)


def test_a_trial_of_another_search_is_told(tmp_path: Path, frames: FrameSet) -> None:
    """A trial that lacks a choice is an error with a remedy, and says which choice it is."""
    trial = optuna.trial.create_trial(
        value=0.0, params={"x": 0.5}, distributions={"x": optuna.distributions.FloatDistribution(0, 1)}
    )
    task = Task(base=BASE, space=Space(parts=("ensemble",)), frames={"forward": frames})
    with pytest.raises(BadInputError, match=r"study a did not choose.*market_share_removed.*another --study"):
        config_of(trial, Place(name="a", folder=tmp_path), task)


def test_the_gates_ask_for_all_studies_of_the_market() -> None:
    """The count of a version has the trials of studies that it did not take."""
    tags = {"venue": "sandbox", "timeframe": "5m"}
    runs = [
        RunSummary(f"s{n}", study_tags(f"s{n}", **tags, trials=40, looked_at=window), {})
        for n, window in enumerate(
            [TimeWindow(start_ms=10, end_ms=20), TimeWindow(start_ms=5, end_ms=15), TimeWindow(start_ms=0, end_ms=5)]
        )
    ]
    asked: list[Mapping[str, str]] = []

    def runs_tagged(of: Mapping[str, str]) -> list[RunSummary]:
        asked.append(of)
        return [run for run in runs if of.items() <= run.tags.items()]

    windows = SimpleNamespace(fit=TimeWindow(start_ms=10, end_ms=40), shadow=TimeWindow(start_ms=50, end_ms=60))
    registry: Any = SimpleNamespace(runs_tagged=runs_tagged)
    training: Any = SimpleNamespace(windows=windows)
    version = RegisteredVersion(version="1", run_id="ours", aliases=(), tags=tags)
    assert _trials(registry, version, training).count == 1 + 40 + 40
    assert asked == [tags]


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[FlowSettings, Callable[..., dict[str, FrameSet]]]:
    """Return settings of a home with some days of two symbols, and what loads the candles of a study there."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    settings = FlowSettings.of(days=3, size="tiny")
    for series in (BTC, ETH):
        settings.candle_lake().append(series, market(1000, seed=len(series.symbol)))
    monkeypatch.setattr(tune, "say", lambda *_told: None)
    monkeypatch.setattr(tune, "load_variants", tune.load_variants.fn)

    def load(settings: FlowSettings = settings, name: str = "a") -> dict[str, FrameSet]:
        return tune._load(settings, Place(name=name, folder=tmp_path / "tuning"), BASE, Space())

    return settings, load


def _spans(frames: dict[str, FrameSet]) -> dict[str, tuple[int, int]]:
    return {
        one.symbol: (int(one.open_time_ms[0]), int(one.open_time_ms[-1])) for one in next(iter(frames.values())).frames
    }


def test_a_study_that_goes_on_keeps_its_candles(stored: Any) -> None:
    """Newer candles, and a symbol that came since, are for other studies: scores stay those of one stretch."""
    settings, load = stored
    first = load()
    for series in (BTC, ETH):
        settings.candle_lake().append(series, market(1200, seed=len(series.symbol))[1000:])
    settings.candle_lake().append(Series("sandbox", "NEW/USDT:USDT", Timeframe.M5), market(1200, seed=3))

    again, other = load(), load(name="b")
    assert _spans(again) == _spans(first)
    assert set(_spans(first)) == {BTC.symbol, ETH.symbol}
    assert _spans(other)[BTC.symbol][1] - _spans(first)[BTC.symbol][1] == 200 * BTC.timeframe.milliseconds
    assert "NEW/USDT:USDT" in _spans(other)


def test_a_study_asks_for_candles_that_are_not_here(stored: Any, tmp_path: Path) -> None:
    """On a machine whose lake ends earlier, or lacks a symbol, nothing is scored on what happens to be there."""
    settings, load = stored
    load()
    poorer = settings.model_copy(update={"home": tmp_path / "poorer"})
    poorer.candle_lake().append(BTC, market(900, seed=len(BTC.symbol)))
    with pytest.raises(BadInputError, match=r"begun with candles up to .* and those stored here end at.*qtctl ingest"):
        load(poorer)
    poorer.candle_lake().append(BTC, market(1000, seed=len(BTC.symbol))[900:])
    with pytest.raises(BadInputError, match=f"begun with other candles of {ETH.symbol}"):
        load(poorer)


def test_a_study_of_other_days_is_told_so(stored: Any, tmp_path: Path) -> None:
    """What differs is what people chose, not which candles followed from it."""
    settings, load = stored
    load()
    place = Place(name="a", folder=tmp_path / "tuning")
    keep_to(open_study(place), place, Task(base=BASE, space=Space(), frames={}, market=market_of(settings)).asked)
    with pytest.raises(BadInputError, match="begun with other days,"):
        load(settings.model_copy(update={"days": 2}))


def test_a_study_that_does_not_say_its_candles_is_left(tmp_path: Path) -> None:
    """Its trials, of an earlier version, may be of several stretches; one without trials begins."""
    place = Place(name="a", folder=tmp_path)
    study = open_study(place)
    assert candles_of(study, place, MARKET, 10) is None
    study.add_trial(optuna.trial.create_trial(value=0.0))
    with pytest.raises(BadInputError, match=r"does not say up to when its candles are.*another --study"):
        candles_of(study, place, MARKET, 10)


@given(st.integers(0, 2**45), st.integers(0, 2**45), st.lists(st.sampled_from("abc"), unique=True))
def test_only_the_candles_of_the_first_run_are_taken(first_ms: int, second_ms: int, symbols: list[str]) -> None:
    """Whatever comes second is either the same or refused, and changes nothing."""
    study, place = optuna.create_study(), Place(name="a", folder=Path())
    first = Candles(end_ms=first_ms, symbols=("a", "b"))
    keep_to_candles(study, place, first)
    second = Candles(end_ms=second_ms, symbols=tuple(symbols))
    try:
        keep_to_candles(study, place, second)
    except BadInputError:
        assert first_ms != second_ms or set(symbols) != {"a", "b"}
    else:
        assert (second.end_ms, set(second.symbols)) == (first.end_ms, set(first.symbols))
    assert candles_of(study, place, {}, max(first_ms, second_ms)) == first
