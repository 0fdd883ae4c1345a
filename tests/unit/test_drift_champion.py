"""A champion of whose training nothing can be read: said, and in the way of no retraining."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flows import drift as flow
from flows import retrain
from flows.registered import RegistryError

SETTINGS = SimpleNamespace(registry_address="http://127.0.0.1:9")


@pytest.mark.parametrize("report", ["", "{}", "[" * 9_000])
def test_a_report_that_cannot_be_read_is_named_with_its_version(monkeypatch, report):
    """Registered by hand, or by another release: the sentence says of which version."""
    registry = SimpleNamespace(
        champion=lambda: SimpleNamespace(version="7", run_id="r"), read_text=lambda _run, _name: report
    )
    monkeypatch.setattr(flow, "Registry", lambda _address: registry)

    with pytest.raises(RegistryError, match="report on the training of version 7 cannot be read"):
        flow.find_champion.fn(SETTINGS)


@pytest.mark.parametrize("error", [RegistryError("no report"), ValueError("no number"), TimeoutError()])
def test_what_drift_cannot_tell_keeps_no_job_from_training(monkeypatch, error):
    """Else nothing could ever take the place of such a champion."""
    said = []

    def fails(**_asked):
        raise error

    monkeypatch.setattr(retrain, "drift", fails)
    monkeypatch.setattr(retrain, "say", lambda text, *words: said.append(text % words))
    retrain._look_for_drift(None)

    assert said == [f"Drift was not looked for: {str(error) or 'TimeoutError'}"]
