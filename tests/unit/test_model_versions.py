"""The registry as a table: when a version was trained, as far as its run says so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.telemetry.model_versions import version_row

REGISTERED = "2026-03-01T00:00:00+00:00"
VERSION = {"version": "3", "creation_timestamp": "1772323200000", "aliases": ["champion"]}


def row(created_at: str) -> dict[str, object]:
    return version_row(VERSION, {"params": [{"key": "created_at", "value": created_at}, {"key": "seed", "value": "7"}]})


@pytest.mark.parametrize(
    ("created_at", "trained_at"),
    [
        pytest.param("2026-02-28T22:30:00+00:00", "2026-02-28T22:30:00+00:00", id="as-logged"),
        pytest.param("2026-02-28T22:30:00.123456Z", "2026-02-28T22:30:00+00:00", id="to-the-second"),
        pytest.param("2026-02-28T23:30:00+01:00", "2026-02-28T22:30:00+00:00", id="another-zone"),
        pytest.param("2026-02-28T22:30:00", "2026-02-28T22:30:00+00:00", id="no-zone"),
        pytest.param("", REGISTERED, id="by-hand"),
        pytest.param("yesterday", REGISTERED, id="no-moment"),
        pytest.param("0001-01-01T00:00:00+14:00", REGISTERED, id="before-the-calendar"),
    ],
)
def test_a_version_was_trained_when_its_run_says(created_at, trained_at):
    """Registration comes an hour later, or a day: it stands in only where nothing is said."""
    assert row(created_at)["trained_at"] == trained_at
    assert row(created_at)["params"]["seed"] == "7"


@given(st.text())
def test_whatever_a_run_says_a_version_is_listed(created_at):
    """Parameters are anybody's text."""
    assert str(row(created_at)["trained_at"]).endswith("+00:00")


def test_a_version_without_a_run_is_listed():
    """One that was registered by hand has neither parameters nor figures."""
    assert (version_row(VERSION, {})["trained_at"], version_row(VERSION, {})["params"]) == (REGISTERED, {})
