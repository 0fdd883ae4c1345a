"""How long a challenger is tried before another may take its place."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

import flows.retrain as flow
from feature_store.clock import utc_now
from feature_store.errors import BadInputError
from flows.outcome import Promotion
from flows.promote import keeps_its_turn, require_own_registry
from flows.registered import RegisteredVersion
from flows.retraining.age import staleness
from flows.retraining.work import table_of
from flows.settings import FlowSettings
from flows.training.verdict import Decision
from inference.domain.errors import RegistryUnavailableError
from infra.stack.retraining import look_at_jobs

NOW = datetime(2026, 3, 10, tzinfo=UTC)


def _challenger(days: float | None, verdict: str = "held") -> RegisteredVersion:
    since = "" if days is None else (NOW - timedelta(days=days)).isoformat()
    return RegisteredVersion(
        version="5", run_id="r", aliases=("challenger",), tags={"gate_verdict": verdict, "held_since": since}
    )


@pytest.mark.parametrize(
    ("challenger", "mode", "keeps"),
    [
        pytest.param(_challenger(2), "testnet", True, id="tried-for-two-days"),
        pytest.param(_challenger(6.9), "live", True, id="almost-a-week"),
        pytest.param(_challenger(7.1), "live", False, id="a-week-is-enough"),
        pytest.param(_challenger(2), "paper", False, id="replayed-candles-suffice"),
        pytest.param(_challenger(2, "refused"), "live", False, id="refused"),
        pytest.param(_challenger(2, "passed"), "live", False, id="passed"),
        pytest.param(_challenger(None), "live", False, id="since-nobody-knows"),
        pytest.param(None, "live", False, id="there-is-none"),
    ],
)
def test_a_challenger_on_live_candles_keeps_its_turn(challenger, mode, keeps):
    """Only one that is held back, where live candles are asked for, and for a week at most."""
    assert keeps_its_turn(challenger, mode, NOW) is keeps


def _champion_of(mode: str | None) -> RegisteredVersion | None:
    if mode is None:
        return None
    return RegisteredVersion(version="4", run_id="r", aliases=("champion",), tags={"gate_mode": mode} if mode else {})


@pytest.mark.parametrize(
    ("mode", "champion", "is_refused"),
    [
        ("testnet", "live", True),
        ("live", "testnet", True),
        ("testnet", "testnet", False),
        ("live", "live", False),
        ("testnet", "sandbox", False),
        ("sandbox", "testnet", False),
        ("live", "", False),
        ("live", None, False),
        ("testnet", None, False),
    ],
)
def test_a_test_network_and_real_money_follow_no_common_alias(mode, champion, is_refused):
    """Where the champion was judged for the other of the two, nothing is judged, and the message says what to set."""
    if not is_refused:
        assert require_own_registry(mode, _champion_of(champion)) is None
        return
    with pytest.raises(BadInputError, match=f"version 4, was judged for QT_MODE={champion}.*QT_MLFLOW_URL"):
        require_own_registry(mode, _champion_of(champion))


@pytest.fixture
def retrained(tmp_path, monkeypatch):
    """Return what runs a retraining in live while a challenger is tried, with its verdict; nothing may be trained."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    monkeypatch.setenv("QT_MODE", "live")
    challenger = replace(_challenger(0), tags={"gate_verdict": "held", "held_since": utc_now().isoformat()})

    async def listed(_settings):
        return None

    def run(verdict=Decision.HELD, **chosen):
        judged = Promotion(
            promoted=False, version="5", run_id="r", reasons=("live_shadow_days was 2, bound 3",), verdict=verdict
        )
        monkeypatch.setattr(flow, "promote", lambda version: judged if version == "5" else None)
        return flow.retrain.fn(**chosen)

    monkeypatch.setattr(flow, "Registry", lambda _address: SimpleNamespace(by_alias=lambda _alias: challenger))
    monkeypatch.setattr(flow, "refuse_unlisted", listed)
    monkeypatch.setattr(flow, "say", lambda *_told: None)
    monkeypatch.setattr(flow, "_publish", lambda *_told: None)
    monkeypatch.setattr(flow, "_run", lambda *_given: pytest.fail("nobody is trained while another is tried"))
    return run


