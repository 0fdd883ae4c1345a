"""All files that a manifest names, each taken apart by the check of its kind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from inference.models.inspection.lightgbm_text import inspect_lightgbm
from inference.models.inspection.npz_archive import Array, read_arrays
from inference.models.inspection.onnx_graph import inspect_onnx
from inference.models.inspection.refusal import Fault, InspectionError, require
from inference.models.inspection.xgboost_model import inspect_xgboost
from inference.models.manifest import FileEntry, Golden, Manifest

MAX_TOLERANCE = 1e-5
"""The most that golden outputs may be off, in standard deviations of a prediction; a manifest may ask for less only."""
LEAST_SPREAD = 1e-9
"""Predictions that spread less than this count as spreading as much: the last bit needs room."""

_MAX_TOTAL = 512 * 2**20
_SUFFIXES = {"xgboost": "ubj", "lightgbm": "txt"}


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file with what the manifest says of the model in it: its kind, and how many inputs a row has."""

    file: FileEntry
    kind: str
    width: int

    @property
    def suffix(self) -> str:
        """What the name ends with."""
        return self.file.name.rpartition(".")[2]


def named_files(manifest: Manifest) -> tuple[NamedFile, ...]:
    """
    Return every file that the manifest names anywhere, golden vectors included, each once.

    Raises:
        InspectionError: A name stands for two contents, or all files together are larger than 512 MiB.
    """
    found: dict[str, NamedFile] = {}
    for one in _files(manifest, kind="", width=0):
        other = found.setdefault(one.file.name, one)
        require(other == one, Fault.DUPLICATE_KEY, f"The manifest says two things of {one.file.name}")
    total = sum(one.file.size for one in found.values())
    require(total <= _MAX_TOTAL, Fault.OVERSIZE, f"The manifest's files have {total} bytes together")
    return tuple(found.values())


def _files(value: object, kind: str, width: int) -> Iterator[NamedFile]:
    """Walk through the manifest; a file belongs to the nearest entry around it that says what it is."""
    if isinstance(value, FileEntry):
        yield NamedFile(value, kind, width)
    elif isinstance(value, Golden):
        yield NamedFile(value.file, "golden", 0)
    elif isinstance(value, msgspec.Struct):
        inputs = getattr(value, "inputs", None)
        stated = getattr(value, "kind", None)
        for name in value.__struct_fields__:
            yield from _files(
                getattr(value, name),
                kind if stated is None else str(stated),
                len(inputs) if isinstance(inputs, tuple) else width,
            )
    elif isinstance(value, tuple):
        for one in value:
            yield from _files(one, kind, width)


def inspect_file(named: NamedFile, content: bytes, what: str) -> None:
    """
    Take one model's file apart.

    Raises:
        InspectionError: It is not what such files are, or no check knows its kind.
    """
    expected = _SUFFIXES.get(named.kind, "onnx" if named.kind.startswith("onnx") else named.suffix)
    require(
        named.suffix == expected,
        Fault.UNKNOWN_KIND,
        f"{what} is of kind {named.kind}, whose files end with .{expected}",
    )
    if named.suffix == "ubj":
        inspect_xgboost(content, named.width, what)
    elif named.suffix == "txt":
        inspect_lightgbm(content, named.width, what)
    elif named.suffix == "onnx":
        inspect_onnx(content, what)
    else:
        raise InspectionError(Fault.UNKNOWN_KIND, f"{what} is of a kind that nothing here can check")


def read_golden(manifest: Manifest, content: bytes, needed: frozenset[str], what: str) -> Mapping[str, Array]:
    """
    Return the golden vectors: inputs [n, M], windows [n, 64, M], returns [n, 64] and one number a row of each output.

    How closely outputs must be reproduced is the manifest's to say only within what the vectors themselves bear out.

    Raises:
        InspectionError: Arrays are missing, of other shapes, not finite, or the tolerance is looser than it may be.
    """
    golden = manifest.golden
    outputs = frozenset(golden.prediction_scale)
    inputs = frozenset({"inputs", "windows", "returns"})
    require(
        needed - inputs <= outputs,
        Fault.LOOSE_TOLERANCE,
        lambda: f"{what} has no tolerance for {sorted(needed - inputs - outputs)[:4]}",
    )
    arrays = read_arrays(content, inputs | outputs, what)
    n, width = golden.rows, len(manifest.model_inputs)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(outputs, (n,))
    shapes |= {"inputs": (n, width), "windows": (n, manifest.window, width), "returns": (n, manifest.window)}
    wrong = {name: one.shape for name, one in arrays.items() if one.shape != shapes[name]}
    require(n >= 1 and not wrong, Fault.BAD_ARRAY, f"{what} should have {n} rows, has the shapes {wrong}")
    require(
        0 < golden.tolerance <= MAX_TOLERANCE,
        Fault.LOOSE_TOLERANCE,
        f"{what} may be off by {golden.tolerance:g}, at most {MAX_TOLERANCE:g} is ever allowed",
    )
    for name in outputs:
        spread = max(float(arrays[name].std()), LEAST_SPREAD)
        require(
            math.isclose(golden.prediction_scale[name], spread, rel_tol=1e-6),
            Fault.LOOSE_TOLERANCE,
            f"{what}: {name} spreads by {spread:.3g}, the manifest says {golden.prediction_scale[name]:.3g}",
        )
    return arrays


def check_finite(value: object, what: str = "The manifest") -> None:
    """
    Refuse numbers that are none, wherever in a manifest they stand.

    Raises:
        InspectionError: There is one.
    """
    if isinstance(value, float):
        require(math.isfinite(value), Fault.NOT_FINITE, f"{what} is {value}")
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            check_finite(getattr(value, name), f"{what}: {name}")
    elif isinstance(value, dict):
        for key, one in value.items():
            check_finite(one, f"{what}: {key}")
    elif isinstance(value, tuple):
        _check_row(value, what)


def _check_row(values: tuple[Any, ...], what: str) -> None:
    if all(isinstance(one, float) for one in values):
        require(
            bool(np.isfinite(values).all()) if values else True, Fault.NOT_FINITE, f"{what} holds numbers that are none"
        )
        return
    for one in values:
        check_finite(one, what)
