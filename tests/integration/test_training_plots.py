"""Pictures drawn from reports."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from flows.replay.shadow import shadow_candidate
from flows.training.page import report_page
from flows.training.plots import cumulative_net_return, shadow_plots, training_plots
from flows.training.report import NetCurve
from flows.training.verdict import Finding, GateCheck, Verdict
from tests.training_support import trained_candidate


def _pictures() -> dict[str, bytes]:
    trained = trained_candidate()
    shadow = shadow_candidate(trained.path, trained.frames, trained.report.windows.shadow, trained.config)
    return training_plots(trained.report) | shadow_plots(shadow)


def test_every_picture_is_a_png_with_something_on_it():
    """Calibration, net return, importance and correlation are drawn, at a size one can read."""
    pictures = _pictures()

    assert {"calibration_curve.png", "cumulative_net_return.png", "feature_importance.png"} < set(pictures)
    assert {"member_error_correlation.png", "worker_equity.png"} < set(pictures)
    for name, content in pictures.items():
        image = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
        assert image.shape[1] >= 800, name
        assert (image < 128).mean() > 0.002, name


@pytest.mark.parametrize("curves", [(), (NetCurve(name="ensemble", exit_ms=(), cumulative_net=()),)])
def test_a_rule_that_never_traded_can_be_drawn(curves):
    """No trades give a flat line, not an error."""
    assert cumulative_net_return(curves, start_ms=0).startswith(b"\x89PNG")


@pytest.mark.parametrize("finding", list(Finding))
def test_a_verdict_is_a_page_with_pictures_first(finding):
    """The page says what was decided and why, shows every picture and gate, and asks for nothing elsewhere."""
    trained = trained_candidate()
    shadow = shadow_candidate(trained.path, trained.frames, trained.report.windows.shadow, trained.config)
    check = GateCheck(name="a_gate", finding=finding, value=1.5, bound=2.0, reason="Because 1 < 2 & so.")
    verdict = Verdict(checks=(check,))

    page = report_page(
        trained.report, shadow, verdict, version="7", selection={"trials": 3.0}, links={"Run": "http://run?a=1&b=2"}
    )

    assert page.count("data:image/png;base64,") == 7
    assert "What the worker would have made of it" in page
    assert page.index("data:image") < page.index("<h2>Gates")
    assert f'class="verdict {verdict.decision.value}"' in page
    assert "Because 1 &lt; 2 &amp; so." in page
    assert "http://run?a=1&amp;b=2" in page
    assert not re.search(r"<(script|link)|src=.http|url\(", page)
    assert "Sharpe per day" in page
    for text in ("RMSE", "MAE", "R²", "Brier score", "calibration error", "rank ICIR by day"):
        assert re.search(rf'<td>{text}</td><td class="n">-?[0-9]', page), text
    for member in trained.report.members:
        (row,) = re.findall(rf"<tr><td>{member.name}</td>.*?</tr>", page.split("<h2>Members</h2>")[1])
        assert row.count("<td") == 8
        assert {f"shadow/{member.name}/{name}" for name in ("rank_icir_of_days", "calibration_slope_low")} <= set(
            shadow.metrics
        )
        # After costs, one by one.
        assert f"<th>{member.name}</th>" in page.split("<h2>Members one by one")[1]
    for text in ("fit", "validation", "calibration", "shadow"):
        assert f'<td>{text}</td><td class="n">' in page.split("<h2>Candles</h2>")[1]
    assert set(shadow.size_curves) == {"ensemble", *(one.name for one in trained.report.members)}
    assert all(f"<td>{one.name}</td>" in page for one in trained.report.members)
    # Tables and plots list predictors by these names.
    assert not [name for name in shadow.metrics if "_minus_" in name and name.endswith(("/rmse", "/ic"))]
