"""What a bundle was learned from, as digests: the same candles, windows, moment and universe give the same digest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import msgspec

_SHA256 = re.compile(r"[0-9a-f]{64}")


class DataFingerprint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    The data behind a bundle.

    `series` holds, by symbol, the SHA-256 of what was learned from one series: times, closes, returns, model inputs
    and labels of all candles that any part of the bundle has seen; `candles` is how many they are in all. `as_of` is
    the moment as of which they were read, None the present; `universe` the fingerprint of its rules, None all symbols.
    `digest` covers all of this with the windows, the timeframe and the features.
    """

    digest: str
    candles: int
    as_of: str | None
    universe: str | None
    series: dict[str, str]

    def __post_init__(self) -> None:
        """Refuse digests that are none."""
        for name, digest in [("the data", self.digest), *self.series.items()]:
            if _SHA256.fullmatch(digest) is None:
                raise ValueError(f"The fingerprint of {name} must be a SHA-256, was {digest[:80]!r}")


def data_digest(
    *,
    series: Mapping[str, str],
    candles: int,
    as_of: str | None,
    universe: str | None,
    windows: Mapping[str, tuple[int, int]],
    timeframe: str,
    features: str,
) -> str:
    """Return the SHA-256 over everything that decides what there was to learn; no order changes it."""
    said = {
        "series": dict(series),
        "candles": candles,
        "as_of": as_of,
        "universe": universe,
        "windows": {name: list(span) for name, span in windows.items()},
        "timeframe": timeframe,
        "features": features,
    }
    return hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()
