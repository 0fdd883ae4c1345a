"""Frames as one block of bytes: what a training looked at, for a process elsewhere or a later try."""

from __future__ import annotations

import io
from dataclasses import fields

import msgspec
import numpy as np

from feature_store.errors import BadInputError
from flows.training.dataset import FrameSet, LearnedLabels, TrainingFrame

_HEAD = "head"
_LEARNED = tuple(field.name for field in fields(LearnedLabels))
_ARRAYS = ("open_time_ms", "inputs", "log_return", "close", "eligible", "late", "suspect")


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    symbols: tuple[str, ...]
    input_names: tuple[str, ...]
    feature_fingerprint: str
    timeframe_ms: int


def encode_frames(frames: FrameSet) -> bytes:
    """Write frames as an npz of plain arrays, without pickle; equal frames give equal bytes."""
    head = _Head(
        symbols=frames.symbols,
        input_names=frames.input_names,
        feature_fingerprint=frames.feature_fingerprint,
        timeframe_ms=frames.timeframe_ms,
    )
    arrays = {_HEAD: np.frombuffer(msgspec.json.encode(head), np.uint8)}
    for number, frame in enumerate(frames.frames):
        arrays |= {f"{number}/{name}": value for name in _ARRAYS if (value := getattr(frame, name)) is not None}
        if frame.learned is not None:
            arrays |= {f"{number}/learned/{name}": getattr(frame.learned, name) for name in _LEARNED}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def decode_frames(content: bytes) -> FrameSet:
    """
    Read frames back, equal to the bit.

    Raises:
        BadInputError: The bytes are not what `encode_frames` writes.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            head = msgspec.json.decode(found[_HEAD].tobytes(), type=_Head)
            frames = tuple(_frame(found, number, symbol) for number, symbol in enumerate(head.symbols))
    except (KeyError, ValueError, OSError, msgspec.MsgspecError) as error:
        raise BadInputError(f"These are no frames of a training: {error}; load the candles again") from error
    return FrameSet(frames, head.input_names, head.feature_fingerprint, head.timeframe_ms)


def _frame(found: np.lib.npyio.NpzFile, number: int, symbol: str) -> TrainingFrame:
    values = {name: found[f"{number}/{name}"] for name in _ARRAYS if f"{number}/{name}" in found}
    learned = None
    if f"{number}/learned/{_LEARNED[0]}" in found:
        learned = LearnedLabels(**{name: found[f"{number}/learned/{name}"] for name in _LEARNED})
    # Prices to trade at are for judging, not for training: they do not travel.
    return TrainingFrame(symbol=symbol, learned=learned, traded=None, **values)
