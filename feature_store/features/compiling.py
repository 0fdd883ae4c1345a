"""The kernel turned into machine code by numba; imported at set-up, and where kept code cannot be used."""

from __future__ import annotations

import re
from typing import Any

import llvmlite.binding
import numba as typed_numba

from feature_store.features import kernel, layout
from feature_store.features.linking import Block, link
from feature_store.features.machine_code import IMPORTABLE, LEVELS

# Both libraries' annotations are partial.
numba: Any = typed_numba
llvm: Any = llvmlite.binding
carray, int64 = numba.carray, numba.int64
_F8, _I8, _F4 = (numba.types.CPointer(kind) for kind in (numba.float64, numba.int64, numba.float32))
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": False,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
_ROOM = layout.ROWS * layout.WIDTH
_MOST = 2**40  # Numbers behind a pointer: more than there are, since lengths are checked in front of the kernel.


def _advance(  # noqa: PLR0917 - machine code takes its arguments one by one
    seen: int,
    rows: int,
    bars: Any,
    bar_step: int,
    column_step: int,
    tail: Any,
    state: Any,
    warm_up: Any,
    room: Any,
    out: Any,
    out_row_step: int,
    out_column_step: int,
) -> None:
    kernel.advance(
        seen,
        rows,
        carray(bars, (_MOST,)),
        bar_step,
        column_step,
        carray(tail, (5 * layout.TAIL,)),
        carray(state, (layout.STATE_SIZE,)),
        carray(warm_up, (layout.FEATURE_COUNT,)),
        carray(room, (_ROOM,)),
        carray(out, (_MOST,)),
        out_row_step,
        out_column_step,
    )


def _compute_inputs(rows: int, features: Any, row_step: int, column_step: int, room: Any, out: Any) -> None:
    kernel.compute_inputs(
        rows, carray(features, (_MOST,)), row_step, column_step, carray(room, (_ROOM,)), carray(out, (_MOST,))
    )


def _check(rows: int, times: Any, bars: Any, step_ms: int, found: Any) -> None:
    kernel.check(rows, carray(times, (_MOST,)), carray(bars, (_MOST,)), step_ms, carray(found, (2,)))


def _take_candles(  # noqa: PLR0917
    count: int,
    places: Any,
    times: Any,
    step_ms: int,
    bars: Any,
    tails: Any,
    states: Any,
    counters: Any,
    inputs: Any,
    returns: Any,
    warm_up: Any,
    room: Any,
    out: Any,
    taken: Any,
) -> None:
    kernel.take_candles(
        count,
        carray(places, (_MOST,)),
        carray(times, (_MOST,)),
        step_ms,
        carray(bars, (_MOST,)),
        carray(tails, (_MOST,)),
        carray(states, (_MOST,)),
        carray(counters, (_MOST,)),
        carray(inputs, (_MOST,)),
        carray(returns, (_MOST,)),
        carray(warm_up, (layout.FEATURE_COUNT,)),
        carray(room, (_ROOM,)),
        carray(out, (_MOST,)),
        carray(taken, (_MOST,)),
    )


_FUNCTIONS: dict[str, tuple[Any, Any]] = {
    "advance": (
        _advance,
        numba.void(int64, int64, _F8, int64, int64, _F8, _F8, _I8, _F8, _F8, int64, int64),
    ),
    "compute_inputs": (_compute_inputs, numba.void(int64, _F8, int64, int64, _F8, _F4)),
    "check": (_check, numba.void(int64, _I8, _F8, int64, _I8)),
    "take_candles": (
        _take_candles,
        numba.void(int64, _I8, _I8, int64, _F8, _F8, _F8, _I8, _F4, _F8, _I8, _F8, _F8, _I8),
    ),
}


def _compiled(name: str) -> Any:
    function, signature = _FUNCTIONS[name]
    dispatcher = numba.njit(signature, **_OPTIONS)(function)
    return dispatcher.overloads[signature.args]


def numba_addresses() -> dict[str, int]:
    """Return where numba put the functions it compiled for this machine, in this process."""
    results = {name: _compiled(name) for name in _FUNCTIONS}
    _KEPT.extend(results.values())
    return {
        name: result.library.get_pointer_to_function(result.fndesc.llvm_func_name) for name, result in results.items()
    }


_REFERENCE_COUNT = re.compile(r"^.*call void @NRT_(?:incref|decref)\(.*$", re.MULTILINE)
_KEPT: list[Any] = []  # Code lives as long as what numba made of it.


def portable_block() -> Block:
    """
    Return the kernel as machine code for x86-64 processors of several levels, that needs nothing but the C library.

    Numba compiles for the processor it is told of first, so this wants a process of its own: `warm`.

    Raises:
        LinkError: Numba made something that stands not by itself.
    """
    results = {name: _compiled(name) for name in _FUNCTIONS}
    objects = []
    for level, processor in LEVELS.items():
        for name, result in results.items():
            symbol = result.fndesc.llvm_func_name
            content = _object(result.library.get_llvm_str(), symbol, processor)
            objects.append((f"{name}@{level}", symbol, content))
    return link(objects, IMPORTABLE)


def _object(source: str, symbol: str, processor: str) -> bytes:
    # The arrays are views of memory that the caller owns, so that nobody counts references to it.
    module = llvm.parse_assembly(_REFERENCE_COUNT.sub("", source))
    for one in (*module.functions, *module.global_variables):
        if not one.is_declaration and one.name != symbol:
            one.linkage = "internal"
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=processor, features="", opt=3, reloc="pic", codemodel="small"
    )
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    content: bytes = machine.emit_object(module)
    return content
