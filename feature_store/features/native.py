"""The kernel as Python calls it: kept machine code where there is some, numba where there is none."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.errors import BadInputError
from feature_store.features.definition import FEATURES, MODEL_INPUTS, TAIL
from feature_store.features.machine_code import LoadedCode, MachineCodeError, read

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

BLOCK = 256
"""Candles that are computed at once at most."""

STATE_SIZE = 24
"""Numbers that the recursions of one series carry."""

FOLDER_VARIABLE = "QUANTUM_KERNEL_FOLDER"

_COLUMNS, _INPUTS = len(FEATURES), len(MODEL_INPUTS)
_HERE = Path(__file__).parent
_SOURCES = ("kernel.py", "compiling.py", "linking.py", "machine_code.py")
_WARM_SECONDS = 180
_log = logging.getLogger(__name__)

# Numba's calling convention: where a result and an error would be put (nothing is: the kernel does not raise), then
# the arguments; the status is 0.
_SIGNATURES = {
    "advance": ctypes.CFUNCTYPE(
        ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, *[ctypes.c_void_p] * 9
    ),
    "compute_inputs": ctypes.CFUNCTYPE(
        ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, *[ctypes.c_void_p] * 3
    ),
}


def advance(
    seen: int,
    bars: Floats,
    tail: Floats,
    state: Floats,
    warm_up: npt.NDArray[np.int64],
    out: Floats,
) -> None:
    """
    Compute the features of the next candles of one series.

    Args:
        seen: Candles of this series so far.
        bars: The next candles [k, 5]; any k gives the same bits.
        tail: The 64 candles before them [64, 5]; moved forward in place.
        state: What the recursions carry [STATE_SIZE]; moved forward in place.
        warm_up: Candles without a value at the start of a series, by feature [49].
        out: The features [k, 49]; NaN during warm-up.

    Raises:
        BadInputError: An array has another shape or type, or is not contiguous; nothing was computed.
    """
    rows = len(bars)
    given = (
        _address(bars, np.float64, (rows, 5)),
        _address(tail, np.float64, (TAIL, 5)),
        _address(state, np.float64, (STATE_SIZE,)),
        _address(warm_up, np.int64, (_COLUMNS,)),
    )
    result = _address(out, np.float64, (rows, _COLUMNS))
    size, offsets = _room(rows)
    room = np.empty(size)
    begin = room.ctypes.data
    starts = [begin + offset for offset in offsets]
    _check(functions()["advance"](begin, begin + 8, seen, rows, *given, *starts, result))


def compute_inputs(features: Floats, out: npt.NDArray[np.float32]) -> None:
    """
    Turn rows of features [n, 49] into rows of model inputs [n, inputs]; each row by itself.

    Raises:
        BadInputError: An array has another shape or type, or is not contiguous; nothing was computed.
    """
    rows = len(features)
    room = np.empty(2 + _INPUTS)
    begin = room.ctypes.data
    given = _address(features, np.float64, (rows, _COLUMNS))
    result = _address(out, np.float32, (rows, _INPUTS))
    _check(functions()["compute_inputs"](begin, begin + 8, rows, given, begin + 16, result))


@functools.lru_cache(maxsize=2 * BLOCK)
def _room(rows: int) -> tuple[int, tuple[int, ...]]:
    """Return how many numbers the kernel needs room for, and where the parts of it begin, in bytes."""
    # Result and error, then candles by column, what is computed per candle, features by column, sums.
    width = TAIL + rows
    sizes = (2, 5 * width, 5 * width, _COLUMNS * rows, 4 * (rows + 4))
    return sum(sizes), tuple(8 * sum(sizes[:at]) for at in range(1, len(sizes)))


def _address(array: npt.NDArray[Any], kind: type[np.generic], shape: tuple[int, ...]) -> int:
    # Machine code checks nothing: a wrong array would be memory that is not ours.
    if array.dtype != kind or array.shape != shape or not array.flags.c_contiguous:
        raise BadInputError(
            f"The kernel needs a contiguous {kind.__name__} array of shape {shape}, was {array.dtype} {array.shape}"
        )
    if array.size and array.flags.writeable:
        # A third of the time of `array.ctypes.data`; this runs eight times for each candle of each symbol.
        memory: Any = array
        return ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return array.ctypes.data


def _check(status: int) -> None:
    if status != 0:
        raise BadInputError(f"The kernel ended with status {status}, which no input should bring about; report it")


@functools.cache
def functions() -> dict[str, Callable[..., int]]:
    """Return the kernel's functions; the first call of a process finds them."""
    addresses = kept_addresses() or _fallen_back()
    return {name: _SIGNATURES[name](addresses[name]) for name in _SIGNATURES}


def is_portable() -> bool:
    """Whether machine code can be kept for this system."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


@functools.cache
def made_from() -> str:
    """Return the digest of all that decides the machine code: its source, our tools, numba's version."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((_HERE / name).read_bytes())
    for package in ("numba", "llvmlite"):
        digest.update(f"{package} {metadata.version(package)}\n".encode())
    return digest.hexdigest()


def files() -> list[Path]:
    """
    Return where machine code may be kept: beside the source, then what QUANTUM_KERNEL_FOLDER names.

    What set-up kept comes first: a service may write to the folder, and not to its own program.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    folders = [_HERE / "__pycache__", *([Path(named)] if named else [])]
    return [folder / f"kernel-{made_from()[:16]}.code" for folder in folders]


def kept_addresses() -> dict[str, int] | None:
    """Load kept machine code that is whole and was made from this source, or return None where there is none."""
    if not is_portable():
        return None
    for path in files():
        try:
            loaded = LoadedCode(read(path, made_from=made_from()))
        except MachineCodeError as error:
            if path.exists():
                _log.warning("kept machine code is not used: %s", error)
            continue
        if loaded.addresses.keys() >= _SIGNATURES.keys():
            _LOADED.append(loaded)
            return loaded.addresses
    return None


_LOADED: list[LoadedCode] = []


def _fallen_back() -> dict[str, int]:
    """Compile: in a process of its own, whose machine code is kept and read, or else in this one."""
    if is_portable():
        _log.warning("no kept machine code of the feature kernel; compiling it, which takes some seconds")
        command = [sys.executable, "-m", "feature_store.features.warm"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        try:
            subprocess.run(command, env=environment, timeout=_WARM_SECONDS, check=True, capture_output=True)
        except (OSError, subprocess.SubprocessError) as error:
            _log.warning("machine code could not be kept: %s", error)
        found = kept_addresses()
        if found is not None:
            return found
    _log.warning("numba compiles the feature kernel in this process: slower to start, and 60 MB more")
    from feature_store.features.compiling import numba_addresses  # noqa: PLC0415 - only who compiles pays for numba

    return numba_addresses()
