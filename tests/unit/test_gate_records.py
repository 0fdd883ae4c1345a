"""Outcomes of trials that the repository keeps: they count for their code only, and are what was run."""

from __future__ import annotations

import msgspec
import pytest

from feature_store.errors import BadInputError
from infra.prove.gate_records import Again, keep, read, restore, same
from infra.prove.gate_trials import Outcome, Trial


def outcome(seed: int = 1, **changes) -> Outcome:
    """Return what came of a trial."""
    return Outcome(
        trial=Trial(market="synthetic", seed=seed), **({"promoted": False, "ic": 0.1, "trades": 9} | changes)
    )


def ran(folder, digest, *outcomes):
    """Lay outcomes down as a campaign does."""
    place = folder / digest
    place.mkdir(parents=True, exist_ok=True)
    for one in outcomes:
        (place / f"{one.trial.key}.json").write_bytes(msgspec.json.encode(one))


def test_what_was_run_is_kept_and_found_again_on_another_machine(tmp_path):
    """Kept once, restored where nothing was run, and equal to the last digit."""
    ran(tmp_path / "here", "aa", outcome(1), outcome(2, promoted=True))
    path, count = keep("aa", kept=tmp_path / "kept", ran=tmp_path / "here")
    assert (path.name, count) == ("aa.jsonl", 2)

    laid = restore("aa", kept=tmp_path / "kept", ran=tmp_path / "there")
    assert laid == {outcome(1).trial.key, outcome(2).trial.key}
    found = [msgspec.json.decode(one.read_bytes(), type=Outcome) for one in (tmp_path / "there" / "aa").iterdir()]
    assert sorted(found, key=lambda one: one.trial.seed) == [outcome(1), outcome(2, promoted=True)]


def test_what_was_laid_before_is_still_the_repositorys(tmp_path):
    """A second proof in the same folder runs some of them again as the first did."""
    ran(tmp_path / "here", "aa", outcome(1), outcome(2))
    keep("aa", kept=tmp_path / "kept", ran=tmp_path / "here")
    first = restore("aa", kept=tmp_path / "kept", ran=tmp_path / "there")
    assert restore("aa", kept=tmp_path / "kept", ran=tmp_path / "there") == first != frozenset()


def test_nothing_to_keep_takes_nothing_away(tmp_path):
    """Where nothing was run for the code as it is, hours of outcomes stay, and what to do is said."""
    ran(tmp_path / "here", "aa", outcome(1))
    path, _ = keep("aa", kept=tmp_path / "kept", ran=tmp_path / "here")
    with pytest.raises(BadInputError, match="prove-null-gate"):
        keep("bb", kept=tmp_path / "kept", ran=tmp_path / "here")
    assert len(read(path)) == 1


def test_outcomes_of_other_code_do_not_count(tmp_path):
    """Another digest restores nothing, and keeping takes what is out of date away."""
    ran(tmp_path / "here", "aa", outcome(1))
    keep("aa", kept=tmp_path / "kept", ran=tmp_path / "here")
    assert restore("bb", kept=tmp_path / "kept", ran=tmp_path / "there") == frozenset()

    ran(tmp_path / "here", "bb", outcome(2))
    keep("bb", kept=tmp_path / "kept", ran=tmp_path / "here")
    assert [one.name for one in (tmp_path / "kept").iterdir()] == ["bb.jsonl"]


def test_what_this_machine_has_run_stays(tmp_path):
    """A kept outcome never takes the place of one's own."""
    ran(tmp_path / "here", "aa", outcome(1, ic=0.2))
    ran(tmp_path / "there", "aa", outcome(1, ic=0.3))
    keep("aa", kept=tmp_path / "kept", ran=tmp_path / "here")
    assert restore("aa", kept=tmp_path / "kept", ran=tmp_path / "there") == frozenset()
    (own,) = (tmp_path / "there" / "aa").iterdir()
    assert msgspec.json.decode(own.read_bytes(), type=Outcome).ic == 0.3


def test_keeping_again_adds_to_what_is_kept(tmp_path):
    """A campaign that went on elsewhere loses nothing of what was kept before."""
    ran(tmp_path / "here", "aa", outcome(1))
    ran(tmp_path / "there", "aa", outcome(2))
    keep("aa", kept=tmp_path / "kept", ran=tmp_path / "here")
    assert keep("aa", kept=tmp_path / "kept", ran=tmp_path / "there")[1] == 2


@pytest.mark.parametrize("text", ['{"promoted": true}', "no json", '{"trial": 1, "promoted": false}'])
def test_a_line_that_is_no_outcome_is_named(tmp_path, text):
    """A file that somebody edited is not half believed."""
    path = tmp_path / "aa.jsonl"
    path.write_bytes(msgspec.json.encode(outcome()) + b"\n" + text.encode() + b"\n")
    with pytest.raises(BadInputError, match="line 2"):
        read(path)


def test_a_trial_told_of_twice_is_refused(tmp_path):
    """Which of the two would count is not guessed."""
    path = tmp_path / "aa.jsonl"
    path.write_bytes(2 * (msgspec.json.encode(outcome()) + b"\n"))
    with pytest.raises(BadInputError, match="twice"):
        read(path)


def test_only_time_and_last_digits_may_differ():
    """A verdict, its reasons and the number of trades have to be the same."""
    assert same(outcome(), outcome(seconds=99.0, ic=0.1 + 1e-9))
    for changes in ({"promoted": True}, {"refusals": ("skill",)}, {"trades": 8}, {"ic": 0.11}, {"failed": "no"}):
        assert not same(outcome(), outcome(**changes))


def test_what_was_not_as_kept_is_told():
    """The proof prints it; nothing is said where nothing was kept."""
    assert Again(0, ()).told(0) == ()
    assert Again(2, ("not as kept: x",)).told(5)[0] == "5 outcomes are the repository's; 2 run again, 1 as kept"
