"""A check says which part found what, results first, and has a state for everything it cannot judge."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from msgspec.structs import replace

from feature_store.errors import BadInputError
from feature_store.stability import Sketch
from flows.drift_page import evidently_page
from flows.drift_text import column_rows, headline, metrics, notice, performance_rows, summary
from flows.drifting.check import FALSE_ALARM_RATES, Performance, Stretches, Verdict, check, group_drift
from flows.drifting.degrading import MEASURES
from flows.drifting.distances import STATISTICS
from flows.drifting.reaction import (
    DRIFT_DETECTED,
    MODEL_DEGRADED,
    RETRAIN_LABEL,
    Retraining,
    degraded_at,
    events_of,
    retraining,
)
from flows.drifting.stretches import stretches_of
from flows.live_predictions import LivePredictions
from flows.observing import Sample, observe, observe_inputs
from inference.domain.events import Noted
from inference.journal.codec import GENESIS, chained
from inference.models.manifest import TimeWindow
from inference.storage.learning import DRIFT_CHECKED, drift_rows

HOUR_MS = 3_600_000


def _group(name: str = "inputs", *, stretches: int = 20, rows: int = 200, shift: float = 0.0, odd: bool = True):
    rng = np.random.default_rng(11)

    def cut(by: float) -> list[Sketch]:
        columns = [rng.normal(by, 1, rows), rng.exponential(1, rows)]
        columns += [np.full(rows, 3.0), np.full(rows, np.nan)] if odd else []
        return [Sketch.of(one) for one in columns]

    names = ("moving", "steady", "constant", "empty")[: 4 if odd else 2]
    return Stretches(name, names, [cut(0.0) for _ in range(stretches)], cut(shift))


def _performance(now: float = 0.5, blocks: int = 30) -> Performance:
    rng = np.random.default_rng(12)
    before, since = rng.normal(0.5, 1, 24), rng.normal(now, 1, blocks)
    return Performance({one.name: before for one in MEASURES}, {one.name: since for one in MEASURES}, blocks / 4)


def _report(shift: float = 0.0, now: float = 0.5):
    return check([_group(shift=shift)], _performance(now), version="7", end_ms=1_760_000_000_000, hours=24)


@pytest.mark.parametrize(
    ("shift", "now", "verdict"),
    [
        pytest.param(0.0, 0.5, Verdict.STABLE, id="unchanged"),
        pytest.param(3.0, 0.5, Verdict.DRIFTED, id="inputs-moved"),
        pytest.param(0.0, -3.0, Verdict.DEGRADED, id="results-worse"),
        pytest.param(3.0, -3.0, Verdict.DEGRADED, id="both-results-rank-first"),
    ],
)
def test_results_rank_above_inputs(shift, now, verdict):
    """What a champion earns decides the verdict, whatever its inputs do."""
    report = _report(shift, now)

    assert report.verdict is verdict
    assert headline(report)
    assert metrics(report)["drift/verdict"] == {"stable": 0.0, "drifted": 1.0, "degraded": 2.0}[verdict]


def test_every_figure_is_told_to_the_journal():
    """Each column's distances with their limits, scores, evidence and measures; the tables read what was written."""
    report = _report(3.0)
    told = notice(report, "champion", datetime(2026, 3, 1, tzinfo=UTC), Retraining.WANTED).detail()
    entry = chained(Noted(event_type=DRIFT_CHECKED, detail=told), seq=1, timestamp_ms=1, trace_id="", previous=GENESIS)
    rows = {(row["part"], row["name"], row["statistic"]): row for row in drift_rows(told, entry)}
    (inputs,) = report.groups
    moving = next(one for one in inputs.columns if one.name == "moving")

    assert (told["verdict"], told["retraining"], told["hours"]) == ("drifted", "wanted", "24")
    for name in STATISTICS:
        row = rows["inputs", "moving", name]
        assert row["value"] == pytest.approx(moving.distances[name], rel=1e-5)
        assert row["alarm_at"] == pytest.approx(moving.limits[name], rel=1e-5)
        assert row["state"] == "drifted"
    assert rows["inputs", "", "score"]["alarm_at"] == pytest.approx(inputs.limit, rel=1e-5)
    assert rows["performance", "", "evidence"]["value"] == pytest.approx(report.performance.evidence, rel=1e-5)
    assert {one.name for one in MEASURES} <= {name for part, name, _ in rows if part == "performance"}
    assert {(row["window_ended_at"], row["hours"]) for row in rows.values()} == {(report.end_ms, 24)}


