"""How long a challenger is tried before another may take its place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from flows.promote import keeps_its_turn
from flows.registered import RegisteredVersion

NOW = datetime(2026, 3, 10, tzinfo=UTC)


def _challenger(days: float | None, verdict: str = "held") -> RegisteredVersion:
    since = "" if days is None else (NOW - timedelta(days=days)).isoformat()
    return RegisteredVersion(
        version="5", run_id="r", aliases=("challenger",), tags={"gate_verdict": verdict, "held_since": since}
    )


@pytest.mark.parametrize(
    ("challenger", "mode", "keeps"),
    [
        pytest.param(_challenger(2), "testnet", True, id="tried-for-two-days"),
        pytest.param(_challenger(6.9), "live", True, id="almost-a-week"),
        pytest.param(_challenger(7.1), "live", False, id="a-week-is-enough"),
        pytest.param(_challenger(2), "paper", False, id="replayed-candles-suffice"),
        pytest.param(_challenger(2, "refused"), "live", False, id="refused"),
        pytest.param(_challenger(2, "passed"), "live", False, id="passed"),
        pytest.param(_challenger(None), "live", False, id="since-nobody-knows"),
        pytest.param(None, "live", False, id="there-is-none"),
    ],
)
def test_a_challenger_on_live_candles_keeps_its_turn(challenger, mode, keeps):
    """Only one that is held back, where live candles are asked for, and for a week at most."""
    assert keeps_its_turn(challenger, mode, NOW) is keeps
