"""What a look at a locked window is called: a job that goes on after a crash looks once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from feature_store.clock import utc_now
from flows import backtest
from flows.locked import LOCKED_USES, count_look
from flows.registered import RegisteredVersion, RunLog
from flows.retraining.job import JobError
from flows.retraining.work import table_of
from flows.settings import FlowSettings
from flows.shadow import look_of
from flows.trials import looks_at, sets_at
from inference.models.manifest import TimeWindow


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Return settings of a home of its own."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    return FlowSettings.of()


def _job(settings, status):
    table = table_of(settings)
    job = table.add("full", "demand", ("xgboost",), {}, utc_now())
    return table.change(job.job_id, status=status)


@pytest.mark.parametrize("status", ["running", "resumed"])
def test_a_job_under_way_gives_its_look_a_name(settings, status):
    """However often the job looks again, the name is the same, and names are counted."""
    job = _job(settings, status)
    assert look_of(settings, job.job_id) == look_of(settings, job.job_id) == f"job-{job.job_id}"


@pytest.mark.parametrize("status", ["queued", "succeeded", "failed"])
def test_a_job_that_is_not_under_way_hides_no_look(settings, status):
    """A name of before would count a look of now as one of then."""
    job = _job(settings, status)
    with pytest.raises(JobError, match="is not under way"):
        look_of(settings, job.job_id)


@pytest.mark.parametrize("name", ["", "nothing", "x' OR '1'='1", "../../etc"])
def test_a_job_that_does_not_exist_is_refused(settings, name):
    """Nobody invents a name for a look."""
    with pytest.raises(JobError, match="There is no job"):
        look_of(settings, name)


class _Run:
    """A run's tags and metrics, in place of the registry."""

    def __init__(self) -> None:
        self.tags, self.metrics = {}, {}

    def log(self, run_id: str, entry: RunLog) -> None:
        """Keep what is logged to the run."""
        assert run_id == "the-run"
        self.tags |= entry.tags or {}
        self.metrics |= entry.metrics or {}

    def run_tags(self, run_id: str) -> dict[str, str]:
        """Return the tags of the run."""
        assert run_id == "the-run"
        return dict(self.tags)


@pytest.fixture
def run(monkeypatch):
    """Return a candidate's run that backtests count in."""
    found = _Run()
    monkeypatch.setattr(backtest, "Registry", lambda _address: found)
    monkeypatch.setattr(backtest, "note_look", backtest.note_look.fn)
    return found


LOCKED = TimeWindow(start_ms=1_000, end_ms=2_000)


def _limits(settings, name, window, monkeypatch, *, sets=0, run_id="the-run", registered=True):
    """Return what a backtest says that limits its claim, as a flow run of a name."""
    monkeypatch.setattr(backtest, "this_run", lambda: name)
    training = SimpleNamespace(shadow=LOCKED, fit=TimeWindow(start_ms=0, end_ms=500), seen_until_ms=900)
    model = SimpleNamespace(manifest=SimpleNamespace(training=training))
    version = RegisteredVersion(version="5", run_id=run_id, aliases=(), tags={}) if registered else None
    return backtest._what_limits(settings, version, model, window, sets)


def test_a_backtest_is_a_look_like_any_other(settings, run, monkeypatch):
    """It is counted beside those of shadows, once however often its task is tried, with each set that it swept."""
    count_look(run, "the-run", "job-1", "2026-01-01")
    inside = TimeWindow(start_ms=1_999, end_ms=9_000)
    (warning,), looks = _limits(settings, "f", inside, monkeypatch, sets=40)
    _, again = _limits(settings, "f", inside, monkeypatch, sets=40)
    _, other = _limits(settings, "g", inside, monkeypatch)

    assert "this is look 2, at 40 sets of rules besides" in warning
    assert (looks, again, other) == (2, 2, 3)
    assert (len(looks_at(run.tags)), sets_at(run.tags), run.metrics[LOCKED_USES]) == (3, 40, 3.0)


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        pytest.param({"registered": False}, "nobody counts", id="a-folder"),
        pytest.param({"run_id": ""}, "nobody counts", id="registered-by-hand"),
    ],
)
def test_a_look_that_nobody_can_count_is_said(settings, run, monkeypatch, chosen, words):
    """Where there is no run to count in, the backtest says so."""
    (warning,), looks = _limits(settings, "f", LOCKED, monkeypatch, **chosen)
    assert words in warning
    assert (looks, run.tags) == (None, {})


def test_candles_after_the_locked_window_are_no_look(settings, run, monkeypatch):
    """What judged nobody can be traded as often as one likes."""
    assert _limits(settings, "f", TimeWindow(start_ms=2_000, end_ms=9_000), monkeypatch) == ((), None)
    assert run.tags == {}
