"""Other sources through a real Prefect: asked, noted, never in the way; and what a person sees of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.context.store import ObservationStore
from feature_store.errors import BadInputError
from feature_store.lake import CandleLake
from flows.source_settings import SourceSettings
from infra.stack import checks
from infra.stack.checks import Level
from infra.stack.home import Home
from tests.context_support import rss, says, web_double
from tests.stack_fixtures import QUIET, ROOT, newest_artifacts

CODE = """
import asyncio, json
from flows.sources import sources
print("told", json.dumps([asyncio.run(sources(names)) for names in (None, "rss,coingecko")]))
"""


async def run_flow(server, home, **env: str) -> list[dict]:
    """Run the flow twice in a process of its own, without and with names of sources, and return what it returned."""
    import asyncio

    clean = {name: value for name, value in os.environ.items() if not name.startswith("QT_")}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", CODE],
        cwd=ROOT,
        env={**clean, **QUIET, **server.env, "QUANTUM_HOME": str(home), **env},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "secret" not in done.stdout + done.stderr
    return json.loads(done.stdout.partition("told ")[2])


async def test_a_source_that_is_down_fails_nothing(prefect_server, tmp_path):
    """Off by default; then one feed answers, one is gone, a key is refused: the runs complete and say which."""
    lake = CandleLake(tmp_path / "lake")
    lake.append(Series("sandbox", "BTC/USDT:USDT", Timeframe.M5), CandleBlock(np.array([0]), np.ones((1, 5))))
    async with web_double() as server:
        server.answers["/good"] = says(rss(("a", "Bitcoin is great", "")))
        server.answers["/coins/markets"] = says("{}", 401)
        nothing, told = await run_flow(
            prefect_server,
            tmp_path,
            QT_RSS_FEEDS=f"{server.url}/good, {server.url}/gone",
            QT_COINGECKO_URL=server.url,
            QT_COINGECKO_KEY="secret-key",
        )
    assert nothing == {}, "A source that nobody chose was asked"
    assert sorted(str(one) for one in told.values()) == ["1", "None", "None"]
    assert "BTC" in ObservationStore(tmp_path / "lake").read().subject

    artifacts = newest_artifacts(prefect_server)
    found = {key: json.loads(artifacts[key]["data"]) for key in ("sources", "context")}
    assert sorted(row["state"] for row in found["sources"]) == ["answers", "down", "down"]
    assert {row["asset"] for row in found["context"]} == {"BTC"}
    assert float(found["context"][0]["sentiment_1h"]) > 0.5

    findings = checks.sources(Home(tmp_path))
    assert sorted(one.level for one in findings) == [Level.OK, Level.WARN, Level.WARN]
    assert "check its key" in " ".join(one.found for one in findings)
    assert checks.lake(Home(tmp_path)).level is Level.OK


def test_a_torn_file_of_a_source_does_not_fail_the_doctor(tmp_path):
    """Damage to what other sources said is not damage to the lake: the doctor still finds this home fit to run."""
    folder = tmp_path / "lake" / "observations" / "source=rss-a"
    folder.mkdir(parents=True)
    (folder / "2024-01-01.parquet").write_bytes(b"torn")
    (folder / "state.json").write_bytes(b"torn")
    assert checks.lake(Home(tmp_path)).level is Level.OK
    assert checks.sources(Home(tmp_path)) == []


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"sources": "rss"}, "QT_RSS_FEEDS"),
        ({"sources": "social"}, "QT_SOCIAL_TOKEN"),
        ({"sources": "twitter"}, "coingecko, rss, social"),
        ({"sources": "rss", "rss_feeds": "file:///etc/passwd"}, "http"),
        ({"sources": "coingecko", "coingecko_url": "ftp://a"}, "http"),
        ({"sources": "coingecko", "coingecko_coins": "bitcoin"}, "id:TICKER"),
        ({"coingecko_largest": 0}, "QT_COINGECKO_LARGEST"),
        ({"social_query": "x" * 600}, "QT_SOCIAL_QUERY"),
    ],
)
def test_settings_that_cannot_be_used_say_which(settings, complaint):
    """What is missing or wrong is named by its variable, before anything is asked."""
    with pytest.raises(BadInputError, match=complaint):
        SourceSettings.of(**settings).build(())


def test_keys_are_never_shown(monkeypatch):
    """No form of the settings or of a source shows a key, and none is among what is off by default."""
    for name in ("QT_COINGECKO_KEY", "QT_SOCIAL_TOKEN"):
        monkeypatch.setenv(name, "hush-hush")
    settings = SourceSettings.of(sources="coingecko,social", coingecko_url="https://pro-api.coingecko.com/api/v3")
    built = settings.build(["BTC"])
    assert "hush" not in f"{settings} {settings!r} {built} {built!r}"
    assert built[0].web.secrets == {"x-cg-pro-api-key": "hush-hush"}
    assert SourceSettings.of().build(()) == ()
