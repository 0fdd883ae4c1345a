"""Figures of a replay say what a worker does by the same policy that no replay does."""

from __future__ import annotations

from decimal import Decimal

import pytest

from flows.unreplayed import not_replayed
from inference.domain.bias import BiasMode
from inference.domain.policy import Policy


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Policy(), ()),
        (Policy(committee_mode=BiasMode.ENFORCE), ("committee_mode may refuse",)),
        (Policy(bias_mode=BiasMode.ENFORCE, breaker_errors=3), ("bias_mode and breaker_errors may refuse",)),
        (
            Policy(quality_mode=BiasMode.ENFORCE, refusing_flags=("STALE_DATA",)),
            ("quality_mode may refuse",),
        ),
        # A replay tells regimes as the worker does.
        (Policy(unknown_regime_size=Decimal("0.5"), regime_sizes=("crash=0",)), ()),
    ],
)
def test_what_is_left_out_is_said(policy, words):
    """By the policy itself, and by its rules as a report keeps them in text."""
    for stated in (policy.stated(), {name: str(value) for name, value in policy.stated().items()}):
        told = not_replayed(stated)
        assert len(told) == len(words)
        assert all(word in one for word, one in zip(words, told, strict=True))
