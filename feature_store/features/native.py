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
import threading
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from feature_store.errors import BadInputError
from feature_store.features.definition import FEATURES, MODEL_INPUTS, TAIL, WINDOW
from feature_store.features.machine_code import LoadedCode, MachineCodeError, processor_levels, read

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

STATE_SIZE = 24
"""Numbers that the recursions of one series carry."""

COUNTERS = 8
"""What is counted of one series; engine.py names them."""

FOLDER_VARIABLE = "QUANTUM_KERNEL_FOLDER"

_COLUMNS, _INPUTS = len(FEATURES), len(MODEL_INPUTS)
_HERE = Path(__file__).parent
_SOURCES = (
    "layout.py",
    "windows.py",
    "averages.py",
    "recursions.py",
    "streaming.py",
    "inputs.py",
    "kernel.py",
    "compiling.py",
    "linking.py",
    "machine_code.py",
    "warm.py",
)
_ROOM = 107 * 320  # Rows and width of the kernel's room; a test holds them to layout.py.
_LINE = 64  # Bytes of a cache line.
_WARM_SECONDS = 180
_log = logging.getLogger(__name__)

# Numba's calling convention: where a result and an error would be put (nothing is: the kernel does not raise), then
# the arguments; the status is 0.
_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_int64
_ARGUMENTS = {
    "advance": "nnpnnpppppnn",
    "compute_inputs": "npnnpp",
    "check": "nppnp",
    "take_candles": "nppnpppppppppp",
}
_SIGNATURES = {
    name: ctypes.CFUNCTYPE(ctypes.c_int32, _POINTER, _POINTER, *[_NUMBER if one == "n" else _POINTER for one in kinds])
    for name, kinds in _ARGUMENTS.items()
}


