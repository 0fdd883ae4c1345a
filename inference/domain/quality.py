"""What may be wrong with what a signal was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class QualityCode(StrEnum):
    """Kinds of what may be wrong."""

    STALE_DATA = "STALE_DATA"
    NO_QUOTE = "NO_QUOTE"
    WIDE_SPREAD = "WIDE_SPREAD"
    THIN_VOLUME = "THIN_VOLUME"
    INPUT_MISSING = "INPUT_MISSING"
    INPUT_OUT_OF_RANGE = "INPUT_OUT_OF_RANGE"
    FAR_FROM_TRAINING = "FAR_FROM_TRAINING"


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityFlag:
    """One thing found, with the numbers as text, as a refusal has them."""

    code: QualityCode
    context: Mapping[str, str]
