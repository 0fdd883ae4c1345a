"""What is not entered while a model says one thing of everything."""

from __future__ import annotations

from msgspec import UnsetType

from inference.domain.decision import DenyCode, Snapshot
from inference.domain.signal import SignalScore
from inference.risk.refusal import Refusal, refuse


def bias_refusal(signal: SignalScore, snapshot: Snapshot) -> Refusal | None:
    """Refuse the side that signals are biased to, where the snapshot says that this is enforced; exits go on."""
    bias = snapshot.bias
    if isinstance(bias, UnsetType) or not bias.is_bias or signal.direction is not bias.side:
        return None

    return refuse(
        DenyCode.SIGNALS_BIASED,
        direction=signal.direction,
        share=bias.share,
        limit=bias.limit,
        usual=bias.usual,
        candles=bias.candles,
    )
