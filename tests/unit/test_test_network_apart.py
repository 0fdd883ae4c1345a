"""What is traded on a test network is kept apart from what is traded elsewhere: home, names, verdicts, words."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from feature_store.errors import BadInputError
from feature_store.features.definition import fingerprint
from feature_store.features.state_files import states_path
from flows import approve, drift, promote
from flows.drifting.live_quality import LiveQuality
from flows.live_predictions import LivePredictions
from flows.settings import FlowSettings
from flows.skewing import audit_skew
from inference.bootstrap.model_parts import make_models
from inference.bootstrap.past import Past, require_own_home
from inference.domain.errors import SettingsError
from inference.domain.events import Noted
from inference.execution.book import Book
from inference.models.bundle import bundle_digest
from inference.settings import Mode, Settings, load_settings
from infra.stack import overview, reachability
from tests.unit.test_model_watch import Shelf
from tests.worker_bundle import make_bundle
from tests.worker_support import MemoryJournal


def past_of(*modes: str) -> Past:
    """Return what a worker knows of earlier starts in these modes."""
    past, journal = Past(Book()), MemoryJournal()
    for number, mode in enumerate(modes):
        journal.record(
            Noted(event_type="health.started", detail={"mode": mode, "venue": "binanceusdm"}),
            timestamp_ms=1_000 + number,
        )
    for entry in journal.entries:
        past.visit(entry)
    return past


def settings_of(home: Path, mode: str = "testnet") -> Settings:
    return load_settings(mode=mode, venue="binanceusdm", api_key="k", api_secret="s", home=home)


@pytest.mark.parametrize(
    ("before", "mode", "told"),
    [
        pytest.param(("live",), Mode.TESTNET, "QT_MODE=testnet contradicts .* with QT_MODE=live", id="after-live"),
        pytest.param(("testnet",), Mode.LIVE, "QT_MODE=live contradicts .* with QT_MODE=testnet", id="before-live"),
        pytest.param(("testnet", "live"), Mode.LIVE, "QT_MODE=testnet", id="however-long-ago"),
        pytest.param(("sandbox", "paper"), Mode.TESTNET, "QT_MODE=paper, sandbox", id="after-others"),
        pytest.param(("testnet",), Mode.PAPER, "QT_MODE=testnet", id="paper-afterwards"),
        pytest.param(("testnet", "testnet"), Mode.TESTNET, None, id="again"),
        pytest.param((), Mode.TESTNET, None, id="new"),
        pytest.param(("sandbox", "paper"), Mode.LIVE, None, id="others-among-themselves"),
        pytest.param(("paper", "sandbox"), Mode.PAPER, None, id="play-after-play"),
        pytest.param(("paper", "live"), Mode.LIVE, None, id="money-again"),
        pytest.param(("paper", "live"), Mode.PAPER, "QT_MODE=paper .* traded real money", id="paper-after-money"),
        pytest.param(("live",), Mode.SANDBOX, "QT_MODE=sandbox .* traded real money", id="sandbox-after-money"),
    ],
)
def test_a_home_of_a_test_network_is_of_nothing_else(before, mode, told):
    """Positions and prices of one would be taken for the other's: the worker says which home to name."""
    past = past_of(*before)
    if told is None:
        assert require_own_home(past.modes, mode, Path("journal.jsonl")) is None
        return
    with pytest.raises(SettingsError, match=f"{told}.*set QUANTUM_HOME"):
        require_own_home(past.modes, mode, Path("journal.jsonl"))


def test_states_of_features_are_never_those_of_the_venues_candles(tmp_path):
    """A state that flows computed of the venue's history, or a paper worker of its market, is not gone on from."""
    tested, real = settings_of(tmp_path), settings_of(tmp_path, "live")
    flows = states_path(real.stored_states, FlowSettings.of(venue="binanceusdm").venue, "5m")

    assert states_path(tested.stored_states, tested.market, "5m") != flows
    assert states_path(tested.own_states, tested.market, "5m") != states_path(real.own_states, real.market, "5m")


