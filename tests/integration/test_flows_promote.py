"""Promotion as people meet it: a candidate with good evidence trades, one without is refused, a rollback undoes it."""

from __future__ import annotations

import json
import re

import msgspec
import numpy as np
import pytest

from flows import drift
from flows.approve import why_not
from flows.drifting.check import DriftReport
from flows.drifting.degrading import Degradation
from flows.locked import count_look
from flows.observing import Sample
from flows.outcome import LIVE_SHADOW_REPORT, MODEL_CARD, REPORT_PAGE, SHADOW_REPORT, TRAINING_CONFIG, TRAINING_REPORT
from flows.registry import CHAMPION, PREVIOUS, RegisteredVersion, Registry, RunLog
from flows.replay.live_figures import LiveReport
from flows.replay.report import ShadowReport
from flows.settings import FlowSettings
from flows.training.gates import judge, load_gates
from inference.models.manifest import TimeWindow
from inference.models.notices import notices_in
from tests.stack_fixtures import ask, free_port, newest_artifacts, qtctl

# Figures of an ensemble that any gate would let pass.
GOOD = {
    "shadow/coverage": 1.0,
    "shadow/days": 6.0,
    "shadow/independent_outcomes": 900.0,
    "shadow/abstained_share": 0.0,
    "shadow/ensemble/trades": 400.0,
    "shadow/ensemble/rmse_skill_low": 0.01,
    "shadow/ensemble/ic_low": 0.1,
    "shadow/ensemble/net_per_trade_bps_low": 5.0,
    "shadow/ensemble/calibration_error": 0.02,
    "shadow/ensemble_minus_flat/net_per_slot_bps_low": 1.0,
    "shadow/ensemble_minus_persistence/net_per_slot_bps_low": 1.0,
    "shadow/ensemble_minus_half_ridge/net_per_slot_bps_low": 0.5,
    "shadow/ensemble_minus_ridge/net_per_slot_bps_high": 0.5,
    "shadow/ensemble/sharpe_per_period": 0.4,
    "shadow/ensemble/periods": 72.0,
    "shadow/ensemble/skewness": 0.1,
    "shadow/ensemble/kurtosis": 3.5,
    "shadow/ensemble/drawdown_of_capital": 0.01,
    "shadow/ensemble/concentration": 0.1,
    "shadow/ensemble/sortino_per_day_low": 3.0,
    "shadow/suspect_share": 0.0,
    "shadow/unexplained_share": 0.0,
    "shadow/worker/net_per_day_bps_low": 150.0,
    "shadow/worker/max_drawdown": 0.03,
    "leakage/shuffled_label_z": 0.1,
    "cpcv/ridge/sharpe_negative_share": 0.0,
    "cpcv/trees/sharpe_negative_share": 0.0,
    **{f"shadow/input_drift/cycle_{place}": 0.3 for place in range(1, 6)},
}
LIVE = {
    "live_shadow/days": 4.0,
    "live_shadow/independent_outcomes": 200.0,
    "live_shadow/ensemble_minus_flat/net_per_slot_bps_low": 0.5,
}
PLAUSIBLE = {"ic": 0.12, "r2": 0.02, "hit_rate": 0.55}


def _live_report(version: RegisteredVersion, mode: str, venue: str = "sandbox") -> str:
    """Return what a good shadow on live candles leaves in a run, in one market."""
    report = LiveReport(
        version=version.version, bundle_digest=version.bundle_digest, venue=venue, mode=mode, champion_version=None,
        champion_digest=None, symbols=(), start_ms=0, end_ms=0, metrics=LIVE, points=(), curves=(), stated=(),
        observed=(), count=(),
    )  # fmt: skip
    return msgspec.json.encode(report).decode()


@pytest.fixture
def env(prefect_server, mlflow_server, tmp_path):
    return {**prefect_server.env, "QUANTUM_HOME": str(tmp_path), "QT_MLFLOW_URL": mlflow_server.url}


