"""Which model trades when registry and cache disagree."""

from __future__ import annotations

import asyncio
import errno
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from feature_store.features.definition import fingerprint
from inference.domain.errors import BundleError, RegistryUnavailableError
from inference.models.bundle import bundle_digest
from inference.models.registry import BundleCache, LastGood, MlflowRegistry, ModelVersion
from inference.supervision.model_watch import ModelWatch
from infra.prove.bundle_tamper import sentinels
from tests.worker_bundle import make_bundle


@dataclass
class Shelf:
    """A registry with one alias, and the folder that its version holds."""

    bundle: Path
    version: str
    tags: dict[str, str] = field(default_factory=dict)

    async def version_of(self, alias: str) -> ModelVersion:
        """Return what the alias points at."""
        assert alias == "champion"
        return ModelVersion(version=self.version, tags=self.tags)

    async def download(self, version: str, into: Path, *, cache: BundleCache) -> tuple[Path, str]:
        """Copy the bundle."""
        assert version == self.version
        assert cache.root.is_dir()
        shutil.copytree(self.bundle, into)
        return into, bundle_digest(into)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return make_bundle(folder / "old", seed=1), make_bundle(folder / "new", seed=2)


def watch(root: Path, *, timeframe: str = "5m", on_event=lambda *_: None, monotonic=lambda: 0.0) -> ModelWatch:
    return ModelWatch(
        cache=BundleCache(root),
        fingerprint=fingerprint(),
        timeframe=timeframe,
        on_event=on_event,
        monotonic=monotonic,
    )


async def test_a_version_number_used_again_is_another_model(tmp_path, bundles):
    """After the registry was begun afresh, its version 1 replaces the cached version 1 of before."""
    old, new = bundles
    digest = bundle_digest(old)
    shutil.copytree(old, tmp_path / digest)
    BundleCache(tmp_path).remember(LastGood(digest=digest, version="1", gated=True))
    models = watch(tmp_path)
    await models.load_last_good()
    before = models.take()

    await models.look(Shelf(new, "1", {"bundle_digest": bundle_digest(new), "gate_verdict": "passed"}), "champion")

    after = models.take()
    assert before is not None
    assert before.bundle.digest == digest
    assert after is not None
    assert after.bundle.digest == bundle_digest(new)


@dataclass
class FullDisk(Shelf):
    """A registry whose bundles find no room here, until there is some."""

    asked: int = 0
    is_full: bool = True

    async def download(self, version: str, into: Path, *, cache: BundleCache) -> tuple[Path, str]:
        """Copy the bundle if there is room."""
        self.asked += 1
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return await super().download(version, into, cache=cache)


async def test_a_full_disk_refuses_a_version_and_asks_again_later(tmp_path, bundles):
    """What trades goes on, nobody is halted, and the disk is not filled anew each second."""
    told, now = [], [0.0]
    models = watch(tmp_path, on_event=lambda kind, detail: told.append((kind, detail)), monotonic=lambda: now[0])
    shelf = FullDisk(bundles[1], "2")
    for now[0] in (0.0, 1.0, 59.0):
        await models.look(shelf, "champion")
    while_full = shelf.asked
    shelf.is_full, now[0] = False, 61.0
    await models.look(shelf, "champion")

    assert while_full == 1
    assert [kind for kind, _ in told] == ["model.refused"]
    assert "No space left on device" in told[0][1]["reason"]
    assert models.take().version == "2"


class Written(Shelf):
    """A registry that makes the folder of a download itself, as MLflow's does."""

    async def download(self, version: str, into: Path, *, cache: BundleCache) -> tuple[Path, str]:
        """Make the folder."""
        await asyncio.to_thread(into.mkdir, parents=True)
        raise AssertionError("It was made")


async def test_a_folder_of_bundles_that_cannot_be_made_refuses_the_version(tmp_path, bundles):
    """It is told, what trades goes on, and it is tried again later."""
    (tmp_path / "bundles").write_text("not a folder")
    told = []
    models = watch(tmp_path / "bundles", on_event=lambda kind, _: told.append(kind))
    await models.look(Written(bundles[1], "2"), "champion")

    assert told == ["model.refused"]
    assert models.take() is None


