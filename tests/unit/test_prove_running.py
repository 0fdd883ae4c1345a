"""How proofs are run: in order, and one that breaks hides no other."""

from __future__ import annotations

import pytest

from infra.prove.proof import Size
from infra.prove.running import COMPUTING, results


def test_what_breaks_is_not_held_and_hides_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    """Two proofs that do not exist are two that are not held."""
    found = [proof for proof, _seconds in results(["no-such", "nor-this"], Size.CI, lanes=1)]
    assert sorted((proof.name, proof.holds) for proof in found) == [("no-such", False), ("nor-this", False)]
    assert "No module named" in found[0].figure
    assert capsys.readouterr().out.splitlines() == ["── prove-no-such (ci) ──", "── prove-nor-this (ci) ──"]


def test_what_only_computes_is_run_in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same holds for those that run beside each other."""
    monkeypatch.setattr("infra.prove.running.COMPUTING", COMPUTING | {"no-such", "nor-this"})
    found = [proof for proof, _seconds in results(["no-such", "nor-this"], Size.CI, lanes=2)]
    assert sorted((proof.name, proof.holds) for proof in found) == [("no-such", False), ("nor-this", False)]


@pytest.mark.parametrize("lanes", [1, 2])
def test_nothing_begins_when_time_is_over(monkeypatch: pytest.MonkeyPatch, lanes: int) -> None:
    """A limit of no time runs nothing, alone or in processes."""
    monkeypatch.setattr("infra.prove.running.COMPUTING", COMPUTING | {"no-such", "nor-this"})
    assert list(results(["no-such", "nor-this"], Size.CI, lanes=lanes, limit_s=-1.0)) == []
