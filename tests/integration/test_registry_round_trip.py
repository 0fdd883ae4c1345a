"""What is registered comes back whole, whoever asks for it, and aliases move as promotion and rollback promise."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from feature_store.errors import BadInputError
from feature_store.features.definition import fingerprint
from flows.registered import ARTEFACT_VERSION, artefact_version
from flows.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry, RegistryError, RunLog
from flows.rolling_back import roll_back
from flows.settings import FlowSettings
from inference import cli
from inference.domain.errors import NothingPromotedError, RegistryUnavailableError
from inference.models.bundle import load_bundle, read_manifest
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


def test_a_version_is_found_by_its_run(registry, version):
    """The newest that a run was registered as, with its aliases; of a run without one, nothing."""
    empty = registry.start_run("candidate without a version", {}, "A candidate of a test.")
    registry.finish_run(empty)

    assert registry.of_run(version.run_id) == version
    assert registry.of_run(empty) is None


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


@pytest.fixture(scope="module")
def notebook_model(registry, version):
    """Return the champion as a person in a notebook loads it."""
    import mlflow

    registry.promote(version.version)
    mlflow.set_tracking_uri(registry.url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mlflow.pyfunc.load_model(f"models:/quantum-ensemble@{CHAMPION}")


def test_pyfunc_shows_what_it_takes_and_gives(notebook_model, real_candidate):
    """The signature has the bundle's own shapes, and the example is one that the model answers."""
    width = len(read_manifest(real_candidate.bundle).model_inputs)
    signature, example = notebook_model.metadata.signature, notebook_model.input_example

    assert {one.name: one.shape for one in signature.inputs.inputs} == {
        "inputs": (-1, width), "windows": (-1, 64, width), "returns": (-1, 64)
    }  # fmt: skip
    assert {"expected_return", "probability_up", "consensus"} <= set(signature.outputs.input_names())
    scored = notebook_model.predict({name: np.asarray(one, np.float32) for name, one in example.items()})
    assert np.isfinite(scored["expected_return"]).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param({"windows": np.zeros((1, 64, 3), np.float32)}, r"needs a dict of arrays.*returns", id="missing"),
        pytest.param([1, 2], "needs a dict of arrays", id="no-dict"),
        pytest.param({"windows": "x", "returns": "y"}, "must be numbers", id="no-numbers"),
        pytest.param(
            {"windows": np.zeros(3, np.float32), "returns": np.zeros(3, np.float32)}, r"has the shape", id="shape"
        ),
    ],
)
def test_pyfunc_says_what_it_needs(notebook_model, given, message):
    """What cannot be scored is a sentence with the shapes that can, not an error of some library."""
    with pytest.raises(BadInputError, match=message):
        notebook_model.unwrap_python_model().predict(None, given)


def test_nothing_of_a_version_is_a_pickle(registry, version, tmp_path):
    """What a notebook downloads is code in text, numbers, and the bundle."""
    import mlflow

    folder = Path(mlflow.artifacts.download_artifacts(f"models:/quantum-ensemble/{version.version}", dst_path=tmp_path))
    names = [path.name for path in folder.rglob("*") if path.is_file()]

    assert "ensemble_model.py" in names
    assert [name for name in names if name.endswith((".pkl", ".pickle", ".joblib"))] == []


