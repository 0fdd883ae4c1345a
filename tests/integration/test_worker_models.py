"""The worker and a real MLflow server: it idles, loads, reloads, refuses and remembers."""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path

import mlflow
import pytest

from inference.domain.events import Noted
from inference.journal.codec import event_of
from inference.journal.reader import read_entries
from inference.models.bundle import bundle_digest
from tests.integration.test_worker_process import worker
from tests.sandbox_support import running_sandbox
from tests.stack_fixtures import free_port
from tests.worker_bundle import make_bundle

MODEL = "worker-reload"


class Shelf:
    """A registered model on a real server, filled as the training flow fills it."""

    def __init__(self, url: str) -> None:
        self.client = mlflow.MlflowClient(tracking_uri=url, registry_uri=url)
        self.client.create_registered_model(MODEL)
        self._experiment = self.client.create_experiment("worker-reload")

    def add(self, bundle: Path, **tags: str) -> str:
        """Register a bundle and return its version."""
        run = self.client.create_run(self._experiment)
        self.client.log_artifacts(run.info.run_id, str(bundle), "ensemble/artifacts/bundle")
        source = f"{run.info.artifact_uri}/ensemble"
        return str(self.client.create_model_version(MODEL, source, run_id=run.info.run_id, tags=tags).version)

    def promote(self, version: str) -> None:
        """Point the alias at a version."""
        self.client.set_registered_model_alias(MODEL, "champion", version)


def noted(home: Path, event_type: str) -> list[dict[str, str]]:
    """Return what the journal holds of one kind of note."""
    entries = [event_of(entry) for entry in read_entries(home / "journal/journal.jsonl") if entry.type == event_type]
    return [dict(event.detail) for event in entries if isinstance(event, Noted)]


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
            idle = await running.until(lambda one: one["state"] == "idle" and "nothing is promoted" in one["reason"])

            first = await asyncio.to_thread(shelf.add, bundles[0])
            await asyncio.to_thread(shelf.promote, first)
            loaded = await running.until(lambda one: (one["model"] or {}).get("version") == first)

            second = await asyncio.to_thread(
                shelf.add, bundles[1], gate_verdict="passed", bundle_digest=bundle_digest(bundles[1])
            )
            batches = running.status["batches_processed"]
            await asyncio.to_thread(shelf.promote, second)
            moved = await running.until(lambda one: (one["model"] or {}).get("version") == second)

            spoilt = await asyncio.to_thread(shelf.add, bundles[2], gate_verdict="passed")
            await asyncio.to_thread(shelf.promote, spoilt)
            await asyncio.sleep(2)
            after = await running.until(
                lambda one: one["batches_processed"] > moved["batches_processed"] and one["state"] == "trading"
            )
            assert await running.end(signal.SIGTERM) == 0

        # The registry is gone, and with it the alias that points to the spoilt one.
        async with worker(home, QT_MLFLOW_URL=f"http://127.0.0.1:{free_port()}", **settings) as running:
            cached = await running.until(lambda one: one["model"] is not None)

    assert idle["model"] is None
    assert loaded["model"]["gated"] is False
    assert moved["model"]["gated"] is True
    # The candle that was under way when the alias moved, and the one that the new model was taken at.
    assert moved["batches_processed"] - batches <= 3
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
