"""Digests of what a training learns from, series by series."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from flows.training.config import TrainingConfig
from flows.training.dataset import FrameSet, TrainingFrame
from inference.models.data_fingerprint import DataFingerprint, data_digest
from inference.models.manifest import TrainingWindows


def data_fingerprint(frames: FrameSet, windows: TrainingWindows, config: TrainingConfig) -> DataFingerprint:
    """
    Return the digests of all candles that any part of a bundle sees.

    Candles from the end of the calibration window on are left out: nobody has seen them, so they must not matter.
    """
    seen = {frame.symbol: _seen(frame, windows.seen_until_ms) for frame in frames.frames}
    series = {symbol: digest for symbol, (digest, _) in seen.items()}
    candles = sum(count for _, count in seen.values())
    digest = data_digest(
        series=series,
        candles=candles,
        as_of=config.as_of,
        universe=config.universe,
        windows=windows.spans(),
        timeframe=config.timeframe,
        features=frames.feature_fingerprint,
    )
    return DataFingerprint(digest=digest, candles=candles, as_of=config.as_of, universe=config.universe, series=series)


def _seen(frame: TrainingFrame, until_ms: int) -> tuple[str, int]:
    """Return the digest of a series' candles before a moment, and how many they are."""
    n = int(np.searchsorted(frame.open_time_ms, until_ms))
    parts: list[tuple[str, npt.NDArray[Any]]] = [
        ("open_time_ms", frame.open_time_ms[:n].astype("<i8")),
        ("close", _plain(frame.close[:n], "<f8")),
        ("log_return", _plain(frame.log_return[:n], "<f8")),
        ("inputs", _plain(frame.inputs[:n], "<f4")),
    ]
    for name, marks in (("eligible", frame.eligible), ("late", frame.late)):
        if marks is not None:
            parts.append((name, marks[:n].astype("u1")))
    if frame.learned is not None:
        # A label that ends later is not learned, and would tell of candles that nobody has seen.
        known = (frame.learned.end_ms[:n] >= 0) & (frame.learned.end_ms[:n] <= until_ms)
        parts.append(("learned", _plain(np.where(known, frame.learned.value[:n], np.nan), "<f8")))
        parts.append(("learned_end_ms", np.where(known, frame.learned.end_ms[:n], -1).astype("<i8")))
    digest = hashlib.sha256()
    for name, values in parts:
        digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest(), n


def _plain(values: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    """Return values whose undefined numbers are all the same bits."""
    given = values.astype(dtype)
    return np.where(np.isnan(given), given.dtype.type(np.nan), given)
