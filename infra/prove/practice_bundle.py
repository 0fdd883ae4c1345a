"""A bundle that trades, trained through the real pipeline in seconds, where a proof needs a worker and no registry."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from infra.prove.small_candidate import config_of, market, train

_SYMBOLS, _DAYS, _SEED = 4, 6, 1


def practice_bundle(folder: Path) -> Path:
    """Train two trees for a moment and return the folder of their bundle; whether they are right is not the point."""
    config = replace(config_of("tiny", _SEED), members=("xgboost", "lightgbm"), compared=())
    train(market(_SYMBOLS, _DAYS, _SEED), config, folder)
    return folder
