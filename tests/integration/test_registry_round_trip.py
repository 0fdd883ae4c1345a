"""What is registered comes back whole, whoever asks for it, and aliases move as promotion and rollback promise."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from feature_store.features.definition import fingerprint
from flows.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry, RegistryError, RunLog
from inference.domain.errors import NothingPromotedError, RegistryUnavailableError
from inference.models.bundle import load_bundle
from inference.models.registry import BundleCache, MlflowRegistry
from tests.stack_fixtures import ask, free_port
from tests.training_support import bundle_inputs


@pytest.fixture(scope="module")
def registry(mlflow_server) -> Registry:
    return Registry(mlflow_server.url)


@pytest.fixture(scope="module")
def register(registry, real_candidate):
    """Register the small candidate once more and return its version."""

    def one():
        run_id = registry.start_run("candidate of a test", {"venue": "sandbox"}, "A candidate of a test.")
        registry.log(run_id, RunLog(params={"rounds": 15}, metrics={"rmse": 0.5}, texts={"reports/note.md": "judged"}))
        version = registry.register(
            run_id,
            real_candidate.bundle,
            tags={"bundle_digest": real_candidate.report.bundle_digest},
            description="A candidate of a test.",
        )
        registry.finish_run(run_id)
        return version

    return one


@pytest.fixture(scope="module")
def version(register):
    return register()


def test_new_version_is_challenger(registry, version):
    """Registering points `challenger` at the version and links it with the run that explains it."""
    assert registry.resolve(None) == version
    assert CHALLENGER in version.aliases
    assert registry.metrics(version.run_id)["rmse"] == 0.5
    assert registry.read_text(version.run_id, "reports/note.md") == "judged"


def test_digest_is_tagged(version, real_candidate):
    """The version's tag names the very bundle that was registered."""
    assert version.bundle_digest == load_bundle(real_candidate.bundle, expected_fingerprint=fingerprint()).digest


def test_experiment_is_shown_as_models(mlflow_server, version):
    """The experiment has a note and opens with the pages for models, and so does the registered model."""
    base = f"{mlflow_server.url}/api/2.0/mlflow"
    found = ask(f"{base}/experiments/get-by-name?experiment_name=quantum-trader")["experiment"]
    tags = {tag["key"]: tag["value"] for tag in found["tags"]}

    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert tags["mlflow.note.content"]
    model = ask(f"{base}/registered-models/get?name=quantum-ensemble")["registered_model"]
    assert "champion" in model["description"]


def test_pyfunc_scores_as_the_bundle(registry, version, real_candidate):
    """`mlflow.pyfunc.load_model` by alias answers to the bit what the worker's own loader answers."""
    import mlflow

    registry.promote(version.version)
    mlflow.set_tracking_uri(registry.url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = mlflow.pyfunc.load_model(f"models:/quantum-ensemble@{CHAMPION}")
    inputs, windows, returns = bundle_inputs(real_candidate.frames)
    scored = model.predict({"inputs": inputs, "windows": windows, "returns": returns})
    ours = load_bundle(real_candidate.bundle, expected_fingerprint=fingerprint()).score(inputs, windows, returns)

    np.testing.assert_array_equal(scored["expected_return"], ours.expected_return)
    np.testing.assert_array_equal(scored["probability_up"], ours.probability_up)


async def test_worker_downloads_over_rest(registry, version, real_candidate, tmp_path):
    """The worker's plain REST requests bring the same bytes that were registered."""
    registry.promote(version.version)
    async with aiohttp.ClientSession() as session:
        rest = MlflowRegistry(session, url=registry.url, model_name="quantum-ensemble")
        found = await rest.version_of(CHAMPION)
        folder, digest = await rest.download(found.version, tmp_path / "new", cache=BundleCache(tmp_path / "cache"))

    assert digest == real_candidate.report.bundle_digest
    assert _bytes(folder) == _bytes(real_candidate.bundle)


def test_flows_download_the_same_bundle(registry, version, real_candidate, tmp_path):
    """What a flow judges is what was registered."""
    assert _bytes(registry.download_bundle(version.version, tmp_path)) == _bytes(real_candidate.bundle)


def test_promotion_and_rollback_move_aliases(registry, version, register):
    """Promoting remembers what it replaced; a rollback restores it, and says of both what they are now."""
    registry.promote(version.version)
    second = register()

    replaced = registry.promote(second.version)

    assert replaced is not None
    assert replaced.version == version.version
    assert registry.by_alias(PREVIOUS).version == version.version
    assert registry.version(second.version).tags["status"] == "active"
    champion, aside = registry.rollback()
    assert (champion.version, aside.version) == (version.version, second.version)
    assert registry.champion().version == version.version
    assert registry.version(second.version).tags["status"] == "rejected"


def test_promoting_the_champion_changes_nothing(registry, version, register):
    """A champion that is promoted again does not become its own predecessor."""
    registry.promote(version.version)
    second = register()
    registry.promote(second.version)

    registry.promote(second.version)

    assert registry.by_alias(PREVIOUS).version == version.version


def test_older_versions_are_retired(registry, register):
    """A version that is neither champion nor previous any more carries the tag status=retired."""
    versions = [register() for _ in range(3)]
    for one in versions:
        registry.promote(one.version)

    assert registry.version(versions[0].version).tags["status"] == "retired"


def test_nothing_to_roll_back_to(registry, version):
    """Without a previous version a rollback refuses and leaves the champion alone."""
    registry.promote(version.version)
    registry.drop_alias(PREVIOUS)

    with pytest.raises(NothingPromotedError, match="no alias 'previous'"):
        registry.rollback()

    assert registry.champion().version == version.version


def test_unknown_version_is_one_sentence(registry):
    """A version that does not exist is named, with the server that lacks it."""
    with pytest.raises(RegistryError, match="version 4711"):
        registry.resolve("4711")


def test_missing_report_is_one_sentence(registry, version):
    """A run without a shadow report says which file it lacks."""
    with pytest.raises(RegistryError, match=r"reports/shadow\.json"):
        registry.read_text(version.run_id, "reports/shadow.json")


def test_server_down_is_one_quick_error():
    """A server that does not answer costs seconds, not minutes, and the error says how to start it."""
    registry = Registry(f"http://127.0.0.1:{free_port()}")
    started = time.perf_counter()

    with pytest.raises(RegistryUnavailableError, match="qtctl up"):
        registry.champion()

    assert time.perf_counter() - started < 60


def test_no_address_is_one_sentence():
    """Without any address the error names the setting."""
    with pytest.raises(RegistryUnavailableError, match="QT_MLFLOW_URL"):
        Registry(None)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
