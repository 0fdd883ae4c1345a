"""A candidate trained through the real pipeline on a small synthetic market, for proofs about bundles."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from flows.settings import FlowSettings, TrainingSize
from flows.sizes import training_config
from flows.training.config import TrainingConfig
from flows.training.dataset import FrameSet
from flows.training.pipeline import train_candidate
from flows.training.report import TrainingReport
from infra.prove.gate_markets import synthetic_frames
from infra.sandbox.market.equations import DEFAULT_EDGE


def market(symbols: int, days: int, seed: int) -> FrameSet:
    """Return the frames of a seeded synthetic market with the sandbox's own edge."""
    return synthetic_frames(symbols, days, DEFAULT_EDGE, seed)[0]


def config_of(size: TrainingSize, seed: int) -> TrainingConfig:
    """Return the configuration of a size, the same on any day."""
    config = training_config(FlowSettings.of(size=size), datetime(2025, 1, 1, tzinfo=UTC))
    return replace(config, code_version="proof", seed=seed)


def train(frames: FrameSet, config: TrainingConfig, folder: Path) -> TrainingReport:
    """Train into a folder, silently."""
    return train_candidate(frames, config, folder, lambda _step, _share: None)
