"""Flows trade by the exit profiles that a person wrote in the home, as its worker does, or say that none could."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest

from feature_store.clock import utc_now
from flows import backtest, retrain, shadow
from flows.backtest_asked import Asked
from flows.home_exits import exits_for
from flows.orchestration import ProgressBar
from flows.retraining.work import table_of
from flows.settings import FlowSettings
from flows.sizes import training_config
from inference.domain.errors import PolicyError
from inference.domain.policy import Policy
from infra.prove.backtest_market import make_market

PATIENT = """
[profiles.PATIENT]
stop_atr = 2.5
targets = [{ r = 1, share = 0.25 }, { atr = 5, share = 0.25 }]
break_even_after = 1
time_stop_candles = 9
"""


@pytest.fixture
def settings(tmp_path, monkeypatch) -> FlowSettings:
    """Return settings of a home in which a person has written a profile."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "exits.toml").write_text(PATIENT)
    return FlowSettings.of()


def _file(folder: Path, profile: str) -> str:
    path = folder / f"{profile}.toml"
    path.write_text(f'[policy]\nexit_profile = "{profile}"\nconfidence_threshold = 0.55\n')
    return str(path)


def test_a_profile_of_the_home_may_be_named(settings):
    """It is there beside those that are built in; a name that nobody wrote is refused with the nearest."""
    found = exits_for(settings, Policy(exit_profile="PATIENT"))

    assert set(found) == {"DEFAULT", "CHALLENGE_100", "PATIENT"}
    assert found["PATIENT"].stop_atr == Decimal("2.5")
    with pytest.raises(PolicyError, match="PATIENT"):
        exits_for(settings, Policy(exit_profile="PATIENTS"))


@pytest.mark.parametrize("venue", ["binance", "bitfinex"])
def test_a_venue_that_holds_no_profile_is_refused(settings, venue):
    """A worker enters nothing there by any profile, so that a replay would trade what it never does."""
    there = FlowSettings.of(venue=venue)
    for name in ("DEFAULT", "PATIENT"):
        with pytest.raises(PolicyError, match=f"{venue} does not hold reduce-only stops.*Leave exit_profile out"):
            exits_for(there, Policy(exit_profile=name))
        with pytest.raises(PolicyError, match="cannot be followed"):
            Asked.of(there, policy=_file(settings.home, name))
    assert "DEFAULT" in exits_for(there, Policy())


@pytest.mark.parametrize("engine", ["fast", "word"])
def test_a_backtest_trades_by_it(settings, engine, monkeypatch):
    """The word, the sweep engine, bounds and sweeps go by the profile: trades end at its time and not at barriers."""
    monkeypatch.setattr(backtest, "say", lambda sentence, *told: pytest.fail(sentence % told))
    asked = Asked.of(settings, policy=_file(settings.home, "PATIENT"), sweep=("max_positions=1,3",), engine=engine)
    market, bar = make_market(candles=300), ProgressBar("backtest", "Backtest")

    run = backtest.replay_market.fn(market, asked, bar)
    empty = backtest._report(settings, SimpleNamespace(digest="d"), market, "1", asked, run, (), None)
    report = backtest.compile_report.fn(market, asked, run, empty, bar)

    assert len(run.trades) > 10
    assert "BREAK_EVEN" in {one.reason for one in run.trades}
    assert report.engines_agree is (True if engine == "fast" else None)
    assert set(report.bounds) == {"pessimistic", "optimistic"}
    assert len(report.sweep) == 2


def test_shadow_trades_by_it_and_counts_no_look_in_vain(settings, monkeypatch):
    """What is scored has the home's profiles; a policy that cannot be traded by is refused before anything is seen."""
    monkeypatch.setenv("QT_POLICY", _file(settings.home, "PATIENT"))
    assert shadow._terms(FlowSettings.of()).exits["PATIENT"].time_stop_candles == 9
    for name in ("look_of", "find_versions", "note_look"):
        monkeypatch.setattr(shadow, name, lambda *_told: pytest.fail("nothing is asked for or counted"))

    with pytest.raises(PolicyError, match="MINE"):
        shadow.shadow.fn(policy=_file(settings.home, "MINE"))
    monkeypatch.setenv("QT_VENUE", "bitfinex")
    with pytest.raises(PolicyError, match="cannot be followed at bitfinex"):
        shadow.shadow.fn()


@pytest.mark.parametrize(
    ("venue", "profile", "words"),
    [(None, "MINE", "MINE"), ("bitfinex", "PATIENT", "cannot be followed at bitfinex")],
)
@pytest.mark.parametrize("learned", [False, True])
def test_retraining_says_so_before_an_hour_of_work(settings, monkeypatch, venue, profile, words, learned):
    """Neither the rules that shadow trades by nor exits that are learned are found unusable after the training."""
    path = _file(settings.home, profile)
    chosen = {"label": "barrier", "policy": path} if learned else {}
    if not learned:
        monkeypatch.setenv("QT_POLICY", path)

    with pytest.raises(PolicyError, match=words):
        retrain.retrain.fn(venue=venue, **chosen)

    assert table_of(settings).jobs() == []


def test_labels_take_its_exits(settings):
    """A training on barriers learns the first stop, the nearest target and the time of the person's profile."""
    config = training_config(settings, utc_now(), label="barrier", policy=_file(settings.home, "PATIENT"))

    assert config.barriers is not None
    assert (config.barriers.stop_atr_multiple, config.barriers.target_atr_multiple) == (2.5, 2.5)
    assert config.barriers.holding_candles == 9