@pytest.fixture
def candidate(mlflow_server, real_candidate, tmp_path):
    """Return a function that registers the small bundle with evidence of our choice, while nothing trades."""
    registry = Registry(mlflow_server.url)
    for alias in (CHAMPION, PREVIOUS):
        if registry.by_alias(alias) is not None:
            registry.drop_alias(alias)

    def register(champion: str | None = None, moved_ms: int = 0, venue: str = "sandbox", **changed: float):
        training = real_candidate.report
        whose = [*(member.name for member in training.members), "ensemble"]
        plausible = {
            f"{window}/{who}/{name}": value
            for window in ("validation", "calibration", "shadow")
            for who in whose
            for name, value in PLAUSIBLE.items()
        }
        candles = {
            f"{window}/{name}": value
            for window in ("fit", "validation", "calibration")
            for name, value in (("coverage", 1.0), ("suspect_share", 0.0), ("unexplained_share", 0.0))
        }
        highs = {name.replace("_low", "_high"): value * 2 for name, value in GOOD.items() if name.endswith("_low")}
        metrics = {
            **GOOD,
            **highs,
            **plausible,
            **candles,
            **{name.replace("__", "/"): v for name, v in changed.items()},
        }
        # Another window, or another digest, stands for another training.
        locked = TimeWindow(
            start_ms=training.windows.shadow.start_ms + moved_ms, end_ms=training.windows.shadow.end_ms + moved_ms
        )
        windows = msgspec.structs.replace(training.windows, shadow=locked)
        digest = training.bundle_digest if champion is None else "d" * 64
        training = msgspec.structs.replace(training, metrics=metrics, windows=windows, bundle_digest=digest)
        shadow = ShadowReport(
            bundle_digest=training.bundle_digest,
            champion_digest=champion,
            window=locked,
            candles=1500,
            rows=4500,
            symbols=training.symbols,
            threshold=training.threshold,
            metrics=metrics,
            curves=(),
            stated=(),
            observed=(),
            count=(),
            notes=(),
        )
        texts = {TRAINING_REPORT: training, SHADOW_REPORT: shadow, TRAINING_CONFIG: real_candidate.config}
        # A market of its own, so that what other tests scored is no trial on these candles.
        market = {"venue": venue, "timeframe": f"promote-{tmp_path.name}"}
        run_id = registry.start_run("candidate with chosen evidence", market, "For a test of promotion.")
        reports = {path: msgspec.json.encode(one).decode() for path, one in texts.items()}
        registry.log(run_id, RunLog(texts={MODEL_CARD: "# Model card of a test", **reports}))
        version = registry.register(
            run_id, real_candidate.bundle, tags={**market, "bundle_digest": digest}, description="Not judged yet."
        )
        registry.finish_run(run_id)
        return version, judge(training, shadow, load_gates(FlowSettings().gates))

    return register


def test_good_evidence_is_promoted(candidate, env, mlflow_server, prefect_server, tmp_path):
    """A candidate that holds every gate becomes champion: tagged, described, on a page, counted, and announced."""
    registry = Registry(mlflow_server.url)
    version, verdict = candidate()
    assert verdict.passed, [check for check in verdict.checks if not check.passed]
    for other in (candidate()[0], candidate()[0]):
        registry.log(other.run_id, RunLog(metrics={"shadow/days": 5.0, "shadow/ensemble/sharpe_per_period": 0.4}))

    done = qtctl("promote", version.version, "--json", env=env)

    assert done.returncode == 0, done.stderr
    champion = registry.champion()
    assert champion.version == version.version
    assert champion.tags["gate_verdict"] == "passed"
    told = json.loads(done.stdout)
    assert (told["promoted"], told["verdict"], told["missing"]) == (True, "promoted", [])
    found = ask(
        f"{mlflow_server.url}/api/2.0/mlflow/model-versions/get?name=quantum-ensemble&version={version.version}"
    )
    description = found["model_version"]["description"]
    assert description.startswith("# Model card of a test")
    assert "passed" in description
    page = registry.read_text(version.run_id, REPORT_PAGE)
    assert "promoted" in page
    assert page.count("data:image/png;base64,") >= 3
    assert not re.search(r"<(script|link)|src=.http", page), "The page asks for something elsewhere"
    artifacts = newest_artifacts(prefect_server)
    for key in ("verdict-net-return", "verdict-reliability"):
        assert artifacts[key]["data"].startswith("data:image/png;base64,")
        assert f"Version {version.version} " in artifacts[key]["description"]
    figures = registry.metrics(version.run_id)
    assert (figures["selection/trials"], champion.tags["trials"]) == (3, "3")
    assert figures["selection/deflated_sharpe"] < figures["selection/probabilistic_sharpe"]
    (notice,) = [notice for _, notice in notices_in(tmp_path / "verdicts")]
    assert (notice.event, notice.version, notice.verdict) == ("model.verdict", version.version, "promoted")


