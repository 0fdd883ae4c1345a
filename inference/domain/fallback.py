"""What may be done about a model whose live opinions are poor."""

from __future__ import annotations

from enum import StrEnum


class Fallback(StrEnum):
    """What is done, from nothing to the strictest; exits are taken in each of them."""

    NONE = "none"
    SHRINK = "shrink"
    STOP = "stop"
    BACK = "back"


class FallbackMode(StrEnum):
    """Whether it is only told, or done."""

    OBSERVE = "observe"
    ENFORCE = "enforce"
