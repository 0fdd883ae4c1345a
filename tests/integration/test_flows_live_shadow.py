"""Live outcomes in MLflow: by day, once, told apart by bundle, whatever befell the journal."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import msgspec
import pytest

from flows.live_shadow import find_version, forget_old_days, log_live, measure, read_journal
from flows.outcome import LIVE_SHADOW_REPORT
from flows.registry import MODEL_NAME, Registry
from flows.replay.live_figures import LAST_DAY, LiveReport
from flows.replay.maturing import Seen
from flows.settings import FlowSettings
from flows.shadowing import read_shadow
from inference.domain.shadow import Role
from inference.journal.daily import day_of
from inference.journal.reader import day_files
from inference.journal.writer import JournalWriter
from tests.shadow_support import CHALLENGER, CHAMPION, OTHER, REAL, SANDBOX, START_MS, market, moved, opinion, scored
from tests.stack_fixtures import qtctl

FIRST_DAY = START_MS // 86_400_000
LOW = "live_shadow/ensemble_minus_champion/net_per_slot_bps_low"


def write(home: Path, seen: list[Seen]) -> Path:
    """Append what was seen to the journals of its days, as one life of a worker does, but synced once a day."""
    folder = home / "shadow/journal"
    for day, some in groupby(seen, key=lambda one: day_of(one.recorded_ms)):
        with JournalWriter.open(folder / f"{day}.jsonl") as journal:
            for one in some:
                journal.record(one.event, timestamp_ms=one.recorded_ms)
    return folder


def test_days_are_read_back_whole_torn_and_damaged(tmp_path):
    """A last line that was cut short is passed over; a day of which a byte was changed is left out, and named."""
    seen = market(600, edge=0.5)
    whole = read_shadow(write(tmp_path / "whole", seen), SANDBOX).challengers[-1]
    folder = write(tmp_path / "torn", seen[:400])
    with max(folder.glob("*.jsonl")).open("ab") as newest:
        newest.write(b'{"data":{"ask":["1')
    torn = read_shadow(folder, SANDBOX).challengers[-1]
    write(tmp_path / "torn", seen[400:])
    restarted = read_shadow(folder, SANDBOX).challengers[-1]
    first = min(folder.glob("*.jsonl"))
    first.write_bytes(first.read_bytes().replace(b'"venue":"sandbox"', b'"venue":"sandbux"', 1))
    damaged = read_shadow(folder, SANDBOX)

    assert len(whole) == 597 * 3
    assert len(torn) == 397 * 3
    assert restarted.ours.expected.tolist() == whole.ours.expected.tolist()
    assert len(damaged.challengers[-1]) == len(whole) - 288 * 3
    assert "2026-01-05.jsonl" in damaged.unusable[0]
    assert read_shadow(tmp_path / "nothing", SANDBOX).challengers == ()


def test_only_challengers_of_the_last_days_are_read(tmp_path):
    """One that was replaced days ago is read no more; one that is scored still, since its first candle."""
    old, new = market(200, edge=0.5), market(1200, edge=0.5)[200:]
    for number, one in enumerate(old):
        old[number] = scored(number, [100.0] * 3, (opinion(Role.CHALLENGER, OTHER, [0.001] * 3), *one.event.opinions))
    folder = write(tmp_path, [*old, *new])

    both, recent = read_shadow(folder, SANDBOX), read_shadow(folder, SANDBOX, recent_days=2)

    assert {one.ours.digest for one in both.challengers} == {OTHER, CHALLENGER}
    assert [(one.ours.digest, len(one)) for one in recent.challengers] == [(CHALLENGER, 1197 * 3)]


def test_days_of_another_market_are_passed_over(tmp_path):
    """A sandbox that ran ahead by months neither speaks for a venue nor hides what was scored there."""
    real, ahead = moved(market(350, edge=0.5), REAL), market(300 * 12, edge=0.9, first=60 * 288)
    folder = write(tmp_path, [*real, *ahead])

    (of_venue,) = read_shadow(folder, REAL).challengers
    (of_sandbox,) = read_shadow(folder, SANDBOX).challengers

    assert (of_venue.venue, of_venue.mode, len(of_venue)) == ("binanceusdm", "live", 347 * 3)
    assert int(of_venue.close_ms[-1]) < int(of_sandbox.close_ms[0])


@pytest.fixture
def versions(mlflow_server) -> dict[str, tuple[str, str]]:
    """Return version and run of a champion, two challengers, and one whose number names another bundle today."""
    registry = Registry(mlflow_server.url)
    registry._ensure_model()
    made = {}
    for digest in (CHAMPION, CHALLENGER, OTHER):
        run_id = registry.start_run("live", tags={}, description="")
        made[digest] = (
            str(
                registry._client.create_model_version(
                    MODEL_NAME, f"runs:/{run_id}/none", run_id=run_id, tags={"bundle_digest": digest}
                ).version
            ),
            run_id,
        )
    return made


def renamed(seen: list[Seen], versions: dict[str, tuple[str, str]], challenger: str = CHALLENGER) -> list[Seen]:
    """Return the events with the registry's numbers, scored by one of the challengers."""
    found = []
    for one in seen:
        said = []
        for each in one.event.opinions:
            digest = challenger if each.role is Role.CHALLENGER else each.digest
            said.append(replace(each, digest=digest, version=versions[digest][0]))
        found.append(Seen(replace(one.event, opinions=tuple(said)), one.recorded_ms))
    return found