def test_a_single_gate_refuses(candidate, env, mlflow_server, tmp_path):
    """One figure on the wrong side is enough; the champion stays, the exit status is 3, and the journal is told."""
    registry = Registry(mlflow_server.url)
    first, _ = candidate()
    registry.promote(first.version)
    second, verdict = candidate(shadow__ensemble__net_per_trade_bps_low=-0.1)
    assert not verdict.passed

    done = qtctl("promote", env=env)

    assert done.returncode == 3
    assert "net_per_trade_low was -0.1, bound 0" in done.stdout
    assert registry.champion().version == first.version
    assert registry.version(second.version).tags["gate_verdict"] == "refused"
    assert "net_per_trade_low" in registry.version(second.version).tags["gate_reasons"]
    (notice,) = [notice for _, notice in notices_in(tmp_path / "verdicts")]
    assert notice.verdict == "refused"
    assert any(reason.startswith("net_per_trade_low was -0.1") for reason in notice.reasons)


def test_a_young_champion_stays(candidate, env, mlflow_server, real_candidate):
    """A better challenger whose evidence is hardly newer waits, exit status 4; one of two days later is promoted."""
    registry = Registry(mlflow_server.url)
    first, _ = candidate()
    registry.promote(first.version)
    against = {
        "champion": real_candidate.report.bundle_digest,
        "shadow__ensemble_minus_champion__net_per_slot_bps": 0.8,
        "shadow__ensemble_minus_champion__net_per_slot_bps_low": 0.2,
    }
    second, _ = candidate(moved_ms=6 * 3_600_000, **against)
    later, _ = candidate(moved_ms=48 * 3_600_000, **against)

    waits = qtctl("promote", second.version, "--json", env=env)
    champion = registry.champion()
    replaces = qtctl("promote", later.version, "--json", env=env)

    assert (waits.returncode, json.loads(waits.stdout)["missing"]) == (4, ["tenure_days"])
    assert champion.version == first.version
    assert registry.version(second.version).tags["gate_verdict"] == "held"
    assert replaces.returncode == 0, replaces.stdout
    assert json.loads(replaces.stdout)["replaced"] == first.version


def _checked(version: RegisteredVersion, real_candidate, evidence: float) -> None:
    """Let the drift flow write down what a check of the champion found: how much speaks for its having degraded."""
    performance = Degradation(state="judged", note="net says most", evidence=evidence, limit=100.0, days=9.0)
    report = DriftReport(
        version=version.version, end_ms=1_760_000_000_000, hours=24, false_alarm_rate=0.02, groups=(),
        performance=performance,
    )  # fmt: skip
    champion = drift.Champion(version, real_candidate.report, real_candidate.config)
    nothing = Sample((), np.empty((0, 0)), np.empty((0, 0)))
    drift.log_drift.fn(FlowSettings.of(), champion, report, nothing, "not-needed")


