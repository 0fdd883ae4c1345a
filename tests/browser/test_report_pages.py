"""The pages that people judge models by, as a real browser shows them: the training's report, drift, a tear sheet."""

from __future__ import annotations

import asyncio
import html
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from flows.drift_page import evidently_page
from flows.drifting.check import check
from flows.observing import Sample
from flows.replay.shadow import shadow_candidate
from flows.settings import FlowSettings
from flows.tear_sheet import tear_sheet
from flows.training.gates import judge, load_gates
from flows.training.page import report_page
from tests.browser.test_sandbox_page import QUIET
from tests.training_support import START_MS, trained_candidate
from tests.unit.test_drift_check import _group, _performance

WIDTH, HEIGHT = 1280, 800
# Looks at the page once all is drawn: where each picture lies, how much of it is ink, and what was asked of whom.
LOOK = """
<script>
addEventListener("load", () => setTimeout(() => {
  const box = one => { const at = one.getBoundingClientRect(); return [at.left, at.top, at.width, at.height]; };
  const ink = one => {
    const board = document.createElement("canvas");
    board.width = one.naturalWidth; board.height = one.naturalHeight;
    const pen = board.getContext("2d");
    pen.drawImage(one, 0, 0);
    const points = pen.getImageData(0, 0, board.width, board.height).data;
    let dark = 0;
    for (let at = 0; at < points.length; at += 4) dark += points[at] + points[at + 1] + points[at + 2] < 600;
    return dark / (points.length / 4);
  };
  const pictures = [...document.images].map(one => (
    {width: one.naturalWidth, height: one.naturalHeight, box: box(one), ink: one.naturalWidth ? ink(one) : 0}
  ));
  const verdict = document.querySelector(".verdict");
  const drawings = [...document.querySelectorAll("svg, canvas")].map(box).filter(([,, w, h]) => w > 60 && h > 20);
  const asked = performance.getEntriesByType("resource").map(one => one.name);
  const root = document.documentElement;
  const seen = {pictures, drawings, asked, verdict: verdict && box(verdict), width: root.scrollWidth,
                text: document.body.innerText.length};
  root.setAttribute("data-seen", JSON.stringify(seen));
}, SECONDS * 1000));
</script>
"""


async def looked_at(folder: Path, page: str, *, seconds: float = 0.2) -> tuple[dict, str]:
    """Open a page in Chromium, without a way to any other machine; return what is seen, and what the console says."""
    file = folder / "page.html"
    at = page.rindex("</body>")
    file.write_text(page[:at] + LOOK.replace("SECONDS", str(seconds)) + page[at:], encoding="utf-8")
    browser = await asyncio.create_subprocess_exec(
        str(shutil.which("chromium")),
        *QUIET,
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={WIDTH},{HEIGHT}",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr",
        "--virtual-time-budget=20000",
        "--timeout=60000",
        "--dump-dom",
        f"file://{file}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, told = await asyncio.wait_for(browser.communicate(), 120)
    found = re.search(r'data-seen="([^"]*)"', out.decode())
    assert found, told.decode()[-2000:]
    seen = json.loads(html.unescape(found[1]))
    assert "CONSOLE" not in told.decode(), told.decode()[-2000:]
    assert not [one for one in seen["asked"] if not one.startswith(("data:", "file:", "blob:"))]
    return seen, told.decode()


def has_ink(picture: dict) -> bool:
    """Tell whether a picture has a size that one can read, and something on it."""
    return picture["width"] >= 800 and picture["height"] >= 300 and 0.002 < picture["ink"] < 0.95


@pytest.mark.needs_chromium
async def test_the_report_of_a_training_opens_with_verdict_and_plots(tmp_path):
    """All seven plots are drawn; on a laptop's first screen are the verdict and four whole ones, nothing is cut."""
    trained = trained_candidate()
    shadow = shadow_candidate(trained.path, trained.frames, trained.report.windows.shadow, trained.config)
    verdict = judge(trained.report, shadow, load_gates(FlowSettings().gates))
    page = report_page(
        trained.report, shadow, verdict, version="7", selection={"trials": 3.0}, links={"Run": "http://127.0.0.1:9/"}
    )

    seen, _ = await looked_at(tmp_path, page)

    assert len(seen["pictures"]) == 7
    assert all(has_ink(one) for one in seen["pictures"]), seen["pictures"]
    left, top, width, height = seen["verdict"]
    assert top + height < 120
    assert left + width < WIDTH
    whole = [one for one in seen["pictures"] if one["box"][1] + one["box"][3] <= HEIGHT]
    assert len(whole) == 4, seen["pictures"]
    assert seen["width"] <= WIDTH


@pytest.mark.needs_chromium
async def test_the_page_of_drift_draws_without_a_network(tmp_path):
    """Evidently's page draws its columns in the browser from what the file holds."""
    rng = np.random.default_rng(13)
    report = check([_group(shift=3.0)], _performance(0.5), version="7", end_ms=1_760_000_000_000, hours=24)
    sample = Sample(("moving", "still"), rng.normal(0, 1, (200, 2)), rng.normal([2, 0], 1, (200, 2)))

    seen, _ = await looked_at(tmp_path, evidently_page(report, sample), seconds=5)

    # Two columns, each then and now.
    assert len(seen["drawings"]) >= 4
    assert seen["text"] > 100


@pytest.mark.needs_chromium
async def test_a_tear_sheet_opens_whole_without_a_network(tmp_path):
    """The plots of a backtest are in the file itself, and are drawn."""
    days = np.arange(90)
    equity = 10_000 * np.exp(np.cumsum(np.random.default_rng(3).normal(0.001, 0.01, len(days))))
    run = SimpleNamespace(time_ms=START_MS + days * 86_400_000, equity=equity)

    seen, _ = await looked_at(tmp_path, tear_sheet(run, "Ninety days"))

    assert len(seen["pictures"]) + len(seen["drawings"]) >= 5
    assert all(0.001 < one["ink"] < 0.95 for one in seen["pictures"])
