"""The worker and a real MLflow server: it idles, loads, reloads, refuses and remembers."""

from __future__ import annotations

import asyncio
import shutil
import signal
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import mlflow
import pytest

from inference.domain.events import CandlesDecided, Noted
from inference.journal.codec import event_of
from inference.journal.reader import read_entries
from inference.models.bundle import bundle_digest
from inference.models.notices import Notice, leave_notice
from tests.integration.test_worker_process import worker
from tests.sandbox_support import running_sandbox
from tests.stack_fixtures import free_port, qtctl
from tests.worker_bundle import make_bundle

MODEL = "worker-reload"


class Shelf:
    """A registered model on a real server, filled as the training flow fills it."""

    def __init__(self, url: str, name: str = MODEL) -> None:
        self.client = mlflow.MlflowClient(tracking_uri=url, registry_uri=url)
        self._name = name
        self.client.create_registered_model(name)
        self._experiment = self.client.create_experiment(name)

    def add(self, bundle: Path, **tags: str) -> str:
        """Register a bundle and return its version."""
        run = self.client.create_run(self._experiment)
        self.client.log_artifacts(run.info.run_id, str(bundle), "ensemble/artifacts/bundle")
        source = f"{run.info.artifact_uri}/ensemble"
        return str(self.client.create_model_version(self._name, source, run_id=run.info.run_id, tags=tags).version)

    def promote(self, version: str) -> None:
        """Point the alias at a version."""
        self.client.set_registered_model_alias(self._name, "champion", version)


def noted(home: Path, event_type: str) -> list[dict[str, str]]:
    """Return what the journal holds of one kind of note."""
    entries = [event_of(entry) for entry in read_entries(home / "journal/journal.jsonl") if entry.type == event_type]
    return [dict(event.detail) for event in entries if isinstance(event, Noted)]


