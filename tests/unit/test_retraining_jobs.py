"""Retraining jobs: their table, whose turn it is, what goes on after a crash, and which members are taken over."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from rich.console import Console

from feature_store.clock import utc_now
from feature_store.errors import CorruptFileError
from flows.job_commands import jobs as jobs_command
from flows.retraining.age import staleness
from flows.retraining.job import Job, JobError, job_id_of
from flows.retraining.keeping import KeptMembers, kind_of
from flows.retraining.steps import once
from flows.retraining.table import JobTable
from flows.retraining.turn import is_held, turn
from flows.retraining.work import DIED, asked_to_resume, job_of, steps_of, table_of
from flows.settings import FlowSettings
from flows.trainers import processes_for
from inference.models.notices import JobNotice, notices_in
from infra.stack.overview import ServiceView, StackView, show
from infra.stack.retraining import look_at_jobs
from tests.stack_fixtures import ROOT

NOW = datetime(2025, 12, 13, 4, 10, 28, tzinfo=UTC)
MODELS = ("xgboost", "nhits", "patchtst")


@pytest.fixture
def settings(tmp_path) -> FlowSettings:
    return FlowSettings.of(home=tmp_path, retrain_patience=0)


def start(settings, **changes):
    chosen = {"trigger": "demand", "kind": None, "models": MODELS, "parameters": {"days": 6}, "resume": None}
    return job_of(settings, **(chosen | changes), tell=lambda _: None)


def died(settings, **changes) -> str:
    """Return the id of a job whose process ended in the middle."""
    with start(settings, **changes) as steps:
        job_id = steps.job_id
        steps.keep("fit-nhits", b"a member")
        kept = (settings.jobs / job_id / "fit-nhits.kept").read_bytes()
    (settings.jobs / job_id).mkdir(exist_ok=True)
    (settings.jobs / job_id / "fit-nhits.kept").write_bytes(kept)
    steps.table.change(job_id, status="running", completed_at=None)
    return job_id


def failed(settings, why: str) -> Job:
    """Return a job that ended with an error after its first step."""

    def fail() -> None:
        with start(settings) as steps:
            steps.keep("fit-xgboost", b"bytes")
            raise ValueError(why)

    with pytest.raises(ValueError, match=why):
        fail()
    return table_of(settings).jobs()[0]


def test_the_table_holds_the_fields_of_the_specification(settings):
    """Every named field is a column; models and metrics are JSON, an id is made of the moment of the order."""
    table = table_of(settings)
    job = table.add("full", "demand", MODELS, {}, NOW)
    with sqlite3.connect(table.path) as database:
        columns = {row[1] for row in database.execute("PRAGMA table_info(retraining_jobs)")}
        journal = database.execute("PRAGMA journal_mode").fetchone()[0]

    wanted = {"job_id", "type", "status", "models", "started_at", "completed_at", "metrics", "error_message"}
    assert wanted | {"trigger", "version", "promoted", "reasons"} <= columns
    assert journal == "wal"
    assert job.job_id == "retrain_20251213_041028"
    assert table.job(job.job_id) == job


def test_two_orders_of_one_second_are_two_jobs(settings):
    """The second gets the next free id, and both keep when they were ordered."""
    table = table_of(settings)
    first, second = (table.add("full", "drift", MODELS, {}, NOW) for _ in range(2))

    assert second.job_id == job_id_of(NOW + timedelta(seconds=1))
    assert first.queued_at == second.queued_at == NOW
    assert [one.job_id for one in table.jobs()] == [second.job_id, first.job_id]


def test_a_job_that_ends_well_leaves_no_files(settings):
    """Its row stays with what came of it, its folder does not."""
    with start(settings) as steps:
        steps.keep("fit-xgboost", b"bytes")
        assert steps.file("fit-xgboost") == b"bytes"
        running = steps.table.job(steps.job_id)
    job = steps.table.job(steps.job_id)

    assert (running.status, running.pid, job.status) == ("running", os.getpid(), "succeeded")
    assert job.seconds() is not None
    assert not (settings.jobs / job.job_id).exists()


def told(settings) -> list[tuple[str, str]]:
    """Return the job and the status of each notice that lies in a home for its worker, in their order."""
    return [(one.job_id, one.status) for _, one in notices_in(settings.verdicts) if isinstance(one, JobNotice)]


def test_how_a_job_stands_is_told_to_the_worker(settings):
    """Its begin and its end, with what came of it; an error, and what died before, as such."""
    with start(settings) as steps:
        steps.table.change(steps.job_id, metrics={"cpu_seconds": 2.5}, version="7", promoted=True)
    before = failed(settings, "a full disk")
    dead = died(settings)
    with start(settings, parameters={"days": 7}) as last:
        last_id = last.job_id
    (_, ended) = list(notices_in(settings.verdicts))[1]

    assert told(settings) == [
        (steps.job_id, "running"), (steps.job_id, "succeeded"), (before.job_id, "running"), (before.job_id, "failed"),
        (dead, "running"), (dead, "succeeded"), (dead, "failed"), (last_id, "running"), (last_id, "succeeded"),
    ]  # fmt: skip
    assert ended.detail().items() >= {
        "version": "7", "promoted": "true", "metrics": '{"cpu_seconds":2.5}', "models": "xgboost,nhits,patchtst",
    }.items()  # fmt: skip


def test_a_home_that_cannot_be_told_retrains_all_the_same(settings):
    """A notice is for the journal; the job table is the record."""
    settings.verdicts.parent.mkdir(parents=True, exist_ok=True)
    settings.verdicts.write_text("in the way")
    sentences: list[str] = []
    with job_of(
        settings, trigger="demand", kind=None, models=MODELS, parameters={}, resume=None, tell=sentences.append
    ) as steps:
        job_id = steps.job_id

    assert table_of(settings).job(job_id).status == "succeeded"
    assert sum("cannot be written" in one for one in sentences) == 2


def test_an_error_is_the_job_s(settings):
    """What ended the job is in its row, and its files stay to go on with."""
    job = failed(settings, "a full disk")

    assert (job.status, job.error_message) == ("failed", "a full disk")
    assert asked_to_resume(settings, job.job_id) == job
    with start(settings, resume=job.job_id) as again:
        assert again.job_id == job.job_id
        assert again.file("fit-xgboost") == b"bytes"
        assert again.table.job(job.job_id).status == "resumed"


def test_a_job_whose_process_died_goes_on(settings):
    """The next run that asks for the same takes over its id, its steps and its files, and says how often it did."""
    before = died(settings)
    with start(settings) as steps:
        job = steps.table.job(steps.job_id)
        kept = steps.file("fit-nhits")

    assert (job.job_id, job.status, job.resumes, kept) == (before, "resumed", 1, b"a member")


@pytest.mark.parametrize(
    ("changes", "age"),
    [
        pytest.param({"parameters": {"days": 7}}, timedelta(0), id="another-order"),
        pytest.param({}, timedelta(hours=5), id="too-old"),
        pytest.param({"kind": "incremental"}, timedelta(0), id="another-kind"),
    ],
)
def test_what_does_not_go_on_has_failed(settings, changes, age):
    """A job of another order, or of candles that are not the newest any more, is closed with the reason."""
    before = died(settings)
    table = table_of(settings)
    table.change(before, queued_at=utc_now() - age)
    with start(settings, **changes) as steps:
        assert steps.job_id != before
    job = table.job(before)

    assert (job.status, job.error_message) == ("failed", DIED)


def test_a_file_that_was_changed_is_made_again(settings):
    """A kept file counts by its digest: one that is torn is as good as none."""
    with start(settings) as steps:
        steps.keep("fit-nhits", b"a member")
        (settings.jobs / steps.job_id / "fit-nhits.kept").write_bytes(b"a memb")
        assert steps.file("fit-nhits") is None


def test_a_step_is_done_once(settings):
    """What a step came to is returned as it was, and a training that is part of no job notes nothing."""
    done = []
    with start(settings) as steps:
        for _ in range(2):
            assert once(steps, "count", int, lambda: done.append(1) or len(done)) == 1
    assert len(done) == 1
    none = steps_of(settings, None)
    assert [once(none, "count", int, lambda: done.append(1) or len(done)) for _ in range(2)] == [2, 3]


def test_one_at_a_time_and_the_dead_hold_nothing(settings):
    """While a live process has the turn another is refused; `kill -9` gives it back at once."""
    path = settings.jobs / "retrain.lock"
    code = (
        "import sys, time; from pathlib import Path; from flows.retraining.turn import turn\n"
        "with turn(Path(sys.argv[1]), patience_s=0): print('mine', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, cwd=ROOT, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "mine\n"
        assert is_held(path)
        with pytest.raises(JobError, match=f"Another retraining is under way .*{holder.pid}"), start(settings):
            pass
        assert table_of(settings).jobs() == []
        holder.send_signal(signal.SIGKILL)
    with turn(path, patience_s=0):
        assert is_held(path)


def test_waiting_is_a_state(settings):
    """An order that waits is queued, and the same job runs when its turn has come."""
    patient = FlowSettings.of(home=settings.home, retrain_patience=20)
    path, told = settings.jobs / "retrain.lock", []
    code = (
        "import sys, time; from pathlib import Path; from flows.retraining.turn import turn\n"
        "with turn(Path(sys.argv[1]), patience_s=0): print('mine', flush=True); time.sleep(0.5)"
    )
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, cwd=ROOT, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()

        def tell(sentence: str) -> None:
            told.append((sentence, table_of(settings).jobs()[0].status))

        order = {"trigger": "drift", "kind": None, "models": MODELS, "parameters": {}, "resume": None}
        with job_of(patient, **order, tell=tell) as steps:
            assert steps.table.job(steps.job_id).status == "running"
    assert told[0][0].startswith("Waiting for another retraining to end")
    assert told[0][1] == "queued"
    assert len(table_of(settings).jobs()) == 1


def test_unknown_and_finished_jobs_do_not_go_on(settings):
    """Each is refused with what to look at."""
    with pytest.raises(JobError, match="qtctl jobs"):
        asked_to_resume(settings, "retrain_20000101_000000")
    with start(settings) as steps:
        pass
    with pytest.raises(JobError, match="come to its end already"):
        asked_to_resume(settings, steps.job_id)


def test_a_damaged_table_says_what_to_do(settings):
    """A file that is no database is named with the remedy."""
    settings.jobs.mkdir()
    (settings.jobs / "jobs.db").write_bytes(b"nothing of a database" * 100)
    with pytest.raises(CorruptFileError, match="Move it aside"):
        table_of(settings).jobs()


def ended(number: int) -> Job:
    moment = NOW + timedelta(hours=4 * number)
    return Job(
        job_id=job_id_of(moment), type="full", status="succeeded", trigger="schedule", models=MODELS, queued_at=moment,
        started_at=moment, completed_at=moment + timedelta(minutes=50),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "trigger", "jobs", "expected"),
    [
        pytest.param(None, "schedule", 1, "incremental", id="the-next"),
        pytest.param(None, "schedule", 5, "incremental", id="the-last-but-one"),
        pytest.param(None, "schedule", 6, "full", id="deep-members-are-due"),
        pytest.param(None, "drift", 1, "full", id="drift-asks-for-all"),
        pytest.param(None, "demand", 1, "full", id="so-does-a-person"),
        pytest.param("incremental", "demand", 6, "incremental", id="who-orders-wins"),
    ],
)
def test_deep_members_have_their_own_cadence(tmp_path, asked, trigger, jobs, expected):
    """A schedule of four hours fits trees each time and deep members with every sixth job."""
    kept, done = KeptMembers(tmp_path), [ended(number) for number in range(jobs)]
    for name in ("nhits", "patchtst"):
        kept.write(name, done[0].job_id, b"member")

    assert kind_of(asked, trigger, MODELS, kept, done, 6) == expected
    assert kind_of(None, "schedule", MODELS, KeptMembers(tmp_path / "none"), done, 6) == "full"
    assert kind_of(None, "schedule", ("xgboost",), kept, done, 6) == "full"


@pytest.mark.parametrize(
    ("failures", "ran", "expected"),
    [
        pytest.param(4, True, "incremental", id="not-yet"),
        pytest.param(5, True, "full", id="due"),
        pytest.param(9, False, "incremental", id="that-never-began"),
    ],
)
def test_jobs_that_fail_bring_the_next_full_one_nearer(tmp_path, failures, ran, expected):
    """What was taken over may be why they fail: the sixth job fits deep members anew all the same."""
    kept, first = KeptMembers(tmp_path), ended(0)
    since = [
        msgspec.structs.replace(one, status="failed", started_at=one.started_at if ran else None)
        for one in map(ended, range(1, 1 + failures))
    ]
    for name in ("nhits", "patchtst"):
        kept.write(name, first.job_id, b"member")

    assert kind_of(None, "schedule", MODELS, kept, [*reversed(since), first], 6) == expected


def test_jobs_that_judged_a_challenger_again_bring_nothing_nearer(tmp_path):
    """They trained nobody, so that deep members are no older by them."""
    kept, first = KeptMembers(tmp_path), ended(0)
    since = [msgspec.structs.replace(ended(number), models=()) for number in range(1, 10)]
    for name in ("nhits", "patchtst"):
        kept.write(name, first.job_id, b"member")

    assert kind_of(None, "schedule", MODELS, kept, [*reversed(since), first], 6) == "incremental"


def test_only_the_newest_member_is_kept(tmp_path):
    """Each fitting replaces the one before."""
    kept = KeptMembers(tmp_path)
    for number in range(3):
        kept.write("nhits", ended(number).job_id, bytes([number]))

    assert kept.read("nhits") == bytes([2])
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("hours", "trained", "is_stale"),
    [
        pytest.param(7, None, False, id="one-run-missed"),
        pytest.param(9.5, None, True, id="twice-the-schedule"),
        pytest.param(9.5, 9.0, False, id="trained-since"),
        pytest.param(None, 20.0, True, id="a-champion-and-no-job"),
        pytest.param(None, None, False, id="nothing-yet"),
    ],
)
def test_the_alarm_is_at_twice_the_schedule(hours, trained, is_stale):
    """What ages a champion is that nobody held it against fresh candles; a refused candidate counts as a look."""
    now = NOW + timedelta(hours=100)
    jobs = [] if hours is None else [ended(0)]
    if jobs and hours is not None:
        now = (jobs[0].completed_at or NOW) + timedelta(hours=hours)
    found = staleness(jobs, None if trained is None else now - timedelta(hours=trained) + timedelta(hours=2), now,
                      interval_hours=4)  # fmt: skip

    assert found.is_stale is is_stale
    assert ("retraining has stopped" in found.sentence()) is is_stale


@pytest.mark.parametrize(
    ("hours", "trained", "is_stale"),
    [
        pytest.param(7.5, None, False, id="may-be-a-busy-machine"),
        pytest.param(8.5, None, True, id="none-ever-ended-well"),
        pytest.param(8.5, 1.0, False, id="but-a-champion-was-trained"),
    ],
)
def test_what_never_succeeded_ages_from_its_first_order(hours, trained, is_stale):
    """Retraining that fails from its first day on raises the alarm too, named by the job that was ordered first."""
    first, second = (
        msgspec.structs.replace(ended(number), status=status, completed_at=None)
        for number, status in ((0, "failed"), (1, "queued"))
    )
    now = NOW + timedelta(hours=hours)
    found = staleness(
        [second, first], None if trained is None else now - timedelta(hours=trained), now, interval_hours=4
    )

    assert found.is_stale is is_stale
    assert ("retraining has stopped" in found.sentence()) is is_stale
    assert found.first_job == (None if trained else first.job_id)
    assert (first.job_id in found.sentence()) is (trained is None)


def test_status_sees_that_nothing_ever_succeeded(settings):
    """`qtctl status` gives the alarm where every job since the first has failed."""
    job = failed(settings, "a full disk")
    late, early = (look_at_jobs(settings.home, job.queued_at + timedelta(hours=hours), {}) for hours in (9, 7))

    assert early is not None
    assert late is not None
    assert (late.hours_since_success, late.hours_since_first, late.is_stale, early.is_stale) == (None, 9.0, True, False)
    service = ServiceView(pid=1, health="ok", url=None, uptime_s=1, memory_mb=1, log="")
    view = StackView(home="", services={"mlflow": service}, champion=None, worker=None, settings={}, retraining=late)
    page = Console(file=io.StringIO(), width=300)
    show(view, page)
    assert "none ever ended well, the first was ordered 9.0 h ago: STALE" in page.file.getvalue()


@pytest.mark.parametrize(
    ("wanted", "members", "cores", "free_mb", "expected"),
    [(2, 4, 2, 8000, 2), (8, 4, 16, 64_000, 4), (4, 4, 2, 8000, 2), (4, 4, 16, 3500, 2), (2, 4, 2, 100, 1)],
)
def test_processes_fit_into_the_machine(wanted, members, cores, free_mb, expected):
    """Never more at once than there are members, cores, or memory for."""
    assert processes_for(wanted, members, cores, free_mb) == expected


def test_the_command_lists_and_shows(tmp_path, monkeypatch, capsys):
    """`qtctl jobs` lists in words and JSON, `show` names the steps and how to go on after a failure."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    call = {"exit_on_error": False, "result_action": "return_value"}
    assert jobs_command([], **call) == 0
    assert "qtctl retrain" in capsys.readouterr().out
    job = failed(FlowSettings.of(home=tmp_path), "a full disk")
    assert jobs_command(["--json"], **call) == 0
    assert '"status": "failed"' in capsys.readouterr().out
    assert jobs_command(["show", job.job_id], **call) == 0
    shown = capsys.readouterr().out

    assert "queue_seconds" in shown
    assert "a full disk" in shown
    assert f"qtctl retrain --resume {job.job_id}" in shown
    assert "fit-xgboost" in shown


