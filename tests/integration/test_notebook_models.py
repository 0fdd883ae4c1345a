"""The champion in a notebook: by our own loader, which runs nothing that was stored, and by MLflow's, which does."""

from __future__ import annotations

import asyncio
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from feature_store.errors import BadInputError
from feature_store.features.definition import fingerprint
from flows.backtest import find_version
from flows.registry import Registry, RunLog
from flows.settings import FlowSettings
from flows.training.pipeline import train_candidate
from inference.domain.errors import BundleError, NothingPromotedError
from inference.models.bundle import Bundle, load_bundle
from inference.telemetry.model_loading import load_verified
from tests.training_support import bundle_inputs, silent


@pytest.fixture(scope="module")
def registry(mlflow_server) -> Registry:
    return Registry(mlflow_server.url)


@pytest.fixture(scope="module")
def candidate(tmp_path_factory, real_candidate):
    """A small bundle that answers with an interval and a probability besides."""
    folder = tmp_path_factory.mktemp("with-heads") / "bundle"
    config = replace(real_candidate.config, members=("xgboost",), heads=("quantile", "direction"))
    report = train_candidate(real_candidate.frames, config, folder, silent)
    return folder, real_candidate.frames, report.bundle_digest


@pytest.fixture(scope="module")
def version(registry, candidate):
    """The same as a version that trades."""
    folder, _, digest = candidate
    run_id = registry.start_run("candidate of a notebook", {}, "For a test of notebooks.")
    registry.log(run_id, RunLog(metrics={"rmse": 0.5}))
    made = registry.register(run_id, folder, tags={"bundle_digest": digest}, description="For a test of notebooks.")
    registry.finish_run(run_id)
    registry.promote(made.version)
    return made


@pytest.fixture
def verified(registry, version, tmp_path):
    """Load what a person names, from inside a loop such as a notebook runs."""

    def load(reference: str = version.version) -> Bundle:
        async def cell() -> Bundle:
            return load_verified(reference, home=tmp_path, mlflow_url=registry.url)

        return asyncio.run(cell())

    return load


def by_mlflow(registry, version):
    import mlflow

    mlflow.set_tracking_uri(registry.url)
    mlflow.set_registry_uri(registry.url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mlflow.pyfunc.load_model(f"models:/quantum-ensemble/{version.version}")


def test_both_ways_answer_as_the_worker(registry, version, candidate, verified):
    """Scores and heads are equal to the bit, and the signature names every answer that there is."""
    folder, frames, digest = candidate
    inputs, windows, returns = bundle_inputs(frames)
    ours = load_bundle(folder, expected_fingerprint=fingerprint()).score(inputs, windows, returns)
    model, mine = by_mlflow(registry, version), verified("champion")
    scored = model.predict({"inputs": inputs, "windows": windows, "returns": returns})

    assert mine.digest == digest
    np.testing.assert_array_equal(mine.score(inputs, windows, returns).expected_return, ours.expected_return)
    np.testing.assert_array_equal(scored["expected_return"], ours.expected_return)
    assert set(ours.heads) == {"quantile_0.1", "quantile_0.5", "quantile_0.9", "direction"}
    for name, values in ours.heads.items():
        np.testing.assert_array_equal(scored[f"head_{name}"], values)
    assert set(scored) == set(model.metadata.signature.outputs.input_names())


@pytest.fixture
def tagged(registry, version):
    """Tag the version with another digest while a test lasts: what lies there is then not what was registered."""
    registry.tag(version.version, {"bundle_digest": "0" * 64})
    yield
    registry.tag(version.version, {"bundle_digest": version.bundle_digest})


@pytest.mark.usefixtures("tagged")
def test_another_digest_than_the_tag_is_refused(registry, version, verified):
    """A bundle that is whole but not the registered one is refused in both ways."""
    with pytest.raises(BundleError, match="tagged with bundle digest 0000"):
        verified()
    with pytest.raises(BundleError, match="the registry tagged 0000"):
        by_mlflow(registry, version)


def test_a_copy_needs_no_server(registry, version, candidate, tmp_path, monkeypatch):
    """A downloaded model loads where no server is named, and asking for its digest leaves nothing behind."""
    import mlflow

    by_mlflow(registry, version)
    copy = mlflow.artifacts.download_artifacts(f"models:/quantum-ensemble/{version.version}", dst_path=str(tmp_path))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    address = f"sqlite:///{tmp_path}/here/none.db"
    mlflow.set_tracking_uri(address)
    mlflow.set_registry_uri(address)
    try:
        model = mlflow.pyfunc.load_model(copy)
    finally:
        mlflow.set_tracking_uri(registry.url)
        mlflow.set_registry_uri(registry.url)

    assert model.unwrap_python_model()._bundle.digest == candidate[2]
    assert list((tmp_path / "here").iterdir()) == []


def test_our_loader_runs_nothing_that_was_stored(registry, version, candidate, verified, tmp_path):
    """Code laid beside a bundle runs with MLflow's loader, which is why there is ours; ours never sees it."""
    import mlflow

    by_mlflow(registry, version)
    copy = Path(mlflow.artifacts.download_artifacts(f"models:/quantum-ensemble/{version.version}", dst_path=tmp_path))
    mark = tmp_path / "it-ran"
    (script,) = copy.rglob("ensemble_model.py")
    script.write_text(f"{script.read_text()}\nopen({str(mark)!r}, 'w').close()\n")
    mlflow.pyfunc.load_model(str(copy))
    assert mark.exists()
    mark.unlink()
    before = set(sys.modules)
    bundle = verified(str(copy / "artifacts" / "bundle"))

    assert bundle.digest == candidate[2]
    assert not mark.exists()
    assert not any("ensemble_model" in name for name in set(sys.modules) - before)
    shutil.copy(script, copy / "artifacts" / "bundle" / "ensemble_model.py")
    with pytest.raises(BundleError, match="ensemble_model"):
        verified(str(copy / "artifacts" / "bundle"))


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        pytest.param("4711", NothingPromotedError, id="no-such-version"),
        pytest.param("nobody", NothingPromotedError, id="no-such-alias"),
        pytest.param("../../etc", BundleError, id="no-bundle"),
        pytest.param("DROP TABLE", BadInputError, id="no-name"),
        pytest.param("", BundleError, id="nothing"),
        pytest.param("Champion\n", BadInputError, id="another-line"),
    ],
)
def test_what_is_not_there_is_one_sentence(verified, reference, error):
    """A name that means nothing is refused by a sentence, not by an error of some library."""
    with pytest.raises(error):
        verified(reference)


def test_a_backtest_says_where_versions_are_listed(mlflow_server, version):
    """The command that lists kept bundles lists no versions: a wrong number is answered with the page that does."""
    settings = FlowSettings.of(mlflow_url=mlflow_server.url)
    with pytest.raises(BadInputError, match=r"/#/models/quantum-ensemble shows those that there are") as told:
        find_version.fn(settings, "4711")

    assert "qtctl models" not in str(told.value)
    assert find_version.fn(settings, version.version).version == version.version