@pytest.mark.parametrize(("judged_for", "is_gated"), [("testnet", True), ("live", False), ("sandbox", False)])
async def test_only_a_verdict_of_its_own_is_called_one(tmp_path, judged_for, is_gated):
    """Whatever an alias names trades with play money, and what was judged for another mode is called ungated."""
    bundle = make_bundle(tmp_path / "bundle")
    models = make_models(
        settings_of(tmp_path / "home"), Past(Book()), fingerprint=fingerprint(), on_event=lambda *_: None
    )
    tags = {"gate_verdict": "passed", "gate_mode": judged_for, "bundle_digest": bundle_digest(bundle)}
    await models.look(Shelf(bundle, "4", tags), "champion")
    offered = models.take()

    assert offered is not None
    assert offered.gated is is_gated


@pytest.fixture
def testnet(tmp_path, monkeypatch):
    """Let flows believe that play money is traded."""
    for name, value in {"QT_MODE": "testnet", "QT_VENUE": "binanceusdm", "QUANTUM_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("testnet")
def test_nobody_approves_real_money_there():
    """An approval would speak for real money by what play money showed: it is refused before anything is asked."""
    with pytest.raises(BadInputError, match=r"QT_MODE=testnet needs no approval.*QT_MODE=live qtctl approve 3"):
        approve.approve.fn("3", "Ada Lovelace")


@pytest.mark.usefixtures("testnet")
@pytest.mark.parametrize("venue", ["bitfinex", "sandbox"])
def test_flows_judge_for_no_venue_without_a_test_network(monkeypatch, venue):
    """What could never be shown there is refused by name, and not held back for ever."""
    monkeypatch.setenv("QT_VENUE", venue)

    with pytest.raises(BadInputError, match=f"{venue} has no test network"):
        promote.promote.fn()


@pytest.mark.usefixtures("testnet")
def test_nothing_of_the_lake_is_held_against_its_candles():
    """The lake holds the venue's candles: skew would be found in every row, and means nothing."""
    with pytest.raises(BadInputError, match="candles of a test network, which no lake holds"):
        audit_skew(FlowSettings.of(), 24)


@pytest.mark.parametrize(("mode", "is_heard"), [("testnet", False), ("live", True)])
def test_results_in_the_lake_are_no_answer_to_its_opinions(monkeypatch, tmp_path, mode, is_heard):
    """Drift asks what was said of these candles only; what the worker found of its opinions counts in any case."""
    live = LivePredictions({("BTC/USDT:USDT", 1): (0.1, 0.6)}, LiveQuality())
    asked: list[LivePredictions] = []
    monkeypatch.setattr(drift, "load_bundle", lambda *_, **__: SimpleNamespace(digest="d"))
    monkeypatch.setattr(drift, "live_predictions", lambda *_: live)

    def observe(*given: object) -> None:
        asked.append(given[-1])
        raise BadInputError("enough was seen")

    monkeypatch.setattr(drift, "observe", observe)
    champion = SimpleNamespace(
        version=SimpleNamespace(version="1", tagged_digest=None),
        training=SimpleNamespace(feature_fingerprint="f"),
        config=None,
    )
    settings = FlowSettings.of(mode=mode, venue="binanceusdm", home=tmp_path)
    with pytest.raises(BadInputError, match="enough"):
        drift.compare.fn(settings, champion, tmp_path, 24)

    assert bool(asked[0].said) is is_heard
    assert asked[0].quality is live.quality


def test_a_person_is_told_that_the_money_is_play():
    """Whoever looks at the status reads it beside the worker's state."""
    text = StringIO()
    overview._show_worker(
        {"state": "trading", "mode": "testnet", "venue": "binanceusdm"}, Console(file=text, width=200)
    )

    assert "worker: trading with play money, on the test network of binanceusdm" in text.getvalue()


@pytest.mark.parametrize(("mode", "named"), [("testnet", "binanceusdm, test network"), ("live", "binanceusdm")])
async def test_the_doctor_asks_whom_the_worker_trades_with(monkeypatch, mode, named):
    """The clock that counts is that of the network on which orders are sent."""
    nobody = reachability.VenueClock("http://127.0.0.1:9/real", "serverTime")
    monkeypatch.setattr(reachability, "_CLOCKS", {"binanceusdm": nobody})
    monkeypatch.setattr(
        reachability, "_TEST_CLOCKS", {"binanceusdm": reachability.VenueClock("http://127.0.0.1:9/test", None)}
    )
    monkeypatch.setenv("QT_MODE", mode)
    monkeypatch.setenv("QT_VENUE", "binanceusdm")
    finding = await reachability.venue(None)

    assert finding.check == f"venue {named}"
    assert ("/test" in finding.found) is (mode == "testnet")
