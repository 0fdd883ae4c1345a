"""A small verified model bundle, made in a second: one tree model that follows recent returns."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import xgboost

from feature_store.extensions.view import FeatureView
from feature_store.features.definition import WINDOW
from inference.models import manifest as manifests
from inference.models.bundle import GOLDEN_NAME, golden_outputs
from inference.models.ensemble import assemble
from inference.models.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    CalibrationTable,
    FileEntry,
    Golden,
    Manifest,
    MemberEntry,
    TimeWindow,
    TrainingWindows,
)
from inference.regime.detector import RegimeModel
from inference.regime.market import RegimeThresholds
from inference.signals.trained_inputs import TrainedInputs

_DAY_MS = 86_400_000


def make_bundle(
    folder: Path,
    *,
    seed: int = 1,
    threshold: float = 0.51,
    view: FeatureView | None = None,
    regime_model: RegimeModel | None = None,
    trained_inputs: TrainedInputs | None = None,
) -> Path:
    """Write a bundle whose opinions differ from candle to candle, and return its folder."""
    folder.mkdir(parents=True)
    read = view or FeatureView()
    names = read.input_names
    rng = np.random.default_rng(seed)
    inputs = rng.normal(0, 1, (400, len(names))).astype(np.float32)
    label = 0.002 * np.tanh(inputs[:, :8].sum(axis=1)) + 0.0005 * rng.standard_normal(400)
    booster = xgboost.train(
        {"max_depth": 3, "eta": 0.3, "seed": seed, "nthread": 1}, xgboost.DMatrix(inputs, label), num_boost_round=20
    )
    content = bytes(booster.save_raw("ubj"))
    member = MemberEntry(
        name="xgboost",
        kind="xgboost",
        file=_write(folder, "xgboost.ubj", content),
        weight=1.0,
        scale=1.0,
        inputs=names,
    )
    calibration = CalibrationTable(
        method="logistic", expected_return=(-0.01, 0.0, 0.01), probability_up=(0.05, 0.5, 0.95)
    )
    ensemble = assemble(
        (member,),
        {"xgboost": content},
        scale=1.0,
        calibration=calibration,
        max_abs_expected_return=0.5,
        model_inputs=names,
        window=WINDOW,
    )
    golden = _golden(folder, ensemble, inputs[:16], rng)
    day = TimeWindow
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        created_at="2026-01-01T00:00:00Z",
        code_version=f"test-{seed}",
        feature_fingerprint=read.fingerprint(),
        model_inputs=names,
        window=WINDOW,
        timeframe="5m",
        horizon=12,
        symbols=("BTC/USDT:USDT",),
        training=TrainingWindows(
            fit=day(start_ms=0, end_ms=_DAY_MS),
            validation=day(start_ms=_DAY_MS, end_ms=2 * _DAY_MS),
            calibration=day(start_ms=2 * _DAY_MS, end_ms=3 * _DAY_MS),
            shadow=day(start_ms=3 * _DAY_MS, end_ms=4 * _DAY_MS),
        ),
        members=(member,),
        weighting="fixed",
        scale=1.0,
        calibration=calibration,
        threshold=threshold,
        round_trip_cost=0.0,
        max_abs_expected_return=0.5,
        golden=golden,
        metrics={},
        regime=RegimeThresholds(efficiency=0.3, volatility=(0.0005, 0.002), by_symbol={}),
        regime_model=regime_model,
        trained_inputs=trained_inputs,
    )
    (folder / MANIFEST_NAME).write_bytes(manifests.encode(manifest))
    return folder


def _golden(folder, ensemble, inputs, rng) -> Golden:
    windows = rng.normal(0, 1, (len(inputs), WINDOW, inputs.shape[1])).astype(np.float32)
    windows[:, -1] = inputs
    returns = rng.normal(0, 0.001, (len(inputs), WINDOW)).astype(np.float32)
    outputs = golden_outputs(ensemble.score(inputs, windows, returns))
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, inputs=inputs, windows=windows, returns=returns, **outputs)
    scale = {name: float(max(values.std(), 1e-9)) for name, values in outputs.items()}
    file = _write(folder, GOLDEN_NAME, buffer.getvalue())
    return Golden(file=file, rows=len(inputs), tolerance=1e-5, prediction_scale=scale)


def _write(folder: Path, name: str, content: bytes) -> FileEntry:
    (folder / name).write_bytes(content)
    return FileEntry(name=name, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
