"""Which members there are, by name."""

from __future__ import annotations

from flows.training.members.base import MemberTrainer
from flows.training.members.lightgbm import fit_lightgbm
from flows.training.members.nhits import fit_nhits
from flows.training.members.patchtst import fit_patchtst
from flows.training.members.xgboost import fit_xgboost

# XGBoost and LightGBM before the nets: what is quick to fail should fail first.
TRAINERS: dict[str, MemberTrainer] = {
    "xgboost": fit_xgboost,
    "lightgbm": fit_lightgbm,
    "nhits": fit_nhits,
    "patchtst": fit_patchtst,
}

# The shares that the source system used; selectable as weighting = "fixed" (SPEC ML-017).
FIXED_WEIGHTS: dict[str, float] = {"xgboost": 0.25, "lightgbm": 0.25, "nhits": 0.30, "patchtst": 0.20}
