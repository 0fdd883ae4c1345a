"""Which model trades when registry and cache disagree."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from feature_store.features.definition import fingerprint
from inference.domain.errors import BundleError
from inference.models.bundle import bundle_digest
from inference.models.registry import BundleCache, LastGood, ModelVersion
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


def watch(root: Path, *, timeframe: str = "5m") -> ModelWatch:
    return ModelWatch(
        cache=BundleCache(root),
        fingerprint=fingerprint(),
        timeframe=timeframe,
        on_event=lambda *_: None,
        monotonic=lambda: 0.0,
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