def test_odd_columns_have_states_and_alarm_nobody():
    """A constant column and one without values are named and not judged; the others are."""
    found = group_drift(_group())
    states = {one.name: one.state for one in found.columns}

    assert states == {"moving": "judged", "steady": "judged", "constant": "constant", "empty": "empty"}
    assert "constant" in found.note
    assert "empty" in found.note
    assert not found.found


def test_a_constant_that_moves_is_told():
    """Of a column that was constant no rate can be stated: it is told that it moved, and nothing is claimed."""
    group = _group()
    now = list(group.now)
    now[2] = Sketch.of(np.full(200, 4.0))
    found = group_drift(Stretches(group.name, group.columns, group.before, now))

    assert "no longer constant: constant" in found.note
    assert not found.found


@pytest.mark.parametrize(
    ("stretches", "rows", "now_rows", "said"),
    [
        pytest.param(4, 200, 200, "compare fewer hours", id="too-few-stretches"),
        pytest.param(20, 200, 60, "ingest newer candles", id="too-few-rows-now"),
        pytest.param(20, 10, 10, "stretches", id="stretches-too-thin"),
        pytest.param(0, 0, 0, "0 stretches", id="nothing-at-all"),
    ],
)
def test_too_little_is_a_state(stretches, rows, now_rows, said):
    """Too few stretches or rows are said with what to do, and are no verdict on drift."""
    group = _group(stretches=stretches, rows=rows)
    now = [Sketch.of(np.zeros(now_rows)) for _ in group.columns]
    found = group_drift(Stretches(group.name, group.columns, group.before, now))

    assert found.state == "too-few"
    assert said in found.note
    assert not found.found
    report = check([Stretches(group.name, group.columns, group.before, now)], _performance(blocks=0),
                   version="7", end_ms=0, hours=24)  # fmt: skip
    assert report.verdict is Verdict.TOO_FEW


def test_only_constants_are_too_few():
    """Where no column varies there is nothing to judge."""
    group = _group()
    only = Stretches(group.name, ("constant",), [one[2:3] for one in group.before], group.now[2:3])

    assert group_drift(only).note == "no column has more than one value to compare with"


def test_rates_add_up_to_what_is_stated():
    """All parts together speak in 2 % of checks where nothing changed."""
    assert sum(FALSE_ALARM_RATES.values()) == pytest.approx(0.02)


def test_a_report_reads_whole():
    """Every part has its lines: results, columns with limits, and the rate at which it errs."""
    report = _report(3.0, -3.0)
    text = summary(report, "http://page", "wanted")

    assert text.index("### Results") < text.index("### Inputs")
    assert "2.0% of checks" in text
    assert "http://page" in text
    assert next(row["column"] for row in column_rows(report)) == "moving"
    assert len(performance_rows(report.performance)) == len(MEASURES)
    assert metrics(report)["drift/psi/moving"] > 1


@pytest.mark.parametrize(
    ("verdict", "asked_hours_ago", "trained_hours_ago", "under_way", "expected"),
    [
        (Verdict.STABLE, None, 100, False, Retraining.NOT_NEEDED),
        (Verdict.TOO_FEW, None, 100, False, Retraining.NOT_NEEDED),
        (Verdict.DRIFTED, None, 100, False, Retraining.WANTED),
        (Verdict.DEGRADED, 13, 100, False, Retraining.WANTED),
        (Verdict.DEGRADED, 11, 100, False, Retraining.COOLING_DOWN),
        (Verdict.DRIFTED, None, 2, False, Retraining.COOLING_DOWN),
        (Verdict.DEGRADED, None, 100, True, Retraining.UNDER_WAY),
    ],
)
def test_a_retraining_is_asked_for_once_in_a_while(verdict, asked_hours_ago, trained_hours_ago, under_way, expected):
    """What is found asks for a retraining, unless one runs, was just asked for, or has just made the champion."""
    now_ms = 1_000 * HOUR_MS
    found = retraining(
        verdict,
        now_ms=now_ms,
        last_asked_ms=None if asked_hours_ago is None else now_ms - asked_hours_ago * HOUR_MS,
        trained_ms=now_ms - trained_hours_ago * HOUR_MS,
        cooldown_ms=12 * HOUR_MS,
        under_way=under_way,
    )

    assert found is expected


