"""What a shadow run has to say; the values live beside the training report, because the gates judge both."""

from __future__ import annotations

from flows.training.report import NetCurve, ShadowReport, WorkerReplay

__all__ = ["NetCurve", "ShadowReport", "WorkerReplay"]
