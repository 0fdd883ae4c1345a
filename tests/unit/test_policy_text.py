"""A policy that is written is the policy that is read."""

from __future__ import annotations

import tempfile
from decimal import Decimal
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from inference.domain.policy import Policy
from inference.policy.policy_file import policy_text, read_policy

_multiples = st.decimals("0.000000001", "1000000000", allow_nan=False, allow_infinity=False)


@given(
    stop=_multiples,
    target=_multiples,
    holding=st.integers(1, 10**9),
    threshold=st.none() | st.floats(0.5, 0.99),
    note=st.text(st.characters(codec="ascii", categories=("L", "N", "P", "Zs"))),
)
def test_a_written_policy_is_read_as_it_was(
    stop: Decimal, target: Decimal, holding: int, threshold: float | None, note: str
) -> None:
    """To the last digit, and whatever the note above it says."""
    policy = Policy(
        stop_atr_multiple=stop,
        target_atr_multiple=target,
        max_holding_candles=holding,
        confidence_threshold=threshold,
        min_notional=Decimal("1E+2"),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.toml"
        path.write_text(policy_text(policy, note))
        assert read_policy(path) == policy