@pytest.mark.parametrize(
    ("now", "noted", "expected"),
    [
        pytest.param(0.5, "", "", id="never-degraded"),
        pytest.param(-3.0, "", "2025-10-09T08:53:20+00:00", id="found-first-by-the-venues-time"),
        pytest.param(-3.0, "2025-10-01T00:00:00+00:00", "2025-10-01T00:00:00+00:00", id="known-since-then"),
        pytest.param(0.5, "2025-10-01T00:00:00+00:00", "", id="found-no-more"),
        pytest.param(None, "2025-10-01T00:00:00+00:00", "2025-10-01T00:00:00+00:00", id="could-not-judge"),
    ],
)
def test_a_champion_is_noted_as_degraded_while_it_is(now, noted, expected):
    """The tag says since when; a check that could judge takes it back, one that could not leaves what is known."""
    report = _report(now=0.5 if now is None else now)
    if now is None:
        report = replace(report, performance=replace(report.performance, state="too-new", evidence=0.0))

    assert degraded_at(report, noted) == expected


def test_both_findings_ask_for_one_retraining():
    """Degradation and drift are two events, and one retraining is wanted: by the more urgent."""
    events = events_of(_report(3.0, -3.0), Retraining.WANTED)

    assert [(name, labels[RETRAIN_LABEL]) for name, labels in events] == [
        (MODEL_DEGRADED, "wanted"),
        (DRIFT_DETECTED, "under-way"),
    ]
    assert events_of(_report(), Retraining.NOT_NEEDED) == []


def test_stretches_are_cut_back_from_the_end():
    """Reference stretches end where the reference does, none is cut short, and none overlaps the newest."""
    times = np.arange(0, 100, dtype=np.int64) * HOUR_MS
    values = np.arange(100.0)[:, None]
    cut = stretches_of(
        "inputs", ("hour",), values, times,
        reference=TimeWindow(start_ms=5 * HOUR_MS, end_ms=90 * HOUR_MS), end_ms=100 * HOUR_MS, length_ms=24 * HOUR_MS,
    )  # fmt: skip

    assert [stretch[0].rows for stretch in cut.before] == [24, 24]
    assert cut.now[0].rows == 24
    # The newest begins at 76, inside the reference, which therefore ends there.
    assert cut.before[-1][0].quantile(1.0) == pytest.approx(75, rel=0.01)
    assert cut.before[0][0].quantile(0.0) == pytest.approx(28, rel=0.01)


def test_evidently_draws_what_has_values():
    """The page stands alone; columns without values are left out of it, and where none has any there is no page."""
    rng = np.random.default_rng(13)
    before, now = rng.normal(0, 1, (60, 2)), rng.normal(2, 1, (60, 2))
    before[:, 1] = np.nan
    page = evidently_page(_report(3.0), Sample(("moving", "empty"), before, now))
    nothing = evidently_page(_report(), Sample(("empty",), np.full((60, 1), np.nan), np.full((60, 1), np.nan)))

    assert page is not None
    assert "<html" in page
    assert "moving" in page
    assert nothing is None


def test_a_report_survives_its_record():
    """What is kept in MLflow has every figure, as plain values."""
    import msgspec

    report = _report(3.0)
    again = msgspec.json.decode(msgspec.json.encode(report), type=type(report))

    assert again == replace(report)


def test_the_command_teaches(capsys):
    """Help says what is compared, what the exit statuses mean, and how often it errs."""
    from flows.drift_command import drift

    with pytest.raises(SystemExit):
        drift(["--help"])
    shown = capsys.readouterr().out

    assert "qtctl drift --hours 48 --json" in shown
    assert "2 % of checks" in shown
    assert "the champion degraded" in shown


def test_no_time_is_refused():
    """Less than an hour is nothing to compare, and the error says so."""
    with pytest.raises(BadInputError, match="one hour at least, was 0"):
        observe(None, None, None, None, 0, LivePredictions())
    with pytest.raises(BadInputError, match="one hour at least, was 0"):
        observe_inputs(None, None, None, 0)
