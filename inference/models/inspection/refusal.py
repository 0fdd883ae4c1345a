"""Why a file of a bundle was not handed to the library that reads such files: a code and a sentence."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from inference.domain.errors import BundleError


class Fault(StrEnum):
    """What was wrong, as a name that alerts and tests can hold on to."""

    UNEXPECTED_FILE = "UNEXPECTED_FILE"
    NO_REGULAR_FILE = "NO_REGULAR_FILE"
    OVERSIZE = "OVERSIZE"
    UNREADABLE = "UNREADABLE"
    UNKNOWN_KIND = "UNKNOWN_KIND"
    DUPLICATE_KEY = "DUPLICATE_KEY"
    NOT_FINITE = "NOT_FINITE"
    STRUCTURE = "STRUCTURE"
    TRUNCATED = "TRUNCATED"
    TRAILING_BYTES = "TRAILING_BYTES"
    TOO_DEEP = "TOO_DEEP"
    FORBIDDEN_OPERATOR = "FORBIDDEN_OPERATOR"
    EXTERNAL_DATA = "EXTERNAL_DATA"
    BAD_TREE = "BAD_TREE"
    WRONG_WIDTH = "WRONG_WIDTH"
    BAD_ARCHIVE = "BAD_ARCHIVE"
    BAD_ARRAY = "BAD_ARRAY"
    LOOSE_TOLERANCE = "LOOSE_TOLERANCE"


class InspectionError(BundleError):
    """A file of a bundle is not what such files are; nothing was loaded from it. `fault` names what was wrong."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(f"{message} ({fault}); nothing of it was loaded. Download the bundle again, or train anew.")
        self.fault = fault


def require(holds: bool, fault: Fault, message: str | Callable[[], str]) -> None:  # noqa: FBT001 - an assertion.
    """
    Refuse unless something holds; a message that costs time may be a function.

    Raises:
        InspectionError: It does not hold.
    """
    if not holds:
        raise InspectionError(fault, message if isinstance(message, str) else message())