def test_a_champion_that_degraded_is_owed_nothing(candidate, env, mlflow_server, real_candidate, monkeypatch):
    """The drift flow notes it by the venue's time, and takes it back on recovery; a new champion has no such note."""
    monkeypatch.setenv("QT_MLFLOW_URL", mlflow_server.url)
    registry = Registry(mlflow_server.url)
    first, _ = candidate()
    registry.promote(first.version)
    second, _ = candidate(
        champion=real_candidate.report.bundle_digest,
        moved_ms=6 * 3_600_000,
        shadow__ensemble_minus_champion__net_per_slot_bps=0.0,
        shadow__ensemble_minus_champion__net_per_slot_bps_low=-0.4,
    )

    _checked(registry.champion(), real_candidate, 250.0)
    degraded = registry.champion().tags["degraded_at"]
    _checked(registry.champion(), real_candidate, 3.0)
    recovered = registry.champion().tags["degraded_at"]
    waits = qtctl("promote", second.version, "--json", env=env)
    _checked(registry.champion(), real_candidate, 250.0)
    replaces = qtctl("promote", second.version, "--json", env=env)

    assert (degraded, recovered) == ("2025-10-09T08:53:20+00:00", "")
    assert (waits.returncode, json.loads(waits.stdout)["missing"]) == (4, ["tenure_days", "lead_over_champion"])
    assert replaces.returncode == 0, replaces.stdout
    assert json.loads(replaces.stdout)["replaced"] == first.version
    assert "degraded_at" not in registry.champion().tags


def test_too_many_looks_refuse(candidate, env, mlflow_server):
    """A candidate whose locked window was looked at a fourth time is refused, and the looks count as trials."""
    registry = Registry(mlflow_server.url)
    version, _ = candidate()
    for number in range(4):
        count_look(registry, version.run_id, f"look-{number}", "2026-01-01T00:00:00")

    done = qtctl("promote", version.version, env=env)

    assert done.returncode == 3
    assert "locked_looks was 4, bound 3" in done.stdout
    assert registry.version(version.version).tags["trials"] == "4"


def test_real_money_takes_a_person(candidate, env, mlflow_server, real_candidate, tmp_path):
    """In live a version waits for an approval, which MLflow and the journal hold, and is promoted with it."""
    registry = Registry(mlflow_server.url)
    live = {**env, "QT_MODE": "live", "QT_VENUE": "binanceusdm"}
    version, _ = candidate(venue="binanceusdm")
    # What the sandbox showed counts for nothing here, as little as bare figures do.
    registry.log(version.run_id, RunLog(metrics=LIVE, texts={LIVE_SHADOW_REPORT: _live_report(version, "sandbox")}))
    by_the_sandbox = qtctl("promote", version.version, "--json", env=live)
    registry.log(version.run_id, RunLog(texts={LIVE_SHADOW_REPORT: _live_report(version, "live", "binanceusdm")}))

    unapproved = qtctl("promote", version.version, "--json", env=live)
    approved = qtctl("approve", version.version, "--by", "Ada  Lovelace", "--json", env=live)
    final = qtctl("promote", version.version, "--json", env=live)

    assert by_the_sandbox.returncode == 4, by_the_sandbox.stderr
    assert {"live_market", "live_shadow_days", "live_net_over_flat_low"} < set(
        json.loads(by_the_sandbox.stdout)["missing"]
    )
    assert (unapproved.returncode, json.loads(unapproved.stdout)["missing"]) == (4, ["approval"])
    assert approved.returncode == 0, approved.stderr
    told = json.loads(approved.stdout)
    assert (told["by"], told["bundle_digest"]) == ("Ada Lovelace", real_candidate.report.bundle_digest)
    assert (final.returncode, json.loads(final.stdout)["missing"]) == (0, [])
    champion = registry.champion()
    assert champion.version == version.version
    told = {name: champion.tags[f"approved_{name}"] for name in ("by", "verdict", "digest")}
    assert told == {"by": "Ada Lovelace", "verdict": "held", "digest": real_candidate.report.bundle_digest}
    assert champion.tags["gate_mode"] == "live"
    notices = [notice for _, notice in notices_in(tmp_path / "verdicts")]
    assert [(one.event, one.verdict) for one in notices] == [
        ("model.verdict", "held"),
        ("model.verdict", "held"),
        ("model.approved", "held"),
        ("model.verdict", "promoted"),
    ]
    assert (notices[-1].mode, notices[-1].venue) == ("live", "binanceusdm")