def test_judging_a_challenger_again_is_a_job(retrained, tmp_path):
    """It ends well, says of whom and why, names no models, and holds a champion of last week against fresh candles."""
    assert retrained(trigger="schedule").verdict is Decision.HELD

    (job,) = table_of(FlowSettings.of()).jobs()
    now = utc_now()
    found = staleness([job], now - timedelta(days=7), now, interval_hours=4)
    seen = look_at_jobs(tmp_path, now, {})
    assert (job.status, job.trigger, job.models, job.kept) == ("succeeded", "schedule", (), ())
    assert (job.version, job.promoted, job.reasons) == ("5", False, ("live_shadow_days was 2, bound 3",))
    assert (found.is_stale, found.last_job) == (False, job.job_id)
    assert not seen.is_stale


@pytest.mark.parametrize("kind", ["full", "incremental"])
def test_a_job_that_judged_again_keeps_its_kind(retrained, kind):
    """One that took nobody over because it trained nobody has not become a full one."""
    retrained(kind=kind)
    assert [one.type for one in table_of(FlowSettings.of()).jobs()] == [kind]


def test_a_judgement_that_fails_is_the_job_s(retrained, monkeypatch):
    """MLflow that does not answer is a failed job: the alarm goes on."""

    def unreachable(challenger, *_told):
        raise RegistryUnavailableError(f"MLflow does not answer for {challenger.version}")

    monkeypatch.setattr(flow, "keeps_its_turn", unreachable)
    with pytest.raises(RegistryUnavailableError):
        retrained()
    (job,) = table_of(FlowSettings.of()).jobs()
    assert (job.status, job.error_message) == ("failed", "MLflow does not answer for 5")
    assert staleness([job], utc_now() - timedelta(days=7), utc_now(), interval_hours=4).is_stale


def test_a_challenger_that_loses_its_turn_makes_room(retrained, monkeypatch):
    """Once it is refused the same job trains another, and is noted as any training."""
    ours = Promotion(promoted=True, version="6", run_id="s", reasons=(), verdict=Decision.PROMOTED)
    monkeypatch.setattr(flow, "_run", lambda *_given: ours)
    assert retrained(verdict=Decision.REFUSED, kind="incremental") == ours
    (job,) = table_of(FlowSettings.of()).jobs()
    assert (job.version, job.type, job.promoted) == ("6", "full", True)
    assert job.models


def _killed(job_id):
    """Leave a job as a process leaves it that is killed."""
    table_of(FlowSettings.of()).change(job_id, status="running", completed_at=None, error_message=None)


@pytest.mark.parametrize("is_named", [True, False])
def test_a_judgement_that_was_killed_judges_again(retrained, monkeypatch, is_named):
    """Resumed by its id or by the same order, the job judges the challenger again, and trains no other in its place."""

    def dies(*_told):
        raise KeyboardInterrupt

    turn = flow.keeps_its_turn
    monkeypatch.setattr(flow, "keeps_its_turn", dies)
    with pytest.raises(KeyboardInterrupt):
        retrained()
    (job,) = table_of(FlowSettings.of()).jobs()
    _killed(job.job_id)
    monkeypatch.setattr(flow, "keeps_its_turn", turn)

    assert retrained(resume=job.job_id if is_named else None).verdict is Decision.HELD

    (job,) = table_of(FlowSettings.of()).jobs()
    assert (job.status, job.version, job.models, job.resumes) == ("succeeded", "5", (), 1)


@pytest.mark.parametrize("is_named", [True, False])
def test_a_training_that_was_killed_goes_on_when_its_own_candidate_is_held(retrained, monkeypatch, is_named):
    """Version 5 is what the job itself has made: it comes to its end as the training that it is."""
    ours = Promotion(promoted=False, version="5", run_id="r", reasons=(), verdict=Decision.HELD)

    def trains(_settings, steps, _ordered):
        steps.note("ingest", value=True)
        if steps.table.job(steps.job_id).resumes == 0:
            raise KeyboardInterrupt
        return ours

    registry = flow.Registry
    monkeypatch.setattr(flow, "_run", trains)
    monkeypatch.setattr(flow, "Registry", lambda _address: SimpleNamespace(by_alias=lambda _alias: None))
    with pytest.raises(KeyboardInterrupt):
        retrained()
    (job,) = table_of(FlowSettings.of()).jobs()
    _killed(job.job_id)
    monkeypatch.setattr(flow, "Registry", registry)

    assert retrained(resume=job.job_id if is_named else None) == ours

    (job,) = table_of(FlowSettings.of()).jobs()
    assert (job.status, job.version, job.resumes) == ("succeeded", "5", 1)
    assert job.models
