"""Pictures drawn from reports."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from flows.replay.shadow import shadow_candidate
from flows.training.plots import cumulative_net_return, shadow_plots, training_plots
from flows.training.report import NetCurve
from tests.training_support import trained_candidate


def _pictures() -> dict[str, bytes]:
    trained = trained_candidate()
    shadow = shadow_candidate(trained.path, trained.frames, trained.report.windows.shadow, trained.config)
    return training_plots(trained.report) | shadow_plots(shadow)


def test_every_picture_is_a_png_with_something_on_it():
    """Calibration, net return, importance and correlation are drawn, at a size one can read."""
    pictures = _pictures()

    assert {"calibration_curve.png", "cumulative_net_return.png", "feature_importance.png"} < set(pictures)
    assert "member_error_correlation.png" in pictures
    for name, content in pictures.items():
        image = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
        assert image.shape[1] >= 800, name
        assert (image < 128).mean() > 0.002, name


@pytest.mark.parametrize("curves", [(), (NetCurve(name="ensemble", exit_ms=(), cumulative_net=()),)])
def test_a_rule_that_never_traded_can_be_drawn(curves):
    """No trades give a flat line, not an error."""
    assert cumulative_net_return(curves, start_ms=0).startswith(b"\x89PNG")
