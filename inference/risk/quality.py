"""What is not entered because of what its signal was made from."""

from __future__ import annotations

from msgspec import UnsetType

from inference.domain.bias import BiasMode
from inference.domain.decision import DenyCode
from inference.domain.policy import Policy
from inference.domain.signal import SignalScore
from inference.risk.refusal import Refusal


def quality_refusal(signal: SignalScore, policy: Policy) -> Refusal | None:
    """
    Refuse a signal with a flag that the policy lets refuse: the first of them, with its numbers.

    A signal that nobody looked at, as in a journal from before there were flags, has none.
    """
    if policy.quality_mode is not BiasMode.ENFORCE or isinstance(signal.quality, UnsetType):
        return None
    flag = next((one for one in signal.quality if one.code in policy.refusing_flags), None)
    if flag is None:
        return None

    return Refusal(DenyCode.SIGNAL_QUALITY, {"flag": flag.code.value, **flag.context})
