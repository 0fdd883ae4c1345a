"""The MLflow registry: runs, models, versions and aliases; the only importer of the mlflow library."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.model_tensors import example, input_tensors, output_tensors
from flows.registered import MODEL_NAME, RegisteredVersion, RegistryError, RunLog, RunSummary
from inference.domain.errors import NothingPromotedError, RegistryUnavailableError

if TYPE_CHECKING:
    import mlflow
    from mlflow.entities.model_registry import ModelVersion

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "EXPERIMENT",
    "MODEL_NAME",
    "PREVIOUS",
    "RegisteredVersion",
    "Registry",
    "RegistryError",
    "RunLog",
]

EXPERIMENT = "quantum-trader"
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
# Which of MLflow's two menus a page shows: a stranger's browser begins with the one for prompts and traces.
_MENU = "?workflowType=machine_learning"
_MODEL_SCRIPT = Path(__file__).resolve().parents[1] / "mlflow" / "ensemble_model.py"
# Read when the library is imported; what the caller's environment says wins.
_ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # A server that is down is one clear error within seconds, not eight attempts over minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
# What mlflow.pyfunc.load_model needs elsewhere; stated, because inferring it starts a process and asks the network.
_REQUIREMENTS = ["quantum-trader", "numpy", "onnxruntime", "xgboost-cpu", "lightgbm", "msgspec"]


def _library() -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: PLC0415 - its telemetry is decided at import, so the environment must come first

    return mlflow


class Registry:
    """The experiment and the registered model on one MLflow server."""

    def __init__(self, url: str | None) -> None:
        """Connect lazily, asking nothing of the server; `RegistryUnavailableError` where no address is known."""
        if not url:
            raise RegistryUnavailableError(
                "No MLflow server is known; start one with 'qtctl up', or set QT_MLFLOW_URL to its address"
            )
        self.url = url.rstrip("/")
        self._mlflow = _library()
        self._client: mlflow.MlflowClient = self._mlflow.MlflowClient(tracking_uri=self.url, registry_uri=self.url)

    # Runs

    def start_run(self, name: str, tags: Mapping[str, str], description: str) -> str:
        """Open a run in the experiment and return its id; `finish_run` closes it."""
        with self._errors("open a run"):
            found = self._client.get_experiment_by_name(EXPERIMENT)
            experiment = found.experiment_id if found else self._create_experiment()
            run = self._client.create_run(
                experiment,
                run_name=name,
                tags={
                    **tags,
                    "mlflow.note.content": description,
                    "mlflow.source.name": "flows/train.py",
                    "mlflow.user": "prefect",
                },
            )
            return str(run.info.run_id)

    def _create_experiment(self) -> str:
        note = "Candidates of the trading ensemble: one run per candidate, judged in training and in shadow."
        # The kind chooses the pages that MLflow shows first: models rather than prompts.
        tags = {"mlflow.note.content": note, "mlflow.experimentKind": "custom_model_development"}
        return self._client.create_experiment(EXPERIMENT, tags=tags)

    def finish_run(self, run_id: str, *, failed: bool = False) -> None:
        """Close a run."""
        with self._errors("close a run"):
            self._client.set_terminated(run_id, status="FAILED" if failed else "FINISHED")

    def open_runs(self, tag: str) -> dict[str, str]:
        """Return what a tag says of each run that is open and has it, by the run's id."""
        with self._errors("list open runs"):
            found = self._client.get_experiment_by_name(EXPERIMENT)
            runs = self._client.search_runs([found.experiment_id], "attributes.status = 'RUNNING'") if found else []
            return {run.info.run_id: run.data.tags[tag] for run in runs if tag in run.data.tags}

    def kill_run(self, run_id: str) -> None:
        """Close a run whose process died before it could."""
        with self._errors("close a run"):
            self._client.set_terminated(run_id, status="KILLED")

    def log(self, run_id: str, entry: RunLog) -> None:
        """Add values, texts and pictures to a run, open or closed."""
        entities = self._mlflow.entities
        with self._errors("log to a run"):
            at, step = entry.time_ms, entry.time_ms // 60_000
            metrics = [entities.Metric(key, float(value), at, step) for key, value in (entry.metrics or {}).items()]
            metrics += [entities.Metric(one.key, one.value, one.time_ms, one.step) for one in entry.points or ()]
            params = [entities.Param(key, str(value)[:6000]) for key, value in (entry.params or {}).items()]
            tags = [entities.RunTag(key, str(value)) for key, value in (entry.tags or {}).items()]
            # The server takes a thousand entries, a hundred of them parameters, in one batch.
            for start in range(0, max(len(metrics), 1), 500):
                self._client.log_batch(run_id, metrics=metrics[start : start + 500])
            for start in range(0, len(params), 100):
                self._client.log_batch(run_id, params=params[start : start + 100])
            if tags:
                self._client.log_batch(run_id, tags=tags)
            for path, text in (entry.texts or {}).items():
                self._client.log_text(run_id, text, path)
            self._upload(run_id, entry.images or {})

    def _upload(self, run_id: str, files: Mapping[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for path, content in files.items():
                target = Path(folder) / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            if files:
                self._client.log_artifacts(run_id, folder)

    def metrics(self, run_id: str) -> dict[str, float]:
        """Return the last value of every metric of a run."""
        with self._errors("read a run"):
            return dict(self._client.get_run(run_id).data.metrics)

    def run_tags(self, run_id: str) -> dict[str, str]:
        """Return all tags of a run."""
        with self._errors("read a run"):
            return dict(self._client.get_run(run_id).data.tags)

    def runs_tagged(self, tags: Mapping[str, str]) -> list[RunSummary]:
        """Return every run of the experiment that has these tags, newest first."""
        asked = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        with self._errors("list the runs"):
            found = self._client.get_experiment_by_name(EXPERIMENT)
            runs: list[RunSummary] = []
            page: str | None = None
            while found is not None and (page is None or page):
                some = self._client.search_runs([found.experiment_id], asked, max_results=1000, page_token=page)
                runs += [RunSummary(one.info.run_id, dict(one.data.tags), dict(one.data.metrics)) for one in some]
                page = some.token or ""
            return runs

    def read_text(self, run_id: str, path: str) -> str:
        """
        Return a text that was logged to a run.

        Raises:
            RegistryError: The run has no such file.
        """
        with self._errors(f"read {path} of run {run_id}"), tempfile.TemporaryDirectory() as folder:
            return Path(self._client.download_artifacts(run_id, path, folder)).read_text()

    def keep_last(self, run_id: str, folder: str, count: int) -> tuple[str, ...]:
        """
        Delete what lies in a folder of a run's artifacts, but for the last `count` by name; return what was deleted.

        Raises:
            RegistryError: The server does not allow it, or its storage does not.
            RegistryUnavailableError: MLflow does not answer.
        """
        with self._errors(f"clear {folder} of run {run_id}"):
            found = sorted(one.path for one in self._client.list_artifacts(run_id, folder))
            gone = tuple(found[: max(len(found) - count, 0)])
            if gone:
                stores = self._mlflow.store.artifact.artifact_repository_registry
                address = self._client.get_run(run_id).info.artifact_uri
                store = stores.get_artifact_repository(address, tracking_uri=self.url)
                for path in gone:
                    self._delete(store, path)
            return gone

    def _delete(self, store: Any, path: str) -> None:
        try:
            store.delete_artifacts(path)
        except OSError as error:
            # Listing has just shown that somebody answers: an answer of no (401, 403, 405) is no silence.
            raise RegistryError(f"MLflow at {self.url} did not delete {path} ({error})") from error

    # Tags of an experiment

    def experiment_tags(self, name: str) -> dict[str, str]:
        """Return the tags of an experiment by its name; none where it was never made."""
        with self._errors(f"read experiment {name}"):
            found = self._client.get_experiment_by_name(name)
            return dict(found.tags) if found else {}

    def tag_experiment(self, name: str, tags: Mapping[str, str], *, note: str) -> None:
        """Set tags of an experiment, which is made where there is none, with a note on what it is for."""
        with self._errors(f"tag experiment {name}"):
            found = self._client.get_experiment_by_name(name)
            number = found.experiment_id if found else None
            number = number or self._client.create_experiment(name, tags={"mlflow.note.content": note})
            for key, value in tags.items():
                self._client.set_experiment_tag(number, key, value)

    # Versions

    def register(self, run_id: str, bundle: Path, *, tags: Mapping[str, str], description: str) -> RegisteredVersion:
        """Log the bundle as the run's model, register it as the next version, and point `challenger` at it."""
        with self._errors("register a model"), tempfile.TemporaryDirectory() as temporary:
            # The artifact takes the folder's name, and the worker looks for `bundle`.
            named = shutil.copytree(bundle, Path(temporary) / "bundle")
            self._mlflow.set_tracking_uri(self.url)
            self._mlflow.set_registry_uri(self.url)
            with self._mlflow.start_run(run_id=run_id), warnings.catch_warnings():
                # It would like type hints; the signature below says the same in full.
                warnings.simplefilter("ignore", UserWarning)
                logged = self._mlflow.pyfunc.log_model(
                    name="ensemble",
                    python_model=str(_MODEL_SCRIPT),
                    artifacts={"bundle": str(named)},
                    signature=self._signature(named),
                    input_example=example(named),
                    pip_requirements=_REQUIREMENTS,
                )
            self._ensure_model()
            version = self._client.create_model_version(
                MODEL_NAME,
                logged.model_uri,
                run_id=run_id,
                model_id=logged.model_id,
                tags=dict(tags),
                description=description,
            )
            number = str(version.version)
            self._client.set_registered_model_alias(MODEL_NAME, CHALLENGER, number)
        return self.version(number)

    def _signature(self, bundle: Path) -> Any:
        types = self._mlflow.types
        inputs, outputs = (
            types.Schema([types.TensorSpec(np.dtype(dtype), shape, name) for dtype, shape, name in tensors])
            for tensors in (input_tensors(bundle), output_tensors(bundle))
        )
        return self._mlflow.models.ModelSignature(inputs=inputs, outputs=outputs)

    def _ensure_model(self) -> None:
        if self._client.search_registered_models(f"name = '{MODEL_NAME}'"):
            return
        self._client.create_registered_model(
            MODEL_NAME,
            tags={"role": "trading-ensemble"},
            description=(
                "Ensemble of XGBoost, LightGBM, N-HiTS and PatchTST over 49 features of closed candles. "
                "It predicts the log return over the horizon and a calibrated probability of its direction.\n\n"
                "Alias `champion` trades, `challenger` is the newest candidate, `previous` is what a rollback "
                "restores. Flows move them by the gates in mlflow/gates.yaml; each version's tag `gate_verdict` "
                "says how it was judged: passed, held or refused. Moving `champion` by hand changes what trades: the "
                "worker labels such a version ungated."
            ),
        )

    def version(self, number: str) -> RegisteredVersion:
        """Return one version by its number."""
        with self._errors(f"read version {number}"):
            return _read(self._client.get_model_version(MODEL_NAME, number))

    def versions(self) -> list[RegisteredVersion]:
        """Return every version, newest first."""
        with self._errors("list the versions"):
            found = self._client.search_model_versions(f"name = '{MODEL_NAME}'", max_results=1000)
            numbers = sorted((int(one.version) for one in found), reverse=True)
            # A search leaves out aliases; reading each one does not.
            return [_read(self._client.get_model_version(MODEL_NAME, str(number))) for number in numbers]

    def of_run(self, run_id: str) -> RegisteredVersion | None:
        """Return the newest version that a run was registered as, or None."""
        with self._errors(f"find the version of run {run_id}"):
            found = self._client.search_model_versions(f"name = '{MODEL_NAME}' and run_id = '{run_id}'")
            newest = max((int(one.version) for one in found), default=None)
            return None if newest is None else _read(self._client.get_model_version(MODEL_NAME, str(newest)))

    def by_alias(self, alias: str) -> RegisteredVersion | None:
        """Return the version an alias points at, or None."""
        with self._errors(f"read alias {alias}"):
            try:
                return _read(self._client.get_model_version_by_alias(MODEL_NAME, alias))
            except self._mlflow.MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise

    def champion(self) -> RegisteredVersion | None:
        """Return the version that trades, or None while nothing was promoted."""
        return self.by_alias(CHAMPION)

    def resolve(self, number: str | None) -> RegisteredVersion:
        """
        Return a version by its number, or the challenger.

        Raises:
            NothingPromotedError: No version was registered yet.
        """
        found = self.version(number) if number else self.by_alias(CHALLENGER)
        if found is None:
            raise NothingPromotedError(
                f"{MODEL_NAME} has no alias '{CHALLENGER}' at {self.url}: run 'qtctl train' first, or name a version"
            )
        return found

    def tag(self, number: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        with self._errors(f"tag version {number}"):
            for key, value in tags.items():
                self._client.set_model_version_tag(MODEL_NAME, number, key, value)

    def describe(self, number: str, description: str) -> None:
        """Replace the description of a version."""
        with self._errors(f"describe version {number}"):
            self._client.update_model_version(MODEL_NAME, number, description)

    def set_alias(self, alias: str, number: str) -> None:
        """Point an alias at a version."""
        with self._errors(f"move alias {alias}"):
            self._client.set_registered_model_alias(MODEL_NAME, alias, number)

    def drop_alias(self, alias: str) -> None:
        """Remove an alias; nothing happens where it does not exist."""
        with self._errors(f"drop alias {alias}"):
            self._client.delete_registered_model_alias(MODEL_NAME, alias)

    def promote(self, number: str) -> RegisteredVersion | None:
        """
        Point `champion` at a version and `previous` at the one it replaces, which is returned.

        `previous` moves first: at no moment do the aliases lack the version that a rollback must find. It does not
        move to a version that a rollback set aside, and such a version keeps its tag.
        """
        before, oldest = self.champion(), self.by_alias(PREVIOUS)
        if before is not None and before.version == number:
            self.tag(number, {"status": "active"})  # A promotion that was cut off may not have come to that.
            return before
        rests = before is not None and not before.is_rejected
        if before is not None and rests:
            self.set_alias(PREVIOUS, before.version)
        self.set_alias(CHAMPION, number)
        self.tag(number, {"status": "active"})
        if before is not None and rests:
            self.tag(before.version, {"status": "standby"})
            if oldest is not None and oldest.version not in (number, before.version) and not oldest.is_rejected:
                self.tag(oldest.version, {"status": "retired"})
        return before

    def download_bundle(self, number: str, into: Path) -> Path:
        """Download the bundle of a version below a folder and return where it lies."""
        into.mkdir(parents=True, exist_ok=True)
        with self._errors(f"download version {number}"):
            source = self._client.get_model_version_download_uri(MODEL_NAME, number)
            # The folder is made whole before it gets its name, so an interrupted download is never mistaken for one.
            with tempfile.TemporaryDirectory(dir=into, prefix=".download-") as temporary:
                found = self._mlflow.artifacts.download_artifacts(
                    artifact_uri=f"{source}/artifacts/bundle", dst_path=temporary, tracking_uri=self.url
                )
                target = into / f"version-{number}"
                if not target.exists():
                    Path(found).rename(target)
        return target

    # Pages

    def run_page(self, run_id: str, page_url: str | None = None) -> str:
        """Return the address of a run in the MLflow UI."""
        with self._errors("find the experiment"):
            experiment = self._client.get_run(run_id).info.experiment_id
        return f"{page_url or self.url}/#/experiments/{experiment}/runs/{run_id}{_MENU}"

    def version_page(self, number: str, page_url: str | None = None) -> str:
        """Return the address of a version in the MLflow UI."""
        return f"{page_url or self.url}/#/models/{MODEL_NAME}/versions/{number}{_MENU}"

    def links(self, version: RegisteredVersion, page_url: str | None = None) -> str:
        """Return the way to a version's run and to the version itself, as markdown."""
        run, page = self.run_page(version.run_id, page_url), self.version_page(version.version, page_url)
        return f"[Run in MLflow]({run}) · [version in MLflow]({page})"

    @contextlib.contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # The library lets errors of its HTTP client through when it moves files; those have no error number.
            if error.errno is not None:
                raise
            raise self._unavailable(action, error) from error
        except self._mlflow.MlflowException as error:
            if str(error).startswith("API request to"):
                raise self._unavailable(action, error) from error
            raise RegistryError(f"MLflow at {self.url} refused to {action}: {error.message}") from error

    def _unavailable(self, action: str, error: Exception) -> RegistryUnavailableError:
        return RegistryUnavailableError(
            f"MLflow at {self.url} does not answer, so flows cannot {action} ({type(error).__name__}); "
            "start it with 'qtctl up' or set QT_MLFLOW_URL to its address, then run this again"
        )


def _read(found: ModelVersion) -> RegisteredVersion:
    return RegisteredVersion(
        version=str(found.version), run_id=str(found.run_id or ""), aliases=tuple(found.aliases), tags=dict(found.tags)
    )