def decided_since_loading(home: Path, version: str) -> set[str]:
    """Return the versions behind the decisions since a version was loaded first."""
    events = [event_of(entry) for entry in read_entries(home / "journal/journal.jsonl")]
    loaded = next(
        number
        for number, event in enumerate(events)
        if isinstance(event, Noted) and event.event_type == "model.loaded" and event.detail["version"] == version
    )
    decided = [event.snapshot for event in events[loaded:] if isinstance(event, CandlesDecided)]
    return {
        candidate.signal.model_version.partition(":")[0] for snapshot in decided for candidate in snapshot.candidates
    }


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> list[Path]:
    """Return two good bundles, and one in which a byte was flipped."""
    folder = tmp_path_factory.mktemp("bundles")
    first, second, spoilt = (make_bundle(folder / name, seed=seed) for name, seed in (("a", 1), ("b", 2), ("c", 3)))
    content = bytearray((spoilt / "xgboost.ubj").read_bytes())
    content[len(content) // 2] ^= 1
    (spoilt / "xgboost.ubj").write_bytes(content)
    return [first, second, spoilt]


async def test_alias_decides_what_trades(tmp_path, mlflow_server, bundles):
    """It idles without a champion, trades a moved alias within a candle, never a spoilt bundle, and outlives MLflow."""
    shelf = await asyncio.to_thread(Shelf, mlflow_server.url)
    home = tmp_path / "home"
    async with running_sandbox(symbols=3, speed=60, seed=2, state=tmp_path / "s") as sandbox:
        settings = {"QT_VENUE_URL": sandbox.url, "QT_MODEL_NAME": MODEL, "QT_MODEL_POLL_SECONDS": "0.3"}
        async with worker(home, QT_MLFLOW_URL=mlflow_server.url, **settings) as running:
            idle = await running.until(lambda one: one["state"] == "idle" and "Nothing is promoted" in one["reason"])

            decided = Notice(
                event="model.verdict", version="7", digest="d" * 64, verdict="held", mode="sandbox",
                decided_at="2026-03-01T00:00:00.000+00:00", missing=("shadow_days",),
            )  # fmt: skip
            leave_notice(home / "verdicts", decided)
            first = await asyncio.to_thread(shelf.add, bundles[0])
            await asyncio.to_thread(shelf.promote, first)
            loaded = await running.until(lambda one: (one["model"] or {}).get("version") == first)

            second = await asyncio.to_thread(
                shelf.add, bundles[1], gate_verdict="passed", bundle_digest=bundle_digest(bundles[1])
            )
            await asyncio.to_thread(shelf.promote, second)
            moved = await running.until(lambda one: (one["model"] or {}).get("version") == second)

            spoilt = await asyncio.to_thread(shelf.add, bundles[2], gate_verdict="passed")
            await asyncio.to_thread(shelf.promote, spoilt)
            refused = await running.until(lambda _: noted(home, "model.refused") != [])
            after = await running.until(
                lambda one: one["batches_processed"] > refused["batches_processed"] and one["state"] == "trading"
            )
            assert await running.end(signal.SIGTERM) == 0

        # The registry is gone, and with it the alias that points to the spoilt one.
        async with worker(home, QT_MLFLOW_URL=f"http://127.0.0.1:{free_port()}", **settings) as running:
            cached = await running.until(lambda one: one["model"] is not None)

    assert idle["model"] is None
    assert noted(home, "model.verdict") == [decided.detail()]
    assert loaded["model"]["gated"] is False
    assert moved["model"]["gated"] is True
    assert decided_since_loading(home, first) <= {first, second}
    assert decided_since_loading(home, second) == {second}
    assert after["model"]["version"] == second
    assert [one["version"] for one in noted(home, "model.refused")] == [spoilt]
    assert "xgboost.ubj" in noted(home, "model.refused")[0]["reason"]
    assert [(one["version"], one["verdict"]) for one in noted(home, "model.loaded")] == [
        (first, "ungated"),
        (second, "gated"),
        (second, "gated"),
    ]
    assert cached["model"]["version"] == second
    assert cached["model"]["source"] == "cache"
    assert {folder.name for folder in (home / "bundles").iterdir() if folder.is_dir()} == {
        bundle_digest(bundles[0]),
        bundle_digest(bundles[1]),
    }


@asynccontextmanager
async def way_to(url: str):
    """Forward a port to a server; when the context ends the server is gone, to those who came this way."""
    host, port = url.removeprefix("http://").split(":")
    ends: set[asyncio.StreamWriter] = set()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        ends.update((writer, far_writer))
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    server = await asyncio.start_server(forward, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for end in ends:
            end.transport.abort()


async def test_registry_that_goes_away_stops_nothing(tmp_path, mlflow_server, bundles):
    """MLflow goes away while the worker trades: it goes on with the version it has."""
    shelf = await asyncio.to_thread(Shelf, mlflow_server.url, "worker-outage")
    version = await asyncio.to_thread(shelf.add, bundles[0])
    await asyncio.to_thread(shelf.promote, version)
    settings = {"QT_MODEL_NAME": "worker-outage", "QT_MODEL_POLL_SECONDS": "0.3"}
    home = tmp_path / "home"
    async with (
        running_sandbox(symbols=1, speed=120, seed=2, state=tmp_path / "s") as sandbox,
        AsyncExitStack() as stack,
    ):
        async with way_to(mlflow_server.url) as url:
            running = await stack.enter_async_context(
                worker(home, QT_VENUE_URL=sandbox.url, QT_MLFLOW_URL=url, **settings)
            )
            await running.until(lambda one: (one["model"] or {}).get("version") == version)
        missed = await running.until(lambda _: noted(home, "model.registry_unavailable") != [])
        after = await running.until(lambda one: one["batches_processed"] >= missed["batches_processed"] + 2)
        assert await running.end(signal.SIGTERM) == 0

    assert after["state"] == "trading"
    assert after["model"]["version"] == version


async def test_damaged_cache_is_not_traded(tmp_path, bundles):
    """With the registry down, a cached bundle that was changed on disk is refused and the worker idles."""
    home = tmp_path / "home"
    digest = bundle_digest(bundles[0])
    shutil.copytree(bundles[0], home / "bundles" / digest)
    (home / "bundles" / "last-good.json").write_text(f'{{"digest":"{digest}","version":"7","gated":true}}')
    (home / "bundles" / digest / "xgboost.ubj").write_bytes(b"spoilt")
    async with (
        running_sandbox(symbols=1, speed=60, seed=2, state=tmp_path / "s") as sandbox,
        worker(home, QT_VENUE_URL=sandbox.url, QT_MLFLOW_URL=f"http://127.0.0.1:{free_port()}") as running,
    ):
        status = await running.until(lambda one: one["state"] == "idle" and one["batches_processed"] >= 1)
        await running.end(signal.SIGTERM)

    assert status["model"] is None
    assert noted(home, "model.refused")[0]["version"] == "7"
    assert len(noted(home, "model.registry_unavailable")) == 1


async def test_rollback_reaches_a_worker_that_no_server_can_tell(tmp_path, mlflow_server, bundles):
    """MLflow and Prefect are gone: one command lets the worker trade the version before, with its next candle."""
    shelf = await asyncio.to_thread(Shelf, mlflow_server.url, "worker-rollback")
    first, second = [
        await asyncio.to_thread(shelf.add, bundle, gate_verdict="passed", bundle_digest=bundle_digest(bundle))
        for bundle in bundles[:2]
    ]
    home, nowhere = tmp_path / "home", f"http://127.0.0.1:{free_port()}"
    settings = {"QT_MODEL_NAME": "worker-rollback", "QT_MODEL_POLL_SECONDS": "0.3"}
    env = {"QUANTUM_HOME": str(home), "QT_MLFLOW_URL": nowhere, "PREFECT_API_URL": f"{nowhere}/api"}
    async with (
        running_sandbox(symbols=1, speed=60, seed=2, state=tmp_path / "s") as sandbox,
        AsyncExitStack() as stack,
    ):
        async with way_to(mlflow_server.url) as url:
            running = await stack.enter_async_context(
                worker(home, QT_VENUE_URL=sandbox.url, QT_MLFLOW_URL=url, **settings)
            )
            for version in (first, second):
                await asyncio.to_thread(shelf.promote, version)
                await running.until(lambda one, version=version: (one["model"] or {}).get("version") == version)
        await running.until(lambda _: noted(home, "model.registry_unavailable") != [])

        done = await asyncio.to_thread(lambda: qtctl("rollback", env=env))
        ordered = await running.until(lambda _: True)
        back = await running.until(lambda one: (one["model"] or {}).get("version") == first)
        again = await asyncio.to_thread(lambda: qtctl("rollback", env=env))
        later = await running.until(lambda one: one["batches_processed"] >= back["batches_processed"] + 2)
        assert await running.end(signal.SIGTERM) == 0

    assert done.returncode == again.returncode == 4, done.stderr
    assert f"goes back to version {first}" in done.stdout
    assert "was set aside before" in again.stdout
    assert back["batches_processed"] - ordered["batches_processed"] <= 1
    assert (back["model"]["source"], later["model"]["version"], later["state"]) == ("cache", first, "trading")
    assert [(one["version"], one["replaced"]) for one in noted(home, "model.rolled_back")] == [(first, second)]