def test_how_long_a_job_waited_for_its_turn_is_told(tmp_path, monkeypatch, capsys):
    """`qtctl jobs` tells the wait beside the work, in words and JSON; of a job that never began, none."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    table = table_of(FlowSettings.of(home=tmp_path))
    ids = [table.add("full", "schedule", MODELS, {}, NOW + timedelta(hours=hours)).job_id for hours in (0, 4)]
    start, end = NOW + timedelta(seconds=95), NOW + timedelta(seconds=400)
    table.change(ids[0], status="succeeded", started_at=start, completed_at=end)
    call = {"exit_on_error": False, "result_action": "return_value"}
    jobs_command(["--json"], **call)
    told = {one["job_id"]: one["queue_seconds"] for one in json.loads(capsys.readouterr().out)}
    monkeypatch.setenv("COLUMNS", "200")
    jobs_command([], **call)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if ids[0] in line)

    assert told == {ids[0]: 95.0, ids[1]: None}
    assert "95 s" in line
    assert "305 s" in line


def test_status_reads_the_table_from_outside(settings):
    """`qtctl status` tells the last job, and that retraining has stopped once none has ended well for too long."""
    assert look_at_jobs(settings.home, NOW) is None
    with start(settings) as steps:
        pass
    died(settings)
    ended_at = table_of(settings).job(steps.job_id).completed_at
    now = (ended_at or NOW) + timedelta(hours=9)
    seen, patient = look_at_jobs(settings.home, now, {}), look_at_jobs(settings.home, now, {"QT_RETRAIN_HOURS": "5"})

    assert seen is not None
    assert patient is not None
    assert (seen.status, seen.hours_since_success, seen.is_stale, patient.is_stale) == ("running", 9.0, True, False)


def test_a_table_is_read_while_it_is_written(settings):
    """Write-ahead logging: a reader sees the last whole state, and waits for nobody."""
    table = table_of(settings)
    job = table.add("full", "demand", MODELS, {}, NOW)
    with sqlite3.connect(table.path) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE retraining_jobs SET status = 'running'")
        began = time.perf_counter()
        assert JobTable(table.path).job(job.job_id).status == "queued"
        assert time.perf_counter() - began < 20
        writer.rollback()


def test_queries_that_know_a_job_by_other_words_find_it(settings):
    """The view `jobs` tells type and status as PENDING, RUNNING, SUCCESS or FAILED, whatever they are called here."""
    table = table_of(settings)
    job = table.add("full", "demand", MODELS, {}, NOW)
    told = []
    for status in ("queued", "running", "resumed", "succeeded", "failed"):
        table.change(job.job_id, status=status)
        with sqlite3.connect(table.path) as database:
            told += database.execute("SELECT job_id, type, status, models FROM jobs").fetchall()

    models = msgspec.json.encode(MODELS).decode()
    words = ("PENDING", "RUNNING", "RUNNING", "SUCCESS", "FAILED")
    assert told == [(job.job_id, "FULL", word, models) for word in words]