async def test_a_note_that_cannot_be_written_keeps_no_model_from_trading(tmp_path, bundles, monkeypatch):
    """The bundle is here and verified; without the note the next start begins with what traded before."""
    models = watch(tmp_path)
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(BundleCache, "remember", lambda *_: (_ for _ in ()).throw(full))
    await models.look(Shelf(bundles[1], "2"), "champion")

    assert models.take().version == "2"


@asynccontextmanager
async def registry_that_says(body: bytes) -> AsyncIterator[MlflowRegistry]:
    """Read a registry whose answer is always the same."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        yield MlflowRegistry(session, url=str(server.make_url("/")), model_name="quantum-ensemble")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"registered_model":["x"]}', id="a-list"),
        pytest.param(b'{"registered_model":{"aliases":["x"]}}', id="aliases-of-words"),
        pytest.param(b'{"model_versions":{"version":"3"}}', id="versions-no-list"),
    ],
)
async def test_a_list_of_versions_that_makes_no_sense_is_said(body):
    """Commands that list versions say that the registry did not answer with any."""
    async with registry_that_says(body) as registry:
        with pytest.raises(RegistryUnavailableError, match="answered"):
            await registry.versions()


VERSION = b'{"model_version":{"version":"3","tags":%s}}'


@pytest.mark.parametrize(
    "body",
    [
        pytest.param('{"message":"Acc\u00e8s"}'.encode("latin-1"), id="no-utf-8"),
        pytest.param(b"[" * 9_000, id="deep"),
        pytest.param(VERSION % b'["x"]', id="tags-of-words"),
        pytest.param(VERSION % b'{"gate_verdict":"passed"}', id="tags-no-list"),
        pytest.param(b'{"model_version":["3"]}', id="version-a-list"),
        pytest.param(b"<html>", id="no-json"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_a_registry_that_is_away(tmp_path, body):
    """Whatever a server or a proxy says: it is told once, and halts nothing."""
    told: list[str] = []
    async with registry_that_says(body) as registry:
        models = watch(tmp_path, on_event=lambda kind, _: told.append(kind))
        await models.look(registry, "champion")
        await models.look(registry, "champion")

    assert told == ["model.registry_unavailable"]


async def test_the_version_that_trades_is_not_loaded_twice(tmp_path, bundles):
    """Asking again about the version that trades, tagged or not, offers nothing new."""
    models = watch(tmp_path)
    shelf = Shelf(bundles[0], "1")
    await models.look(shelf, "champion")
    models.take()

    for tags in ({}, {"bundle_digest": bundle_digest(bundles[0])}):
        shelf.tags = tags
        await models.look(shelf, "champion")
        assert models.take() is None


async def test_old_bundles_leave_the_cache(tmp_path, bundles):
    """The cache keeps the newest bundles, the one that trades among them, and grows no further."""
    for number in range(20):
        (tmp_path / f"{number:064x}").mkdir(parents=True)
    models = watch(tmp_path)

    await models.look(Shelf(bundles[0], "1"), "champion")

    kept = [one.name for one in tmp_path.iterdir() if one.is_dir()]
    assert bundle_digest(bundles[0]) in kept
    assert len(kept) <= 8


async def test_a_model_of_another_timeframe_is_refused(tmp_path, bundles):
    """A model that learned five-minute candles is not asked about one-minute ones, wherever it comes from."""
    hourly = watch(tmp_path, timeframe="1h")

    await hourly.look(Shelf(bundles[0], "1"), "champion")

    assert hourly.take() is None
    assert "5m" in hourly.reason
    with pytest.raises(BundleError, match="1h"):
        await hourly.load_folder(bundles[0])


async def test_a_bundle_forged_whole_is_not_opened(tmp_path, bundles):
    """The registry's digest is compared before any library is given a byte: what fits only itself is refused."""
    _, new = bundles
    models = watch(tmp_path)

    with sentinels() as noted:
        await models.look(Shelf(new, "2", {"bundle_digest": "0" * 64, "gate_verdict": "passed"}), "champion")

    assert models.take() is None
    assert "tagged with bundle digest 000" in models.reason
    assert noted.take() == []
