"""From fitted members to a bundle on disk, refused unless the exports answer as the training libraries did."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feature_store.errors import QuantumError
from flows.training.dataset import Dataset, Floats, Rows
from flows.training.members.base import Export, FittedMember, write_file
from inference.models import manifest as manifests
from inference.models.bundle import GOLDEN_NAME, golden_outputs, this_platform
from inference.models.ensemble import Ensemble, Member, open_member
from inference.models.inspection.contents import LEAST_SPREAD, MAX_TOLERANCE
from inference.models.manifest import (
    MANIFEST_NAME,
    Golden,
    Manifest,
    MemberEntry,
)
from inference.models.market_move import without_market

PARITY = MAX_TOLERANCE
"""The most that a net's export may differ, in standard deviations of its predictions; trees may not differ at all."""

_NOTHING = 1e-6
"""A spread below a hundredth of a basis point is none: where nothing was learned, rounding is all that varies."""


class ExportParityError(QuantumError):
    """A member's file does not answer as the trained member does."""


@dataclass(frozen=True, slots=True, eq=False)
class ExportedMember:
    """A member's file, opened as the worker opens it, and how far it is from what was trained."""

    entry: Export
    member: Member
    parity: float


def export_member(fitted: FittedMember, dataset: Dataset, sample: Rows, folder: Path) -> ExportedMember:
    """
    Write a member's file, open it again, and compare.

    Raises:
        ExportParityError: The file answers differently.
    """
    export = fitted.export(folder)
    entry = MemberEntry(
        name=fitted.name, kind=export.kind, file=export.file, weight=1.0, scale=export.raw_scale, inputs=export.inputs,
        draws=export.draws,
    )  # fmt: skip
    contents = [(folder / file.name).read_bytes() for file in entry.files]
    member = open_member(entry, contents[0], dataset.input_names, contents)
    trained, exported = fitted.predict(dataset, sample), predict_rows(member, dataset, sample)
    spread = float(trained.std())
    worst = float(np.max(np.abs(trained - exported)))
    within = (
        worst <= PARITY * max(spread, _NOTHING)
        if export.kind in ("onnx", "onnx_rows")
        else np.array_equal(trained, exported)
    )
    if not within or not np.isfinite(exported).all():
        raise ExportParityError(
            f"{export.file.name} differs from the trained {fitted.name} by {worst:.3g} on {len(sample)} rows, "
            f"predictions spread {spread:.3g}; do not use it, the exporter or its versions are at fault"
        )
    return ExportedMember(export, member, worst / spread if spread > 0 else 0.0)


def predict_rows(member: Member, dataset: Dataset, rows: Rows) -> Floats:
    """Return one member's predictions, in batches that fit in memory."""
    parts = [
        member.predict(dataset.inputs(part), dataset.windows(part), dataset.returns(part))
        for part in dataset.batches(rows)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def predict_members(
    members: Mapping[str, Member], dataset: Dataset, rows: Rows, market_share: float
) -> dict[str, Floats]:
    """
    Return every member's predictions; the windows of a batch are gathered once for all of them.

    A share of what a member says of all series of a moment alike is taken off, as the ensemble does.
    """
    parts: dict[str, list[Floats]] = {name: [] for name in members}
    for part in dataset.batches(rows) if members else ():
        arrays = (dataset.inputs(part), dataset.windows(part), dataset.returns(part))
        for name, member in members.items():
            parts[name].append(member.predict(*arrays))
    whole = {name: np.concatenate(found) if found else np.empty(0) for name, found in parts.items()}
    return {name: without_market(values, rows.open_time_ms, market_share) for name, values in whole.items()}


def write_golden(folder: Path, ensemble: Ensemble, dataset: Dataset, rows: Rows) -> Golden:
    """
    Write inputs with what the finished ensemble answers to them, for the worker to hold its own answers against.

    Raises:
        ExportParityError: The ensemble abstains on rows that it was calibrated on.
    """
    inputs, windows, returns = dataset.inputs(rows), dataset.windows(rows), dataset.returns(rows)
    output = ensemble.score(inputs, windows, returns)
    if output.abstained.any():
        raise ExportParityError(
            f"The finished ensemble abstains on {output.abstained.sum()} of {len(rows)} rows that it was calibrated "
            "on; do not use it, its bound on expected returns is at fault"
        )
    outputs = golden_outputs(output)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, inputs=inputs, windows=windows, returns=returns, **outputs)
    return Golden(
        file=write_file(folder, GOLDEN_NAME, buffer.getvalue()),
        rows=len(rows),
        tolerance=PARITY,
        # A prediction that never varies still needs room for the last bit.
        prediction_scale={name: float(max(values.std(), LEAST_SPREAD)) for name, values in outputs.items()},
        made_on=this_platform(),
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, last of all: a folder without one is no bundle."""
    (folder / MANIFEST_NAME).write_bytes(manifests.encode(manifest))
