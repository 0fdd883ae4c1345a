"""What a look at a locked window is called: a job that goes on after a crash looks once."""

from __future__ import annotations

import pytest

from feature_store.clock import utc_now
from flows.retraining.job import JobError
from flows.retraining.work import table_of
from flows.settings import FlowSettings
from flows.shadow import look_of


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