class States(NamedTuple):
    """What several series carry, in arrays that lie one series behind the other."""

    tails: Floats
    """[n, 5, 64]"""
    recursions: Floats
    """[n, STATE_SIZE]"""
    counters: npt.NDArray[np.int64]
    """[n, COUNTERS]"""
    input_rings: npt.NDArray[np.float32]
    """[n, 64, inputs]"""
    return_rings: Floats
    """[n, 64]"""


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
        tail: The 64 candles before them [5, 64]; moved forward in place.
        state: What the recursions carry [STATE_SIZE]; moved forward in place.
        warm_up: Candles without a value at the start of a series, by feature [49].
        out: The features [k, 49], NaN during warm-up; in any layout, and fastest where columns are contiguous.

    Raises:
        BadInputError: An array has another shape or type, or is not contiguous; nothing was computed.
    """
    rows = len(bars)
    given = _address(bars, np.float64, (rows, 5))
    carried = (
        _address(tail, np.float64, (5, TAIL)),
        _address(state, np.float64, (STATE_SIZE,)),
        _address(warm_up, np.int64, (_COLUMNS,)),
    )
    result, row_step, column_step = _layout(out, (rows, _COLUMNS))
    room = _room()
    _check(
        functions()["advance"](
            room, room + 8, seen, rows, given, 5, 1, *carried, room + _LINE, result, row_step, column_step
        )
    )


def compute_inputs(features: Floats, out: npt.NDArray[np.float32]) -> None:
    """
    Turn rows of features [n, 49], in any layout, into rows of model inputs [n, inputs]; each row by itself.

    Raises:
        BadInputError: An array has another shape or type, or is not contiguous; nothing was computed.
    """
    rows = len(features)
    given = _layout(features, (rows, _COLUMNS))
    result = _address(out, np.float32, (rows, _INPUTS))
    room = _room()
    _check(functions()["compute_inputs"](room, room + 8, rows, *given, room + _LINE, result))


def check(open_time_ms: npt.NDArray[np.int64], bars: Floats, step_ms: int) -> tuple[int, int]:
    """
    Return how many candles no market could have made or are out of order, and how many follow a gap.

    Raises:
        BadInputError: An array has another shape or type, or is not contiguous.
    """
    rows = len(open_time_ms)
    if rows == 0:
        return 0, 0
    given = _address(open_time_ms, np.int64, (rows,)), _address(bars, np.float64, (rows, 5))
    found = np.empty(4, np.int64)
    place = found.ctypes.data
    _check(functions()["check"](place + 16, place + 24, rows, *given, step_ms, place))
    return int(found[0]), int(found[1])


def take_candles(
    places: npt.NDArray[np.int64],
    open_time_ms: npt.NDArray[np.int64],
    step_ms: int,
    bars: Floats,
    states: States,
    warm_up: npt.NDArray[np.int64],
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """
    Take in one closed candle of each of several series, by the rules of FeatureEngine.

    Args:
        places: Which series of `states` the candles belong to [n].
        open_time_ms: Their open times [n].
        step_ms: Milliseconds of one candle.
        bars: The candles [n, 5].
        states: Moved forward in place.
        warm_up: Candles without a value at the start of a series, by feature [49].

    Returns:
        Features [n, 49], and [n] what became of each candle: 1 taken in, 0 ignored, -1 refused. Features of a candle
        that was not taken in are undefined, and its state is as it was.

    Raises:
        BadInputError: An array has another shape or type, or is not contiguous; nothing was computed.
    """
    count, series = len(places), len(states.tails)
    if count and not 0 <= int(places.min()) <= int(places.max()) < series:
        raise BadInputError(f"The kernel needs places among {series} series, was given others")
    out, taken = np.empty((count, _COLUMNS)), np.empty(count, np.int64)
    given = _address(places, np.int64, (count,)), _address(open_time_ms, np.int64, (count,))
    carried = (
        _address(bars, np.float64, (count, 5)),
        _address(states.tails, np.float64, (series, 5, TAIL)),
        _address(states.recursions, np.float64, (series, STATE_SIZE)),
        _address(states.counters, np.int64, (series, COUNTERS)),
        _address(states.input_rings, np.float32, (series, WINDOW, _INPUTS)),
        _address(states.return_rings, np.float64, (series, WINDOW)),
        _address(warm_up, np.int64, (_COLUMNS,)),
    )
    room = _room()
    _check(
        functions()["take_candles"](
            room, room + 8, count, *given, step_ms, *carried, room + _LINE, out.ctypes.data, taken.ctypes.data
        )
    )
    return out, taken


def _room() -> int:
    """Return where this thread's room begins; one for each thread, since the kernel runs without Python's lock."""
    try:
        begin: int = _LOCAL.begin
    except AttributeError:
        _LOCAL.room = room = np.empty(_ROOM + 2 * _LINE // 8)
        _LOCAL.begin = begin = room.ctypes.data + -room.ctypes.data % _LINE
    return begin


_LOCAL = threading.local()


def _layout(array: Floats, shape: tuple[int, int]) -> tuple[int, int, int]:
    """Return where a table begins, and how many numbers are between two rows and two columns of it."""
    steps = array.strides[0] // 8, array.strides[-1] // 8
    if array.dtype != np.float64 or array.shape != shape or not array.flags.aligned or min(steps) < 0:
        raise BadInputError(f"The kernel needs a float64 array of shape {shape}, was {array.dtype} {array.shape}")
    return array.ctypes.data, *steps


def _address(array: npt.NDArray[Any], kind: type[np.generic], shape: tuple[int, ...]) -> int:
    # Machine code checks nothing: a wrong array would be memory that is not ours.
    if array.dtype != kind or array.shape != shape or not array.flags.c_contiguous:
        raise BadInputError(
            f"The kernel needs a contiguous {kind.__name__} array of shape {shape}, was {array.dtype} {array.shape}"
        )
    if array.size and array.flags.writeable:
        # A third of the time of `array.ctypes.data`; this runs seven times for each candle of each symbol.
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
        for level in processor_levels():
            names = {name: f"{name}@{level}" for name in _SIGNATURES}
            if loaded.addresses.keys() >= set(names.values()):
                _LOADED.append(loaded)
                return {name: loaded.addresses[full] for name, full in names.items()}
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
