"""The states of all symbols of a worker in one file: no pickle, checked by digest and by feature set."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from feature_store.errors import CorruptFileError, FingerprintMismatchError
from feature_store.features.definition import MODEL_INPUTS, TAIL, WINDOW, fingerprint
from feature_store.features.native import COUNTERS, STATE_SIZE, States
from feature_store.files import replace_bytes

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

_MAGIC = b"QTSTATES2\n"
_DIGEST, _LENGTH = 32, 4
_MAX_BYTES = 2**28
_REMEDY = "Remove it: states are read from candles again."
_SHAPES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "tails": (np.float64, (5, TAIL)),
    "recursions": (np.float64, (STATE_SIZE,)),
    "counters": (np.int64, (COUNTERS,)),
    "input_rings": (np.float32, (WINDOW, len(MODEL_INPUTS))),
    "return_rings": (np.float64, (WINDOW,)),
}


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    fingerprint: str
    venue: str
    timeframe: str
    symbols: tuple[str, ...]


class StoredStates(NamedTuple):
    """What a file holds."""

    venue: str
    timeframe: str
    symbols: tuple[str, ...]
    states: States

    def last_open_time_ms(self, symbol: str) -> int | None:
        """Open time of the newest candle of a symbol, or None."""
        return int(self.states.counters[self.symbols.index(symbol), 2]) if symbol in self.symbols else None


def states_path(root: Path, venue: str, timeframe: str) -> Path:
    """Return where the states of all symbols live, beside those of single series."""
    return root / "state" / f"exchange={venue}" / f"timeframe={timeframe}" / "all.states"


def write_states(path: Path, stored: StoredStates) -> None:
    """Write the states of several symbols; the file is replaced as a whole."""
    header = msgspec.json.encode(_Header(fingerprint(), stored.venue, stored.timeframe, stored.symbols))
    arrays = [np.ascontiguousarray(array).tobytes() for array in stored.states]
    payload = b"".join([len(header).to_bytes(_LENGTH, "little"), header, *arrays])
    replace_bytes(path, _MAGIC + hashlib.sha256(payload).digest() + payload)


def read_states(path: Path) -> StoredStates | None:
    """
    Return what `write_states` wrote, None where there is no file.

    Raises:
        CorruptFileError: The file is damaged.
        FingerprintMismatchError: Another feature set wrote it.
    """
    try:
        with path.open("rb") as file:
            content = memoryview(file.read(_MAX_BYTES + 1))
    except FileNotFoundError:
        return None
    start = len(_MAGIC) + _DIGEST
    payload = content[start:]
    if bytes(content[: len(_MAGIC)]) != _MAGIC or len(content) > _MAX_BYTES:
        raise CorruptFileError(path, "it is no file of feature states", _REMEDY)
    if hashlib.sha256(payload).digest() != bytes(content[len(_MAGIC) : start]):
        raise CorruptFileError(path, "its digest differs from its content", _REMEDY)
    length = int.from_bytes(payload[:_LENGTH], "little")
    try:
        header = msgspec.json.decode(payload[_LENGTH : _LENGTH + length], type=_Header)
        if header.fingerprint != fingerprint():
            raise FingerprintMismatchError(f"The feature states in {path}", fingerprint(), header.fingerprint, _REMEDY)
        states = _arrays(payload[_LENGTH + length :], len(header.symbols))
    except (msgspec.DecodeError, ValueError) as error:
        raise CorruptFileError(path, f"it cannot be read ({error})", _REMEDY) from error
    return StoredStates(header.venue, header.timeframe, header.symbols, states)


def _arrays(content: memoryview, count: int) -> States:
    arrays, begin = {}, 0
    for name, (kind, shape) in _SHAPES.items():
        size = count * int(np.prod(shape)) * np.dtype(kind).itemsize
        arrays[name] = np.frombuffer(content[begin : begin + size], kind).reshape(count, *shape)
        begin += size
    if begin != len(content):
        raise ValueError(f"expected {begin} bytes of states, found {len(content)}")
    return States(**arrays)
