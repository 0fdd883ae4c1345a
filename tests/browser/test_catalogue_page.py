"""The catalogue of features, as a person's browser shows it, offline."""

from __future__ import annotations

import asyncio
import re
import shutil

import pytest

from feature_store.candle import Timeframe
from feature_store.features.definition import FEATURE_NAMES, MODEL_INPUT_NAMES
from feature_store.lake import CandleLake
from flows.catalogue.writing import candles_to_show, write_catalogue
from flows.training.config import TrainingConfig
from tests.browser.test_sandbox_page import QUIET


@pytest.mark.needs_chromium
@pytest.mark.parametrize(("query", "cards"), [("", 49), ("?find=wilder+rsi", 1)], ids=["all", "search"])
async def test_catalogue_opens_without_an_error_and_shows_every_feature(tmp_path, query, cards):
    """Chromium runs the page without an error; every feature has a card with a plot, and the search hides the rest."""
    shown = candles_to_show(CandleLake(tmp_path / "lake"), None, Timeframe.M5)
    done = write_catalogue(tmp_path, TrainingConfig(created_at="", code_version=""), shown)
    browser = await asyncio.create_subprocess_exec(
        str(shutil.which("chromium")),
        *QUIET,
        f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr",
        "--timeout=60000",
        "--dump-dom",
        f"file://{done.html}{query}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, told = await asyncio.wait_for(browser.communicate(), 120)
    page = out.decode()

    assert "CONSOLE" not in told.decode()
    assert "data-error" not in page
    assert f'data-ready="{cards}"' in page
    found = re.findall(r'<article class="card" id="\w+" data-feature="(\w+)"[^>]*>(.*?)</article>', page, re.DOTALL)
    assert tuple(name for name, _ in found) == FEATURE_NAMES
    assert all(card.count("<svg") == 1 and "<path" in card for _, card in found)
    assert all(f'<tr id="input-{name}"' in page for name in MODEL_INPUT_NAMES)
