"""The proof of the bias watch: its rate is that of fair coins, and it sees a watch that calls too often or too late."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import comb

import pytest

from infra.prove import supervision_bias
from infra.prove.supervision_bias import CHANGED, STATED, UNCHANGED, BiasRuns, judged


@pytest.fixture(scope="module")
def runs() -> BiasRuns:
    """Return forty runs of everything."""
    with ThreadPoolExecutor(1) as pool:
        return supervision_bias.lived(pool, 40)


def test_the_stated_rate_is_that_of_fair_coins():
    """More than fourteen of twenty on either side."""
    assert pytest.approx(2 * sum(comb(20, k) for k in range(15, 21)) / 2**20) == STATED


def test_what_was_run_is_as_stated(runs):
    """No lean calls nobody too often, and each change is called by its side within twenty candles."""
    found = judged(runs)

    assert found.holds
    assert all(0 < one <= 60 for lean in CHANGED for one in runs.delays[lean.name] if one is not None)
    assert len(found.details) == len(UNCHANGED) + 2 + len(runs.delays)


def test_a_watch_that_calls_too_often_is_seen(runs):
    """One kind above the bound is enough."""
    often = replace(runs, called={**runs.called, UNCHANGED[1].name: [True] * 8 + [False] * 32})

    assert not judged(often).holds


def test_a_change_that_is_not_called_is_seen(runs):
    """And one that was called by chance before it counts neither way."""
    late = replace(runs, delays={**runs.delays, CHANGED[0].name: [0] * 5 + [9] * 30 + [None] * 5})
    soon = replace(runs, delays={**runs.delays, CHANGED[0].name: [0] * 3 + [9] * 32 + [None] * 5})

    assert not judged(late).holds
    assert judged(soon).holds
