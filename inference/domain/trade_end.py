"""Why trades end."""

from __future__ import annotations

from enum import StrEnum


class ExitReason(StrEnum):
    """Why a trade ended or must end."""

    STOP = "STOP"
    # The stop, moved to where a close loses nothing, or along behind the price.
    BREAK_EVEN = "BREAK_EVEN"
    TRAILING_STOP = "TRAILING_STOP"
    # The price came too near to where the venue liquidates.
    LIQUIDATION_BUFFER = "LIQUIDATION_BUFFER"
    TARGET = "TARGET"
    TIME_BARRIER = "TIME_BARRIER"
    # The venue would not hold a stop for it.
    UNPROTECTED = "UNPROTECTED"
    # The stop fired and did not fill.
    STOP_UNFILLED = "STOP_UNFILLED"
    OPERATOR = "OPERATOR"
    # The emergency stop closed it.
    EMERGENCY = "EMERGENCY"
    # Somebody else closed it: a person, a liquidation.
    EXTERNAL = "EXTERNAL"
    # The entry never executed.
    NOT_ENTERED = "NOT_ENTERED"