def test_play_money_takes_no_person_and_speaks_for_no_other(candidate, env, mlflow_server, tmp_path):
    """In testnet a version waits for a shadow of that very mode, and then trades; for real money it counts nothing."""
    registry = Registry(mlflow_server.url)
    testnet, live = ({**env, "QT_MODE": mode, "QT_VENUE": "binanceusdm"} for mode in ("testnet", "live"))
    version, _ = candidate(venue="binanceusdm")
    untried = qtctl("promote", version.version, "--json", env=testnet)
    registry.log(version.run_id, RunLog(texts={LIVE_SHADOW_REPORT: _live_report(version, "live", "binanceusdm")}))
    by_live = qtctl("promote", version.version, "--json", env=testnet)
    registry.log(version.run_id, RunLog(texts={LIVE_SHADOW_REPORT: _live_report(version, "testnet", "binanceusdm")}))
    in_live = qtctl("promote", version.version, "--json", env=live)

    tried = qtctl("promote", version.version, "--json", env=testnet)
    champion = registry.champion()
    approved = qtctl("approve", version.version, "--by", "Ada Lovelace", env=testnet)
    crossed = qtctl("promote", version.version, "--json", env=live)

    wanted = {"live_market", "live_shadow_days", "live_independent_outcomes", "live_net_over_flat_low"}
    for held in (untried, by_live):
        assert held.returncode == 4, held.stderr
        assert set(json.loads(held.stdout)["missing"]) == wanted
    assert (in_live.returncode, set(json.loads(in_live.stdout)["missing"])) == (4, wanted | {"approval"})
    assert tried.returncode == 0, tried.stdout
    assert json.loads(tried.stdout)["missing"] == []
    assert champion.version == version.version
    assert (champion.tags["gate_verdict"], champion.tags["gate_mode"]) == ("passed", "testnet")
    assert "approved_digest" not in registry.version(version.version).tags
    assert approved.returncode != 0
    assert "QT_MODE=testnet needs no approval" in approved.stderr
    assert crossed.returncode not in (0, 3, 4)
    assert "was judged for QT_MODE=testnet" in crossed.stdout + crossed.stderr
    assert registry.champion().tags["gate_mode"] == "testnet"
    notices = [notice for _, notice in notices_in(tmp_path / "verdicts")]
    assert [(one.mode, one.verdict) for one in notices] == [
        ("testnet", "held"),
        ("testnet", "held"),
        ("live", "held"),
        ("testnet", "promoted"),
    ]


def test_a_model_of_the_synthetic_market_trades_no_other(candidate, env, mlflow_server):
    """Trained in the sandbox, with the best of live figures: refused for a real venue, and never champion."""
    registry = Registry(mlflow_server.url)
    version, _ = candidate()
    registry.log(version.run_id, RunLog(texts={LIVE_SHADOW_REPORT: _live_report(version, "live", "binanceusdm")}))
    live = {**env, "QT_MODE": "live", "QT_VENUE": "binanceusdm"}

    done = qtctl("promote", version.version, "--json", env=live)

    assert done.returncode == 3, done.stderr
    assert registry.version(version.version).tags["gate_failed"] == "trained_venue"
    assert registry.champion() is None


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        pytest.param({"gate_verdict": "passed"}, None, id="passed"),
        pytest.param({"gate_verdict": "held", "gate_missing": "approval"}, None, id="lacks-the-approval"),
        pytest.param({"gate_verdict": "held", "gate_missing": "live_shadow_days,approval"}, "still lacks", id="young"),
        pytest.param({"gate_verdict": "refused", "gate_failed": "ic_low"}, r"refused \(ic_low\)", id="refused"),
        pytest.param({}, "was not judged", id="not-judged"),
        pytest.param({"gate_verdict": "passed", "bundle_digest": ""}, "no tag bundle_digest", id="no-digest"),
    ],
)
def test_an_approval_replaces_no_gate(tags, why):
    """A person approves what passed, or lacks nothing but their word; of anything else they are told what to do."""
    version = RegisteredVersion(version="3", run_id="r", aliases=(), tags={"bundle_digest": "d" * 64, **tags})
    found = why_not(version)

    assert found is None if why is None else re.search(why, found)


