"""Which live candles speak for a candidate: of its bundle, on the market it would trade, beside today's champion."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.training.gates import Champion, Circumstances, judge, load_gates
from flows.training.live_evidence import LiveShadow, Market
from flows.training.verdict import Decision, Finding, ModeName, Verdict
from tests.unit.test_gates_judgement import CHAMPION, GATES_FILE, _live, around_of, reports_of

GATES = load_gates(GATES_FILE)
TIME = {"live_shadow_days", "live_independent_outcomes"}
PAIRED = {"live_shadow_days", "live_net_over_champion_low", "live_champion"}
ALL = {*TIME, "live_net_over_flat_low", "live_net_over_champion_low"}


def _first(*, flat_low: float | None = 0.2, **changes: float | None) -> Circumstances:
    """Return live circumstances of a candidate before there is a champion."""
    figures = {"live_shadow/ensemble_minus_flat/net_per_slot_bps_low": flat_low, **changes}
    live = _live(mode="live", champion=None, **figures)
    return around_of(mode="live", champion=None, live=live, approved_digest="b" * 64)


def _missing(verdict: Verdict) -> set[str]:
    return {check.name for check in verdict.missing}


@pytest.mark.parametrize(
    ("live", "why"),
    [
        pytest.param(_live(mode="sandbox", venue="sandbox"), "is of sandbox in QT_MODE=sandbox", id="sandbox"),
        pytest.param(_live(mode="live", venue="binance"), "is of binance in QT_MODE=live", id="another-venue"),
        pytest.param(_live(mode="sandbox"), "QT_MODE=sandbox", id="another-mode"),
        pytest.param(
            LiveShadow(bundle_digest="d" * 64, market=Market(venue="binanceusdm", mode="live"), metrics={}),
            "of bundle dddd",
            id="another-bundle",
        ),
        pytest.param(None, "no live shadow on binanceusdm in QT_MODE=live", id="none"),
    ],
)
def test_candles_of_another_market_are_no_live_shadow(live, why):
    """Three days of a sandbox that runs sixty times as fast say nothing of a real venue, nor does another bundle."""
    verdict = judge(*reports_of(), GATES, around_of(mode="live", live=live, approved_digest="b" * 64))

    assert verdict.decision is Decision.HELD
    assert ALL | {"live_market"} <= _missing(verdict)
    assert why in next(check.reason for check in verdict.checks if check.name == "live_market")


@pytest.mark.parametrize(("mode", "elsewhere"), [("live", "testnet"), ("testnet", "live")])
def test_a_test_network_and_its_venue_say_nothing_of_each_other(mode, elsewhere):
    """What a challenger earned at play money's prices is no evidence for real money's, nor the reverse."""
    around = around_of(mode=mode, live=_live(mode=elsewhere), approved_digest="b" * 64)
    there = judge(*reports_of(), GATES, around)
    here = judge(*reports_of(), GATES, around_of(mode=mode, approved_digest="b" * 64))

    assert (there.decision, here.decision) == (Decision.HELD, Decision.PROMOTED)
    assert ALL | {"live_market"} <= _missing(there)


def test_the_test_network_asks_for_everything_but_a_person():
    """Without an approval what passed is promoted there; with real money the same is held back for nothing else."""
    verdicts = {mode: judge(*reports_of(), GATES, around_of(mode=mode)) for mode in ("testnet", "live")}

    assert (verdicts["testnet"].decision, verdicts["live"].decision) == (Decision.PROMOTED, Decision.HELD)
    assert _missing(verdicts["live"]) == {"approval"}
    asked = {mode: {check.name for check in verdict.checks} for mode, verdict in verdicts.items()}
    assert asked["live"] - asked["testnet"] == {"approval"}
    assert asked["testnet"] <= asked["live"]


@pytest.mark.parametrize(
    ("trained_on", "finding", "decision"),
    [
        ("binanceusdm", Finding.HELD, Decision.PROMOTED),
        ("sandbox", Finding.FAILED, Decision.REFUSED),
        ("BINANCEUSDM", Finding.FAILED, Decision.REFUSED),
        ("", Finding.MISSING, Decision.HELD),
        (None, Finding.MISSING, Decision.HELD),
    ],
)
def test_only_what_was_trained_on_a_venue_trades_there(trained_on, finding, decision):
    """A model of the synthetic market is refused for a real one, and held back where nobody knows what it learned."""
    verdict = judge(*reports_of(), GATES, around_of(trained_venue=trained_on))

    assert verdict.decision is decision
    assert {check.finding for check in verdict.checks if check.name == "trained_venue"} == {finding}


@pytest.mark.parametrize(
    ("flat_low", "decision"),
    [(0.2, Decision.PROMOTED), (0.0, Decision.REFUSED), (-0.1, Decision.REFUSED), (None, Decision.HELD)],
)
def test_without_a_champion_live_candles_must_pay(flat_low, decision):
    """The first candidate for real money must have earned more than nothing on live candles: days alone do not do."""
    assert judge(*reports_of(champion=None), GATES, _first(flat_low=flat_low)).decision is decision


@pytest.mark.parametrize("few", [{"live_shadow/days": 0.2}, {"live_shadow/independent_outcomes": 7.0}])
def test_a_bad_first_hour_is_no_verdict(few):
    """What was lost before there were enough candles holds back; once there were, it refuses."""
    early = judge(*reports_of(champion=None), GATES, _first(flat_low=-3.0, **few))
    later = judge(*reports_of(champion=None), GATES, _first(flat_low=-3.0))

    assert (early.decision, later.decision) == (Decision.HELD, Decision.REFUSED)
    assert "live_net_over_flat_low" in _missing(early)


def test_a_gate_without_a_number_is_not_excused_by_too_few_candles():
    """An unset gate refuses, early or late."""
    bare = {name: gate for name, gate in GATES.gates.items() if name != "live_net_over_flat_low"}
    around = _first(**{"live_shadow/days": 0.2})
    verdict = judge(*reports_of(champion=None), type(GATES)(gates=bare), around)

    assert verdict.decision is Decision.REFUSED


@pytest.mark.parametrize("compared", ["e" * 64, None])
def test_a_lead_over_a_former_champion_is_none_over_todays(compared):
    """Figures beside another champion, or beside none, are missing where one trades; the others still count."""
    verdict = judge(*reports_of(), GATES, around_of(live=_live(champion=compared)))

    assert verdict.decision is Decision.HELD
    assert _missing(verdict) == PAIRED


def test_an_hour_beside_the_champion_is_no_comparison():
    """Days are counted beside the champion of today: an interval of one block is as narrow as it is worthless."""
    verdict = judge(*reports_of(), GATES, around_of(live=_live(**{"live_shadow/paired_days": 0.04})))

    assert verdict.decision is Decision.HELD
    assert [(check.name, check.value) for check in verdict.refusals] == [("live_shadow_days", 0.04)]


def test_a_report_cannot_speak_for_live_candles():
    """A figure by the name of a live one, in the report of training or replay, is none."""
    figures = {
        **_live().metrics,
        "live_shadow/days": 400.0,
    }
    verdict = judge(*reports_of(**figures), GATES, around_of(live=None))

    assert _missing(verdict) >= ALL


_names = st.sampled_from(["sandbox", "binance", "binanceusdm", ""])
_digests = st.sampled_from(["b" * 64, CHAMPION, "d" * 64])
_modes = st.sampled_from(get_args(ModeName))


@given(
    mode=st.sampled_from(["testnet", "live"]),
    venue=_names,
    trained_on=_names,
    shadowed=st.builds(Market, venue=_names, mode=_modes),
    bundle=_digests,
    beside=st.none() | _digests,
    champion=st.none() | _digests,
)
def test_nothing_is_promoted_by_what_was_seen_elsewhere(mode, venue, trained_on, shadowed, bundle, beside, champion):
    """Venue, mode, bundle and champion of the live shadow are those of the trade, or nothing is promoted."""
    live = LiveShadow(bundle_digest=bundle, market=shadowed, metrics=_live().metrics, champion_digest=beside)
    until_ms = around_of().champion.judged_until_ms
    around = Circumstances(
        mode=mode,
        venue=venue,
        trained_venue=trained_on,
        champion=None if champion is None else Champion(digest=champion, judged_until_ms=until_ms),
        live=live,
        approved_digest="b" * 64,
    )
    reports = reports_of(champion=champion if champion != "b" * 64 else None)
    fits = (
        trained_on == venue != ""
        and shadowed == Market(venue=venue, mode=mode)
        and bundle == "b" * 64
        and champion in (None, "b" * 64, beside)
    )

    assert judge(*reports, GATES, around).passed is fits
