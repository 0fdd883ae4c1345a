"""The challenger on live candles: inside a worker that trades, and beside it, at the real sandbox and MLflow."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from inference.domain.events import CandlesDecided
from inference.domain.shadow import Role, ShadowScored
from inference.journal.codec import event_of
from inference.journal.reader import day_files, read_entries
from inference.journal.verify import verify
from inference.models.bundle import bundle_digest
from tests.integration.test_worker_models import Shelf
from tests.integration.test_worker_process import worker
from tests.sandbox_support import running_sandbox
from tests.worker_bundle import make_bundle

MODEL = "worker-shadow"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> list[Path]:
    """Return three good bundles, and one in which a byte was flipped."""
    folder = tmp_path_factory.mktemp("bundles")
    made = [make_bundle(folder / str(seed), seed=seed) for seed in range(1, 5)]
    content = bytearray((made[3] / "xgboost.ubj").read_bytes())
    content[len(content) // 2] ^= 1
    (made[3] / "xgboost.ubj").write_bytes(content)
    return made


def shadowed(home: Path) -> list[ShadowScored]:
    """Return what was journaled of challengers, every day's chain verified."""
    files = day_files(home / "shadow/journal")
    assert all(verify(path, path.with_suffix(".head")).is_whole for path in files)
    events = [event_of(entry) for path in files for entry in read_entries(path)]
    assert all(isinstance(event, ShadowScored) for event in events)
    return events


def decided(home: Path) -> dict[int, CandlesDecided]:
    """Return the champion's decisions by the close of their candle."""
    events = [event_of(one) for one in read_entries(home / "journal/journal.jsonl") if one.type == "signal.decided"]
    return {event.snapshot.candle_close_ms: event for event in events}


def shadow_of(status: dict) -> dict:
    """Return what a status says of the challenger; of a worker that only starts, nothing."""
    return status["shadow"] or {"candles": 0, "reason": "", "version": None}


async def test_challenger_is_scored_beside_what_trades(tmp_path, mlflow_server, bundles):
    """Inside: candle by candle the champion's own opinions and prices, paired; replaced, spoilt and promoted alike."""
    shelf = await asyncio.to_thread(Shelf, mlflow_server.url, MODEL)
    versions = [await asyncio.to_thread(shelf.add, one, bundle_digest=bundle_digest(one)) for one in bundles]
    home = tmp_path / "home"

    async def point(alias: str, version: str) -> None:
        await asyncio.to_thread(shelf.client.set_registered_model_alias, MODEL, alias, version)

    await point("champion", versions[0])
    await point("challenger", versions[0])
    settings = {"QT_MODEL_NAME": MODEL, "QT_MODEL_POLL_SECONDS": "0.3", "QT_MLFLOW_URL": mlflow_server.url}
    async with running_sandbox(symbols=3, speed=120, seed=2, state=tmp_path / "s") as sandbox:
        settings["QT_VENUE_URL"] = sandbox.url
        async with worker(home, **settings) as running:
            alone = await running.until(lambda one: "trades already" in shadow_of(one)["reason"])
            await point("challenger", versions[1])
            await running.until(lambda one: shadow_of(one)["candles"] >= 2)
            await running.end(signal.SIGKILL)
        async with worker(home, **settings) as running:
            await running.until(lambda one: shadow_of(one)["candles"] >= 1)
            await point("challenger", versions[3])
            spoilt = await running.until(lambda one: "was refused" in shadow_of(one)["reason"])
            await point("challenger", versions[2])
            await running.until(lambda one: shadow_of(one)["version"] == versions[2])
            last = await running.until(lambda one: shadow_of(one)["candles"] >= spoilt["shadow"]["candles"] + 2)
            assert await running.end(signal.SIGTERM) == 0

    assert shadow_of(alone)["state"] == "waiting"
    assert last["state"] == "trading"
    assert last["trading_state"] == "ACTIVE"
    events = shadowed(home)
    by_champion = decided(home)
    challengers = []
    for event in events:
        champion, challenger = event.opinions
        assert (champion.role, champion.version) == (Role.CHAMPION, versions[0])
        assert challenger.role is Role.CHALLENGER
        challengers.append(challenger.version)
        made = by_champion[event.candle_close_ms].snapshot
        said = {one.signal.symbol: one.signal.expected_return for one in made.candidates}
        assert dict(zip(event.symbols, champion.expected_return, strict=True)) == said
        assert event.bid == tuple(made.quotes[symbol].bid for symbol in event.symbols)
        assert event.ask == tuple(made.quotes[symbol].ask for symbol in event.symbols)
        assert challenger.expected_return != champion.expected_return
    # What was refused is never scored; whoever was scored before it goes on until another is good.
    assert list(dict.fromkeys(challengers)) == [versions[1], versions[2]]


async def test_a_process_of_its_own_scores_both_and_sends_nothing(tmp_path, mlflow_server, bundles):
    """`qtctl worker --shadow` without keys: both models, paired by candle, and not one request for an account."""
    name = "process-shadow"
    shelf = await asyncio.to_thread(Shelf, mlflow_server.url, name)
    first, second = [await asyncio.to_thread(shelf.add, one) for one in bundles[:2]]
    await asyncio.to_thread(shelf.promote, first)
    await asyncio.to_thread(shelf.client.set_registered_model_alias, name, "challenger", second)
    home = tmp_path / "home"
    async with running_sandbox(symbols=2, speed=120, seed=2, state=tmp_path / "s") as sandbox:
        async with worker(
            home,
            "--shadow",
            QT_VENUE_URL=sandbox.url,
            QT_MLFLOW_URL=mlflow_server.url,
            QT_MODEL_NAME=name,
            QT_API_KEY="",
            QT_API_SECRET="",
        ) as running:
            status_file = home / "shadow" / "status.json"
            async with asyncio.timeout(200):
                while not (status_file.exists() and b'"candles": 2' in status_file.read_bytes()):
                    assert running.process.returncode is None, await running.said()
                    await asyncio.sleep(0.1)
            assert await running.end(signal.SIGTERM) == 0
        audit = await sandbox.get("/sandbox/audit")

    paired = [event for event in shadowed(home) if len(event.opinions) == 2]
    assert audit["orders"] == 0
    assert not (home / "journal").exists()
    assert paired
    assert {one.role: one.version for one in paired[-1].opinions} == {Role.CHAMPION: first, Role.CHALLENGER: second}
    assert paired[-1].place == "beside"
