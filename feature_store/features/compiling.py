"""The kernel turned into machine code by numba; imported at set-up, and where kept code cannot be used."""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numba as typed_numba

from feature_store.features import kernel
from feature_store.features.linking import Block, link
from feature_store.features.machine_code import IMPORTABLE

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


def _advance(  # noqa: PLR0917 - machine code takes its arguments one by one
    seen: int,
    rows: int,
    bars: Any,
    tail: Any,
    state: Any,
    warm_up: Any,
    joined: Any,
    series: Any,
    cols: Any,
    work: Any,
    out: Any,
) -> None:
    kernel.advance(
        seen,
        carray(bars, (rows, 5)),
        carray(tail, (kernel.TAIL, 5)),
        carray(state, (kernel.STATE_SIZE,)),
        carray(warm_up, (49,)),
        carray(joined, (5, kernel.TAIL + rows)),
        carray(series, (5, kernel.TAIL + rows)),
        carray(cols, (49, rows)),
        carray(work, (4, rows + 4)),
        carray(out, (rows, 49)),
    )


def _compute_inputs(rows: int, features: Any, row_out: Any, out: Any) -> None:
    kernel.compute_inputs(
        carray(features, (rows, 49)), carray(row_out, (kernel.INPUTS,)), carray(out, (rows, kernel.INPUTS))
    )


_FUNCTIONS: dict[str, tuple[Any, Any]] = {
    "advance": (_advance, numba.void(int64, int64, _F8, _F8, _F8, _I8, _F8, _F8, _F8, _F8, _F8)),
    "compute_inputs": (_compute_inputs, numba.void(int64, _F8, _F8, _F4)),
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


_KEPT: list[Any] = []  # Code lives as long as what numba made of it.


def portable_block() -> Block:
    """
    Return the kernel as machine code that any x86-64 processor runs, and that needs nothing but the C library.

    Numba compiles for the processor it is told of first, so this wants a process of its own: `warm`.

    Raises:
        LinkError: Numba made something that stands not by itself.
    """
    # For no processor in particular: the code may be kept in an image and moved; sums have the same order anyway.
    numba.config.CPU_NAME, numba.config.CPU_FEATURES = "x86-64", ""
    objects = []
    for name in _FUNCTIONS:
        result = _compiled(name)
        symbol = result.fndesc.llvm_func_name
        objects.append((name, symbol, _object(result.library.get_llvm_str(), symbol)))
    return link(objects, IMPORTABLE)


def _object(source: str, symbol: str) -> bytes:
    module = llvm.parse_assembly(source)
    for one in (*module.functions, *module.global_variables):
        if not one.is_declaration and one.name != symbol:
            one.linkage = "internal"
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu="x86-64", features="", opt=3, reloc="pic", codemodel="small"
    )
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3)))
    content: bytes = machine.emit_object(module)
    return content
