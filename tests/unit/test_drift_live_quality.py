"""What a worker found of live opinions degrades a champion, and a held challenger is asked for drift alone."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from feature_store.stability import Sketch
from flows.drift_text import challenger_headline, challenger_summary, headline, metrics, performance_rows
from flows.drifting.challenging import inputs_report, inputs_unknown
from flows.drifting.check import FALSE_ALARM_RATE, FALSE_ALARM_RATES, DriftReport, Stretches, Verdict
from flows.drifting.degrading import Degradation
from flows.drifting.live_quality import LiveQuality, with_live_quality
from flows.drifting.reaction import degraded_at, events_of, retraining

POOR = LiveQuality(poor=True, measure="hit_rate", outcomes=80, right=0.41, brier=0.27, base_brier=0.25, evidence=130.0)


def report(*, state: str = "judged", evidence: float = 3.0) -> DriftReport:
    performance = Degradation(state=state, note="ic says most", evidence=evidence, limit=100.0, days=9.0)
    return DriftReport(
        version="7",
        end_ms=1_760_000_000_000,
        hours=24,
        false_alarm_rate=FALSE_ALARM_RATE,
        groups=(),
        performance=performance,
    )


def stretches(*, shift: float = 0.0, rows: int = 200) -> Stretches:
    rng = np.random.default_rng(3)

    def one(moved: float = 0.0) -> list[Sketch]:
        return [Sketch.of(rng.normal(place + moved, 1, rows)) for place in range(2)]

    return Stretches("inputs", ("first", "second"), [one() for _ in range(30)], one(shift))


@pytest.mark.parametrize("state", ["judged", "too-new", "too-few"])
def test_poor_live_opinions_degrade_a_champion(state):
    """They are a degradation as any other: verdict, headline, tag, event and retraining follow, and MLflow has it."""
    found = with_live_quality(report(state=state), POOR)
    asked = retraining(found.verdict, now_ms=10**12, last_asked_ms=None, trained_ms=0, cooldown_ms=1, under_way=False)

    assert found.verdict is Verdict.DEGRADED
    assert "live opinions poor by their hit rate: 41.0% right" in headline(found)
    assert degraded_at(found, "") == "2025-10-09T08:53:20+00:00"
    assert [name for name, _ in events_of(found, asked)] == ["quantum.model.degraded"]
    assert events_of(found, asked)[0][1]["quantum.retrain"] == "wanted"
    assert performance_rows(found.performance)[0]["measure"] == "live_hit_rate_above_half"
    assert metrics(found)["drift/performance/live_hit_rate_above_half"] == pytest.approx(-0.09)
    assert found.false_alarm_rate == pytest.approx(0.03)


def test_what_the_check_found_itself_stays():
    """A worker that finds nothing changes no verdict; where none watches, nothing changes at all."""
    own = report(evidence=250.0)

    assert with_live_quality(own, LiveQuality()).verdict is Verdict.DEGRADED
    assert with_live_quality(own, LiveQuality(recovered=True)).verdict is Verdict.DEGRADED
    assert with_live_quality(own, POOR).performance.evidence == 250.0
    assert with_live_quality(report(), LiveQuality()).performance == report().performance
    assert with_live_quality(report(), None) == report()


@pytest.mark.parametrize("state", ["judged", "too-few"])
def test_a_recovery_takes_the_tag_back(state):
    """What was found poor and has recovered is owed its tenure again, also where the check itself cannot judge."""
    recovered = with_live_quality(report(state=state), LiveQuality(recovered=True))

    assert degraded_at(recovered, "2025-10-08T00:00:00+00:00") == ""
    assert recovered.verdict is not Verdict.DEGRADED


def test_by_the_brier_score_the_gain_is_told():
    """The row says what always saying the share of rises had scored better."""
    found = with_live_quality(report(), replace(POOR, measure="brier"))

    assert found.performance.measures[-1].name == "live_brier_gain"
    assert found.performance.measures[-1].observed == pytest.approx(-0.02)
    assert "always saying the share of rises scores 0.2500" in found.performance.note


@pytest.mark.parametrize(
    ("read", "verdict", "says"),
    [
        pytest.param(stretches(), Verdict.STABLE, "No input of the challenger", id="stable"),
        pytest.param(stretches(shift=3.0), Verdict.DRIFTED, "of the inputs of the challenger", id="drifted"),
        pytest.param(stretches(rows=10), Verdict.TOO_FEW, "could not be judged", id="too-few"),
    ],
)
def test_a_held_challenger_is_judged_by_its_inputs(read, verdict, says):
    """It is the champion's check with its rate, of inputs alone: a challenger has no results to degrade in."""
    found = inputs_report(read, version="8", end_ms=1_760_000_000_000, hours=24)
    text = challenger_summary(found, "http://page")

    assert found.verdict is verdict
    assert says in challenger_headline(found)
    assert found.false_alarm_rate == FALSE_ALARM_RATES["inputs"]
    assert "[Run of the challenger in MLflow](http://page)" in text
    assert ("first" in text) is (verdict is not Verdict.TOO_FEW)
    assert msgspec.json.decode(msgspec.json.encode(found), type=DriftReport) == found


def test_a_challenger_that_cannot_be_read_is_told():
    """Why nothing could be judged is in the report, and is no verdict."""
    found = inputs_unknown("ingest newer candles", version="8", end_ms=0, hours=24)

    assert found.verdict is Verdict.TOO_FEW
    assert "ingest newer candles" in challenger_headline(found)
    assert "ingest newer candles" in challenger_summary(found, "http://page")


def test_a_broken_promise_is_told_with_what_was_promised():
    """The row says how far it was below halfway between a coin and the promise, and the note what that was."""
    detail = {
        "measure": "promised", "outcomes": "300", "right": "0.51", "brier": "0.2490", "base_brier": "0.2500",
        "evidence": "120.0", "promised": "0.6",
    }  # fmt: skip
    found = with_live_quality(report(), LiveQuality().after("model.quality_found_poor", detail))
    row = found.performance.measures[-1]

    assert found.verdict is Verdict.DEGRADED
    assert "hit rate, where training promised 60.0%: 51.0% right" in found.performance.note
    assert (row.name, round(row.observed, 6)) == ("live_hit_rate_above_halfway", -0.04)