def test_people_name_versions_and_aliases(registry, version, register, capsys, tmp_path, monkeypatch):
    """`qtctl models` brings a version by number or alias over REST, verifies it, compares it, writes its card."""
    monkeypatch.setenv("QT_MLFLOW_URL", registry.url)
    registry.promote(version.version)
    second = register()

    def asked(*arguments: str) -> dict[str, object]:
        assert cli.run(["models", *arguments, "--home", str(tmp_path), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    verified = asked("verify", "champion")
    assert (verified["version"], verified["digest"]) == (version.version, version.bundle_digest)
    assert asked("diff", "champion", second.version)["changes"] == []
    assert version.bundle_digest[:12] in str(asked("card", second.version)["card"])
    assert cli.run(["models", "verify", "4711", "--home", str(tmp_path)]) == 1
    assert not (tmp_path / "bundles").exists()


def test_the_registry_as_a_table(registry, version, register, capsys, tmp_path, monkeypatch):
    """`qtctl models versions` tells state, label, parameters and metrics of each; one version is active at most."""
    monkeypatch.setenv("QT_MLFLOW_URL", registry.url)
    second = register()
    registry.promote(version.version)
    registry.tag(
        version.version, {"tag": "exp-vol-adj", ARTEFACT_VERSION: artefact_version("2025-12-13T05:10:28+01:00")}
    )

    assert cli.run(["models", "versions", "--json", "--home", str(tmp_path)]) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)}
    assert cli.run(["models", "versions", "--home", str(tmp_path)]) == 0
    table = capsys.readouterr().out

    assert [row["id"] for row in rows.values() if row["is_active"]] == [version.version]
    active, shadow = rows[version.version], rows[second.version]
    assert (active["state"], shadow["state"]) == ("ACTIVE", "SHADOW")
    assert (active["version"], active["tag"]) == ("quantum-ensemble_v20251213_041028", "exp-vol-adj")
    assert active["params"]["rounds"] == "15"
    assert active["metrics"]["rmse"] == 0.5
    assert "exp-vol-adj" in table
    assert {row["state"] for row in rows.values()} <= {"ACTIVE", "SHADOW", "RETIRED"}


def test_a_version_tagged_with_another_digest_is_refused(registry, register, capsys, tmp_path, monkeypatch):
    """What lies in the registry must be what was registered."""
    monkeypatch.setenv("QT_MLFLOW_URL", registry.url)
    spoilt = register()
    registry.tag(spoilt.version, {"bundle_digest": "0" * 64})

    assert cli.run(["models", "verify", spoilt.version, "--home", str(tmp_path)]) == 1
    assert "tagged with bundle digest 000" in capsys.readouterr().err


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


def test_promotion_and_rollback_move_aliases(registry, version, register, tmp_path):
    """Promoting remembers what it replaced; a rollback restores it, and says of both what they are now."""
    registry.promote(version.version)
    second = register()

    replaced = registry.promote(second.version)

    assert replaced is not None
    assert replaced.version == version.version
    assert registry.by_alias(PREVIOUS).version == version.version
    assert registry.version(second.version).tags["status"] == "active"
    settings = FlowSettings(home=tmp_path, mlflow_url=registry.url)
    for repeated in (False, True):
        done = roll_back(settings)
        assert (done.version, done.replaced, done.repeated) == (version.version, second.version, repeated)
        assert registry.champion().version == version.version
        assert registry.by_alias(PREVIOUS).version == second.version
        assert registry.by_alias(CHALLENGER) is None
        assert registry.version(version.version).tags["status"] == "active"
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


def test_nothing_to_roll_back_to(registry, version, tmp_path):
    """Without a previous version a rollback refuses and leaves the champion alone."""
    registry.tag(version.version, {"status": "standby"})
    registry.promote(version.version)
    registry.drop_alias(PREVIOUS)

    with pytest.raises(NothingPromotedError, match="no alias 'previous'"):
        roll_back(FlowSettings(home=tmp_path, mlflow_url=registry.url))

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


def test_only_the_last_of_many_pages_stay(registry):
    """Pages that come by and by are deleted by name, the oldest first; other folders are left alone."""
    run_id = registry.start_run("a run with pages", {}, "For a test.")
    pages = {f"drift/evidently/2026030{day}T0000.html": f"day {day}" for day in range(1, 6)}
    registry.log(run_id, RunLog(texts={**pages, "drift/summary.md": "said"}))

    gone = registry.keep_last(run_id, "drift/evidently", 2)

    assert gone == tuple(sorted(pages)[:3])
    assert registry.keep_last(run_id, "drift/evidently", 2) == ()
    assert registry.keep_last(run_id, "nothing", 2) == ()
    assert registry.read_text(run_id, "drift/evidently/20260305T0000.html") == "day 5"
    assert registry.read_text(run_id, "drift/summary.md") == "said"
    with pytest.raises(RegistryError):
        registry.read_text(run_id, "drift/evidently/20260301T0000.html")
