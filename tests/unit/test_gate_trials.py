"""Campaigns of candidates: kept on disk, gone on with, and limits of rates that are what the books say."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.training.pack import ExportParityError
from flows.training.tripwires import TripwireError
from infra.prove import gate_campaign, gate_trials, null_gate
from infra.prove.gate_campaign import campaign
from infra.prove.gate_markets import BLOCK, synthetic_frames
from infra.prove.gate_trials import Outcome, Trial, lower_limit, upper_limit
from infra.prove.null_gate import trials
from infra.prove.power import share_of_oracle
from infra.prove.proof import Size
from tests.stack_fixtures import ROOT


def test_four_of_two_hundred_bound_a_rate_by_five_percent() -> None:
    """The limits are those of Clopper and Pearson."""
    assert upper_limit(4, 200) < 0.05 < upper_limit(5, 200)
    assert upper_limit(0, 59) <= 0.05 < upper_limit(0, 58)


@given(st.integers(1, 300), st.data())
def test_limits_enclose_the_rate(of: int, data: st.DataObject) -> None:
    """Lower limit, rate and upper limit come in this order."""
    found = data.draw(st.integers(0, of))
    assert 0 <= lower_limit(found, of) <= found / of <= upper_limit(found, of) <= 1


def test_a_campaign_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept is not run again."""
    ran: list[int] = []

    def one_by_one(some: list[Trial], processes: int) -> list[Outcome]:
        assert processes >= 1
        ran.extend(trial.seed for trial in some)
        return [Outcome(trial=trial, promoted=trial.seed == 3) for trial in some]

    monkeypatch.setattr(gate_campaign, "_run_all", one_by_one)
    first = [Trial(market="synthetic", seed=seed) for seed in (1, 2)]
    campaign(first, tmp_path)
    found = campaign([*first, Trial(market="synthetic", seed=3)], tmp_path)
    assert ran == [1, 2, 3]
    assert [one.promoted for one in found] == [False, False, True]


def test_a_campaign_of_many_trials_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are replaced after some trials each, and the work that is left is taken up by others."""
    pools: list[int] = []

    def pool(size: int, mp_context: object) -> ThreadPoolExecutor:
        assert mp_context is not None
        pools.append(size)
        return ThreadPoolExecutor(size)

    monkeypatch.setattr(gate_campaign, "ProcessPoolExecutor", pool)
    monkeypatch.setattr(gate_campaign, "run", lambda trial: Outcome(trial=trial, promoted=False))
    found = campaign([Trial(market="synthetic", seed=seed) for seed in range(33)], tmp_path, processes=2)
    assert [one.trial.seed for one in found] == list(range(33))
    assert pools == [2, 2, 1]


def test_another_code_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outcomes belong to the code that decided them."""
    ran: list[int] = []

    def one_by_one(some: list[Trial], _processes: int) -> list[Outcome]:
        ran.extend(trial.seed for trial in some)
        return [Outcome(trial=trial, promoted=False) for trial in some]

    monkeypatch.setattr(gate_campaign, "_run_all", one_by_one)
    for digest in ("a", "b"):
        monkeypatch.setattr(gate_campaign, "code_digest", lambda digest=digest: digest)
        campaign([Trial(market="synthetic", seed=1)], tmp_path)
    assert ran == [1, 1]


def test_the_full_null_gate_is_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred seeds, half of them shuffled candles, twenty with all four members."""
    monkeypatch.setattr("infra.prove.null_gate.has_recorded", lambda: True)
    full = trials(Size.FULL)
    assert len({trial.key for trial in full}) == len(full) == 200
    assert sum(len(trial.members) == 4 for trial in full) == 20
    assert sum(trial.market == "shuffled" for trial in full) == 100


def test_a_failed_training_earns_nothing_of_the_oracle() -> None:
    """A training that ended itself counts as having earned nothing."""
    trial = Trial(market="synthetic", seed=1, edge=0.4)
    good = Outcome(trial=trial, promoted=True, sharpe=2.0, oracle_sharpe=2.0)
    failed = Outcome(trial=trial, promoted=False, failed="tripwire", oracle_sharpe=2.0)
    assert share_of_oracle([good, good]) == 1.0
    assert share_of_oracle([failed]) == 0.0


def test_what_is_foreseen_moves_with_what_comes() -> None:
    """The oracle is right on average, by far."""
    frames, truth = synthetic_frames(4, 5, 0.45, 3)
    correlations = []
    for frame, expected in zip(frames.frames, truth.expected, strict=True):
        at = np.searchsorted(truth.close_ms, frame.open_time_ms + frames.timeframe_ms)
        ahead = np.log(frame.close[12:] / frame.close[:-12])
        correlations.append(np.corrcoef(expected[at][:-12], ahead)[0, 1])
    assert np.mean(correlations) > 0.25


def test_nothing_is_foreseen_without_an_edge() -> None:
    """Without an edge the oracle expects nothing."""
    _, truth = synthetic_frames(3, 3, 0.0, 3)
    assert not truth.expected.any()


@pytest.mark.needs_market_data
def test_shuffled_hours_keep_their_candles() -> None:
    """As many candles as before, all prices positive, the same for the same seed."""
    from infra.prove.gate_markets import shuffled_frames

    frames = shuffled_frames(6, 3, 5)
    assert len(frames.frames) == 6
    lengths = {len(frame.close) for frame in frames.frames}
    assert lengths == {3 * 288 // BLOCK * BLOCK}
    assert all((frame.close > 0).all() for frame in frames.frames)
    assert shuffled_frames(6, 3, 5).frames[0].close.tolist() == frames.frames[0].close.tolist()
    assert (ROOT / "mlflow" / "gates.yaml").exists()


@pytest.mark.parametrize("error", [TripwireError([]), ExportParityError("2e-3 apart")])
def test_a_training_that_stops_itself_is_an_outcome(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A tripwire or an export that differs promotes nothing, and ends no campaign."""

    def stopped(*_given: object) -> None:
        raise error

    monkeypatch.setattr(gate_trials, "train_candidate", stopped)
    found = gate_trials.run(Trial(market="synthetic", seed=1, symbols=2, days=2))
    assert not found.promoted
    assert found.failed == str(error)


def test_the_full_null_gate_needs_recorded_candles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred synthetic markets are half of what is claimed; both halves hold it."""
    monkeypatch.setattr(null_gate, "campaign", lambda some, _folder: [Outcome(trial=t, promoted=False) for t in some])
    monkeypatch.setattr(null_gate, "restore", frozenset)
    for recorded in (False, True):
        monkeypatch.setattr(null_gate, "has_recorded", lambda recorded=recorded: recorded)
        assert null_gate.prove(Size.FULL).holds is recorded
    assert null_gate.prove(Size.CI).holds