def test_outcomes_reach_the_challengers_runs_by_day(tmp_path, prefect_server, mlflow_server, versions):
    """`qtctl shadow --live` logs both challengers to their own runs; a second time changes nothing, a new day adds."""
    seen = market(900, edge=0.5)
    write(tmp_path, [*renamed(seen[:350], versions, OTHER), *renamed(seen[350:700], versions)])
    env = {**prefect_server.env, "QUANTUM_HOME": str(tmp_path), "QT_MLFLOW_URL": mlflow_server.url}
    done = qtctl("shadow", "--live", "--json", env=env)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.strip().splitlines()[-1])

    registry = Registry(mlflow_server.url)
    settings = FlowSettings.of(home=tmp_path, mlflow_url=mlflow_server.url)
    (number, run_id), (other_number, other_run) = versions[CHALLENGER], versions[OTHER]

    def course(key: str = LOW) -> list[tuple[int, int, float]]:
        history = registry._client.get_metric_history(run_id, key)
        return sorted((point.step, point.timestamp, point.value) for point in history)

    def again() -> None:
        rows = read_shadow(settings.shadow_journal, SANDBOX).challengers[-1]
        found = find_version.fn(settings, number, rows.ours.digest)
        log_live.fn(settings, run_id, measure.fn(rows, found[1]), ())

    first = course()
    again()
    assert course() == first
    write(tmp_path, renamed(seen[700:], versions))
    again()

    assert set(told) == {number, other_number}
    assert told[number][LOW] > 0
    assert [step for step, *_ in first] == [FIRST_DAY + 1, FIRST_DAY + 2]
    assert course()[: len(first)] == first
    assert {step for step, *_ in course()} == {FIRST_DAY + 1, FIRST_DAY + 2, FIRST_DAY + 3}
    figures = registry.metrics(run_id)
    assert figures["live_shadow/days"] == pytest.approx((900 - 350 - 3) / 288)
    assert figures[LAST_DAY] == FIRST_DAY + 3
    assert registry.metrics(other_run)["live_shadow/days"] == pytest.approx(350 / 288)
    report = msgspec.json.decode(registry.read_text(run_id, LIVE_SHADOW_REPORT), type=LiveReport)
    assert (report.bundle_digest, report.champion_digest) == (CHALLENGER, CHAMPION)
    assert (report.venue, report.mode) == ("sandbox", "sandbox")
    pictures = {one.path for one in registry._client.list_artifacts(run_id, "plots")}
    assert "plots/live_cumulative_net_return.png" in pictures


