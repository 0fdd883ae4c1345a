"""What a bundle says of itself: its members, the ensemble made of their files, and the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from flows.training.combine import Combined
from flows.training.config import TrainingConfig
from flows.training.dataset import FrameSet
from flows.training.heads import FittedHead
from flows.training.members.base import MemberSpec
from flows.training.pack import ExportedMember
from flows.training.splits import Splits
from inference.models.ensemble import Ensemble, assemble
from inference.models.manifest import SCHEMA_VERSION, Golden, Manifest, MemberEntry, TimeWindow


def entries_of(
    exported: Mapping[str, ExportedMember],
    specs: Mapping[str, MemberSpec],
    scales: Mapping[str, float],
    weights: Mapping[str, float],
) -> tuple[MemberEntry, ...]:
    """Return what the manifest says of each member; `scales` and `weights` are by the member's name."""
    return tuple(
        MemberEntry(
            name=name,
            kind=exported[name].entry.kind,
            file=exported[name].entry.file,
            weight=weights[name],
            scale=exported[name].entry.raw_scale * scales[name],
            inputs=exported[name].entry.inputs,
            consumes=one.consumes,
            draws=exported[name].entry.draws,
        )
        for name, one in specs.items()
    )


def assembled(
    folder: Path,
    entries: tuple[MemberEntry, ...],
    heads: Sequence[FittedHead],
    frames: FrameSet,
    config: TrainingConfig,
    combined: Combined,
) -> Ensemble:
    """Return the ensemble as the worker opens it from the folder's files."""
    return assemble(
        entries,
        {entry.name: (folder / entry.file.name).read_bytes() for entry in entries},
        scale=combined.scale,
        calibration=combined.table,
        max_abs_expected_return=combined.bound,
        model_inputs=frames.input_names,
        window=config.window,
        draws={entry.name: [(folder / file.name).read_bytes() for file in entry.files] for entry in entries},
        heads=[(head.entry, head.content) for head in heads],
        market_share=config.market_share_removed,
    )


def manifest_of(
    frames: FrameSet,
    config: TrainingConfig,
    splits: Splits,
    parts: tuple[tuple[MemberEntry, ...], tuple[MemberEntry, ...], Sequence[FittedHead]],
    combined: Combined,
    metrics: dict[str, float],
    golden: Golden,
    older: dict[str, TimeWindow],
) -> Manifest:
    """Return the manifest; `parts` are the members that vote, those compared with, and heads, `older` the kept ones."""
    members, compared, heads = parts
    return Manifest(
        schema_version=SCHEMA_VERSION,
        created_at=config.created_at,
        code_version=config.code_version,
        feature_fingerprint=frames.feature_fingerprint,
        model_inputs=frames.input_names,
        window=config.window,
        timeframe=config.timeframe,
        horizon=config.horizon,
        symbols=frames.symbols,
        training=splits.as_manifest(),
        members=members,
        mode=config.ensemble_mode,
        compared=compared,
        heads=tuple(head.entry for head in heads),
        weighting="stacking" if config.ensemble_mode == "stacking" else config.weighting,
        scale=combined.scale,
        calibration=combined.table,
        threshold=combined.threshold,
        round_trip_cost=config.round_trip_cost,
        max_abs_expected_return=combined.bound,
        golden=golden,
        metrics=metrics,
        kept_members=older,
        market_share=config.market_share_removed,
    )
