"""Compiled: writing what is not read again soon past the processor's cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numba.core import cgutils, types
from numba.extending import intrinsic as typed_intrinsic

from feature_store.features.layout import B8, compiled

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Place = Any  # An unsigned number; range makes an int of it for whoever checks types.


def intrinsic(function: Callable[..., Any]) -> Any:
    """Return what compiled code calls to have instructions of its own put in its place."""
    return typed_intrinsic(function)


def _begin(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    return context.make_array(kind)(context, builder, array).data


@intrinsic
def _numbers_before(_typing: Any, array: Any) -> Any:
    # How many numbers lie between address 0 and the array: by it a line of the cache is found.
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = builder.ptrtoint(_begin(context, builder, signature.args[0], arguments[0]), cgutils.intp_t)
        return builder.lshr(address, address.type(3))

    return types.uint64(array), generate


@intrinsic
def _store_line(_typing: Any, goal: Any, at: Any, source: Any, begin: Any) -> Any:
    # Eight numbers at once: a whole line is not read from memory before it is overwritten.
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir  # noqa: PLC0415 - whoever only runs kept code has no use for it

        line = ir.VectorType(ir.DoubleType(), 8).as_pointer()
        to, frm = (
            builder.bitcast(
                builder.gep(_begin(context, builder, signature.args[one], arguments[one]), [arguments[one + 1]]), line
            )
            for one in (0, 2)
        )
        stored = builder.store(builder.load(frm, align=8), to, align=64)
        stored.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(goal, at, source, begin), generate


@intrinsic
def settled(_typing: Any) -> Any:
    """Have all that was written past the cache seen by other threads before what follows."""

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@compiled
def stream(w: Floats, source: Place, out: Floats, goal: Place, size: Place) -> None:
    """Copy numbers that lie side by side; the lines of the cache that they fill, past it."""
    head = min((B8 - (_numbers_before(out) + goal) % B8) % B8, size)
    for row in range(head):
        out[goal + row] = w[source + row]
    whole = head + (size - head) // B8 * B8
    for line in range((whole - head) // B8):
        _store_line(out, goal + head + line * B8, w, source + head + line * B8)
    for row in range(whole, size):
        out[goal + row] = w[source + row]
