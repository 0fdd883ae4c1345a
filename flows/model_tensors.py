"""What goes into a registered model and what comes out, as tensors with names: its signature, and an example."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.models.bundle import golden_inputs, read_manifest

Tensor = tuple[str, tuple[int, ...], str]
"""Type of the numbers, shape with -1 for rows, and name."""


def input_tensors(bundle: Path) -> tuple[Tensor, ...]:
    """Return what a bundle reads."""
    manifest = read_manifest(bundle)
    width, length = len(manifest.model_inputs), manifest.window
    return (
        ("float32", (-1, width), "inputs"),
        ("float32", (-1, length, width), "windows"),
        ("float32", (-1, length), "returns"),
    )


def output_tensors(bundle: Path) -> tuple[Tensor, ...]:
    """Return what a bundle answers, row for row."""
    manifest = read_manifest(bundle)
    members = (f"member_{one.name}" for one in manifest.members)
    heads = (f"head_{name}" for head in manifest.heads for name in head.outputs)
    floats = tuple(("float64", (-1,), name) for name in ("expected_return", "probability_up", *members, *heads))
    return (*floats, ("int64", (-1,), "consensus"))


def example(bundle: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Return one row of the golden vectors: what a stranger's first call may look like."""
    return {name: values[:1] for name, values in golden_inputs(bundle, read_manifest(bundle)).items()}