def test_a_number_that_names_another_bundle_gets_nothing(mlflow_server, versions, tmp_path, monkeypatch):
    """After a registry was begun afresh, or a version was deleted, outcomes go to nobody else's run."""
    settings = FlowSettings.of(home=tmp_path, mlflow_url=mlflow_server.url)
    monkeypatch.setattr("flows.live_shadow.say", lambda *_: None)

    assert find_version.fn(settings, versions[OTHER][0], CHALLENGER) is None
    assert find_version.fn(settings, "987654", CHALLENGER) is None
    assert find_version.fn(settings, versions[OTHER][0], OTHER) is not None


def test_old_days_go_once_they_are_logged(mlflow_server, versions, tmp_path, monkeypatch):
    """Of two challengers of the past the logged one's days go, the other's stay and are named, and can be logged."""
    said: list[str] = []
    monkeypatch.setattr("flows.live_shadow.say", lambda text, *values: said.append(text % values))
    settings = FlowSettings.of(home=tmp_path, mlflow_url=mlflow_server.url, shadow_keep_days=5)
    quiet = FlowSettings.of(home=tmp_path, mlflow_url=mlflow_server.url, shadow_keep_days=0)
    seen = market(30 * 12, edge=0.5)
    # An hour and a half each day for twenty days: five of one, five of another, then of one that is scored still.
    moved = [scored_on(one, place // 18, place % 18) for place, one in enumerate(seen)]
    first, second = renamed(moved[:90], versions, OTHER), renamed(moved[90:180], versions)
    third = renamed(moved[180:], {**versions, OTHER: ("987654", "")}, OTHER)
    third = [
        replace(one, event=replace(one.event, opinions=tuple(fresh(o) for o in one.event.opinions))) for one in third
    ]
    folder = write(tmp_path, [*first, *second, *third])
    days = [path.name for path in day_files(folder)]

    def log(version: str) -> None:
        (rows,) = read_journal.fn(settings, version).challengers
        number, run_id = versions[rows.ours.digest]
        assert number == version
        log_live.fn(settings, run_id, measure.fn(rows, 0), ())

    nothing = forget_old_days.fn(settings, read_journal.fn(settings))
    log(versions[OTHER][0])
    kept = forget_old_days.fn(settings, read_journal.fn(settings))
    after_one = [path.name for path in day_files(folder)]
    log(versions[CHALLENGER][0])
    forget_old_days.fn(quiet, read_journal.fn(quiet))
    after_quiet = [path.name for path in day_files(folder)]
    forget_old_days.fn(settings, read_journal.fn(settings))

    assert len(nothing) == 10
    assert after_one == after_quiet == days[5:]
    assert [one.split()[0] for one in kept] == days[5:10]
    assert f"qtctl shadow {versions[CHALLENGER][0]} --live" in kept[0]
    assert [path.name for path in day_files(folder)] == days[10:]
    assert any("5 days of challengers" in one for one in said)


def fresh(opinion):
    """Return what a challenger said under a digest that no version has."""
    return replace(opinion, digest="e" * 64) if opinion.role is Role.CHALLENGER else opinion


def scored_on(one: Seen, day: int, number: int) -> Seen:
    """Return what was seen, at another candle."""
    close_ms = START_MS + day * 86_400_000 + number * 300_000
    return Seen(replace(one.event, candle_close_ms=close_ms), close_ms + 120)


def test_a_run_holds_the_figures_of_one_market(mlflow_server, versions, tmp_path, monkeypatch):
    """A version that was trained on another venue is left out, and the reason names both."""
    said: list[str] = []
    monkeypatch.setattr("flows.live_shadow.say", lambda text, *values: said.append(text % values))
    settings = FlowSettings.of(home=tmp_path, mlflow_url=mlflow_server.url)
    Registry(mlflow_server.url).tag(versions[CHALLENGER][0], {"venue": "binanceusdm"})

    assert find_version.fn(settings, versions[CHALLENGER][0], CHALLENGER) is None
    assert "trained on binanceusdm, and scored on sandbox" in said[0]
