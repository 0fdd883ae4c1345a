"""The exchange's own page, as a person's browser shows it, offline."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from tests.sandbox_support import running_sandbox

# Without these a headless browser looks for its maker's servers at every start.
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.mark.needs_chromium
async def test_page_shows_time_and_market_in_a_real_browser(tmp_path):
    """Chromium renders the exchange's page from loopback alone, with the venue's time, its market and its wallet."""
    async with running_sandbox(symbols=5, speed=60, seed=3) as sandbox:
        browser = await asyncio.create_subprocess_exec(
            str(shutil.which("chromium")),
            *QUIET,
            f"--user-data-dir={tmp_path}",
            "--timeout=120000",
            "--dump-dom",
            f"{sandbox.url}/",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        page, _ = await asyncio.wait_for(browser.communicate(), 200)

    text = page.decode()
    assert "Sandbox exchange" in text
    assert "synthetic, seed 3" in text
    assert "10,000.00 USDT" in text