def test_rollback_restores_what_traded_before(candidate, env, mlflow_server, tmp_path):
    """A rollback lets the first of two trade again, tells the journal, and is not undone by the next promotion."""
    registry = Registry(mlflow_server.url)
    first, second = candidate()[0], candidate()[0]
    for version in (first, second):
        registry.promote(version.version)

    done, again = qtctl("rollback", "--json", env=env), qtctl("rollback", "--json", env=env)

    assert (done.returncode, again.returncode) == (0, 0), done.stderr + again.stderr
    assert json.loads(done.stdout)["version"] == json.loads(again.stdout)["version"] == first.version
    assert [json.loads(one.stdout)["repeated"] for one in (done, again)] == [False, True]
    assert registry.champion().version == first.version
    assert registry.by_alias(PREVIOUS).version == second.version
    (notice,) = [notice for _, notice in notices_in(tmp_path / "verdicts")]
    assert (notice.event, notice.version, notice.replaced) == ("model.rolled_back", first.version, second.version)

    bare, named = qtctl("promote", env=env), qtctl("promote", second.version, "--json", env=env)
    assert bare.returncode == 1
    assert "no alias 'challenger'" in bare.stderr
    assert named.returncode == 3
    assert "A rollback set it aside" in named.stdout
    assert registry.champion().version == first.version


@pytest.mark.parametrize("is_deaf", [False, True], ids=["prefect-down", "prefect-cannot-run-it"])
def test_rollback_hangs_on_no_prefect(candidate, env, mlflow_server, is_deaf):
    """Nobody answers at Prefect's address, or somebody who is no Prefect: the aliases move, and no run is claimed."""
    registry = Registry(mlflow_server.url)
    first, second = candidate()[0], candidate()[0]
    for version in (first, second):
        registry.promote(version.version)
    # MLflow's own server says that it is well, and knows none of Prefect's questions.
    elsewhere = mlflow_server.url if is_deaf else f"http://127.0.0.1:{free_port()}/api"

    done = qtctl("rollback", env={**env, "PREFECT_API_URL": elsewhere})

    assert done.returncode == 0, done.stderr
    assert "No run of this is kept" in done.stderr
    assert f"Version {second.version} is set aside for version {first.version}" in done.stdout
    assert registry.champion().version == first.version


def test_rollback_of_what_cannot_be_replaced(candidate, env, mlflow_server):
    """The version before was judged for less than real money: no alias moves, and nothing is said to trade."""
    registry = Registry(mlflow_server.url)
    first, second = candidate()[0], candidate()[0]
    for version in (first, second):
        registry.promote(version.version)

    done = qtctl("rollback", "--json", env={**env, "QT_MODE": "live"})

    answer = json.loads(done.stdout)
    assert (done.returncode, answer["restored"]) == (3, False)
    assert "gate_verdict" in answer["reasons"][0]
    assert registry.champion().version == second.version
    assert registry.champion().tags["status"] == "rejected"


def test_version_without_shadow_report_cannot_be_promoted(env, mlflow_server, real_candidate):
    """Promotion without evidence fails and says which report is missing."""
    registry = Registry(mlflow_server.url)
    run_id = registry.start_run("candidate without evidence", {}, "For a test of promotion.")
    registry.log(run_id, RunLog(texts={TRAINING_REPORT: msgspec.json.encode(real_candidate.report).decode()}))
    version = registry.register(run_id, real_candidate.bundle, tags={}, description="Not judged yet.")
    registry.finish_run(run_id)

    done = qtctl("promote", version.version, env=env)

    assert done.returncode == 1
    assert SHADOW_REPORT in done.stderr
