"""Feature state as bytes and files: no pickle, checked by digest and by feature set."""

from __future__ import annotations

import hashlib
import io
import json
import tokenize
import zipfile
import zlib
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from feature_store.candle import Series, Timeframe
from feature_store.errors import BadInputError, CorruptFileError, FingerprintMismatchError
from feature_store.features.definition import fingerprint
from feature_store.features.engine import SeriesState
from feature_store.files import replace_bytes

if TYPE_CHECKING:
    from pathlib import Path

_REMEDY = "Remove it and run: qtctl features"
# One flipped bit may ask for a password, a compression that nobody knows, or a header that is half a statement.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
    SyntaxError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    OSError,
    RuntimeError,
    MemoryError,
)


def state_path(root: Path, series: Series) -> Path:
    """Return where the state of a series lives under QUANTUM_HOME/features."""
    return (
        root
        / "state"
        / f"exchange={series.venue}"
        / f"timeframe={series.timeframe}"
        / f"{quote(series.symbol, safe='')}.npz"
    )


def snapshot(series: Series, state: SeriesState) -> bytes:
    """Return the state of a series as the bytes of an .npz file."""
    arrays = state.arrays()
    meta = {
        "fingerprint": fingerprint(),
        "venue": series.venue,
        "symbol": series.symbol,
        "timeframe": str(series.timeframe),
        "last_open_time_ms": state.continuity.last_open_time_ms,
        "digest": _digest(arrays),
    }
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8), **arrays)
    return buffer.getvalue()


def restore(content: bytes) -> tuple[Series, SeriesState]:
    """
    Return the series and the state that `snapshot` wrote.

    Raises:
        BadInputError: The bytes are damaged.
        FingerprintMismatchError: Another feature set wrote them.
    """
    state = SeriesState()
    wanted = state.arrays()
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            meta = json.loads(stored["meta"].tobytes())
            found = {name: stored[name] for name in wanted}
        series = Series(meta["venue"], meta["symbol"], Timeframe.parse(meta["timeframe"]))
        made_with, digest = str(meta["fingerprint"]), str(meta["digest"])
    except _UNREADABLE as error:
        raise BadInputError(
            f"Expected a feature state, found bytes that cannot be read ({error}). {_REMEDY}"
        ) from error
    if made_with != fingerprint():
        raise FingerprintMismatchError(f"The feature state of {series.key}", fingerprint(), made_with, _REMEDY)
    if _digest(found) != digest:
        raise BadInputError(f"The feature state of {series.key} does not match its digest. {_REMEDY}")
    for name, array in wanted.items():
        if found[name].shape != array.shape or found[name].dtype != array.dtype:
            raise BadInputError(f"The feature state of {series.key} has a misshapen {name!r}. {_REMEDY}")
        array[...] = found[name]
    return series, state


def save_state(path: Path, series: Series, state: SeriesState) -> None:
    """Write the state of a series; the file is replaced as a whole."""
    replace_bytes(path, snapshot(series, state))


def load_state(path: Path, series: Series) -> SeriesState | None:
    """
    Return the stored state of a series, or None when there is none.

    Raises:
        CorruptFileError: The file is damaged or belongs to another series.
        FingerprintMismatchError: Another feature set wrote it.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        stored, state = restore(content)
    except BadInputError as error:
        raise CorruptFileError(path, str(error), "Nothing else is affected.") from error
    if stored != series:
        raise CorruptFileError(path, f"it holds {stored.key}, not {series.key}", _REMEDY)
    return state


def _digest(arrays: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
