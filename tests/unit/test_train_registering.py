"""What a training changes in the registry: once, however often it is tried, in its own home's name, with its counts."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

import flows.shadow
import flows.staleness
import flows.train
from flows.registered import RegisteredVersion, RegistryError, RunLog
from flows.registry import CHALLENGER
from flows.replay.report import ShadowReport
from flows.retraining.work import job_of
from flows.settings import FlowSettings
from flows.shadow import log_shadow
from flows.train import JOB_TAG, log_training, open_run, register
from flows.trainers import Fitted
from flows.training.dataset import FrameSet
from inference.domain.errors import RegistryUnavailableError
from tests.training_support import small_config, trained_report
from tests.worker_bundle import make_bundle

JOB = "retrain_20251213_041028"


class Server:
    """A registry in memory that goes silent once, before it answers to a registration or before it moves the alias."""

    def __init__(self, silent: str = "") -> None:
        """Hold nothing yet."""
        self.silent = silent
        self.held: list[RegisteredVersion] = []
        self.runs: dict[str, dict[str, str]] = {}
        self.logged: list[RunLog] = []

    def log(self, run_id: str, entry: RunLog) -> None:
        """Keep what was logged."""
        self.logged.append(entry)

    def run_page(self, run_id: str, page: str | None) -> str:
        """Return the address of a run."""
        return f"{page}/{run_id}"

    def of_run(self, run_id: str) -> RegisteredVersion | None:
        """Return the newest version of a run."""
        return next((one for one in reversed(self.held) if one.run_id == run_id), None)

    def register(self, run_id: str, bundle: Path, *, tags: Mapping[str, str], description: str) -> RegisteredVersion:
        """Make a version, then point the alias at it."""
        assert bundle.is_dir()
        assert description
        aliases = () if self.silent == "before-the-alias" else (CHALLENGER,)
        made = RegisteredVersion(version=str(len(self.held) + 1), run_id=run_id, aliases=aliases, tags=tags)
        self.held.append(made)
        if self.silent:
            self.silent = ""
            raise RegistryUnavailableError("MLflow at http://server does not answer")
        return made

    def set_alias(self, alias: str, number: str) -> None:
        """Point an alias at a version."""
        place = int(number) - 1
        self.held[place] = RegisteredVersion(
            version=number, run_id=self.held[place].run_id, aliases=(alias,), tags=self.held[place].tags
        )

    def start_run(self, name: str, tags: Mapping[str, str], description: str) -> str:
        """Open a run."""
        assert name
        assert description
        self.runs[f"run-{len(self.runs)}"] = dict(tags)
        return f"run-{len(self.runs) - 1}"

    def open_runs(self, tag: str) -> dict[str, str]:
        """Return the runs that have a tag."""
        return {run_id: tags[tag] for run_id, tags in self.runs.items() if tag in tags}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "bundle", seed=1)


def on(server: Server, monkeypatch) -> None:
    monkeypatch.setattr(flows.train, "Registry", lambda _address: server)


@pytest.mark.parametrize("silent", ["before-the-answer", "before-the-alias"])
def test_a_registration_that_is_tried_again_makes_one_version(bundle, tmp_path, monkeypatch, silent):
    """Whether the answer was lost or the alias did not move yet: the second try finds the version and ends the rest."""
    server, settings, report = Server(silent), FlowSettings.of(home=tmp_path), trained_report({})
    on(server, monkeypatch)
    with pytest.raises(RegistryUnavailableError):
        register.fn(settings, "run-0", bundle, report)
    candidate = register.fn(settings, "run-0", bundle, report)

    assert [(one.version, one.aliases) for one in server.held] == [("1", (CHALLENGER,))]
    assert (candidate.version, candidate.run_id, candidate.bundle_digest) == ("1", "run-0", report.bundle_digest)


def test_another_bundle_of_the_same_run_is_another_version(bundle, tmp_path, monkeypatch):
    """Only what was registered already is left as it is: another digest, or another run, is new."""
    server, settings, report = Server(), FlowSettings.of(home=tmp_path), trained_report({})
    on(server, monkeypatch)
    made = [
        register.fn(settings, run_id, bundle, msgspec.structs.replace(report, bundle_digest=digest * 64)).version
        for run_id, digest in (("run-0", "a"), ("run-0", "b"), ("run-1", "b"), ("run-1", "b"))
    ]

    assert made == ["1", "2", "3", "3"]


def test_a_job_finds_its_own_run_and_no_other_home_s(tmp_path, monkeypatch):
    """Jobs are called by their second: equal ids of two homes, or two machines, are two runs on a server they share."""
    server, config = Server(), small_config()
    on(server, monkeypatch)
    here, there = (FlowSettings.of(home=tmp_path / name) for name in ("here", "there"))
    first, again, other = (open_run.fn(home, config, JOB) for home in (here, here, there))
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    elsewhere = open_run.fn(here, config, JOB)
    without = open_run.fn(here, config)

    assert first == again
    assert len({first, other, elsewhere, without}) == 4
    assert JOB_TAG not in server.runs[without]


class Hall:
    """A registry whose champion was registered by hand: its run says something else, or nothing."""

    def __init__(self, said: str | None) -> None:
        """Say this when asked for the configuration."""
        self.said = said

    def champion(self) -> RegisteredVersion:
        """Return the champion."""
        return RegisteredVersion(version="7", run_id="by-hand", aliases=("champion",), tags={})

    def read_text(self, run_id: str, path: str) -> str:
        """Read what the run has, or refuse."""
        if self.said is None:
            raise RegistryError(f"MLflow refused to read {path} of run {run_id}: no such artifact")
        return self.said


def test_rows_are_logged_as_figures_and_told(tmp_path, monkeypatch):
    """How many rows each window gave stands beside the other figures, of training and of shadow, and on the pages."""
    server, settings = Server(), FlowSettings.of(home=tmp_path)
    rows = {"fit": 5001, "validation": 1002, "calibration": 503}
    training = msgspec.structs.replace(trained_report({"training/xgboost/seconds": 12.5}), rows=rows)
    shadow = ShadowReport(
        bundle_digest="b", champion_digest=None, window=training.windows.shadow, candles=704, rows=605,
        symbols=("A",), threshold=0.6, metrics={}, curves=(), stated=(), observed=(), count=(), notes=(),
    )  # fmt: skip
    for module, plots in ((flows.train, "training_plots"), (flows.shadow, "shadow_plots")):
        monkeypatch.setattr(module, "Registry", lambda _address: server)
        monkeypatch.setattr(module, plots, lambda _report: {})
    log_training.fn(settings, "run", small_config(), training)
    log_shadow.fn(settings, "run", shadow)
    trained, scored = server.logged

    assert {name: trained.metrics[f"rows/{name}"] for name in rows} == rows
    assert trained.metrics["training/xgboost/seconds"] == 12.5
    assert (scored.metrics["shadow/rows"], scored.metrics["shadow/candles"]) == (605, 704)
    assert all(f" {count} |" in trained.texts["reports/training.md"] for count in (*rows.values(), 12.5))
    assert "605 rows scored" in scored.texts["reports/shadow.md"]


def test_a_job_that_goes_on_knows_how_long_all_members_took(tmp_path, monkeypatch):
    """Also of those that were fitted before the crash; of one that was taken over nothing is said."""
    settings, config = FlowSettings.of(home=tmp_path), small_config()
    order = {"trigger": "schedule", "kind": "full", "models": ("xgboost",), "parameters": {}, "resume": None}
    monkeypatch.setattr(flows.train, "fit_members", lambda *_: [("lightgbm", Fitted(b"new", 4.0))])
    monkeypatch.setattr(flows.train, "pack_members", lambda *_: trained_report({"threshold": 0.6}))
    monkeypatch.setattr(flows.train, "stored", lambda content: content)
    with job_of(settings, **order, tell=lambda _: None) as steps:
        steps.keep("fit-xgboost", b"from before")
        steps.note("seconds-xgboost", 2.0)
        steps.keep("fit-nhits", b"taken over")
        steps.note("kept-members", ("nhits",))
        report = flows.train._bundle(settings, config, FrameSet, steps, tmp_path / "bundle")

    assert report.metrics == {"threshold": 0.6, "training/xgboost/seconds": 2.0, "training/lightgbm/seconds": 4.0}


def _config(created_at: str) -> str:
    return msgspec.json.encode(small_config(created_at=created_at)).decode()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param(None, None, id="nothing"),
        pytest.param("", None, id="empty"),
        pytest.param("not json", None, id="another-text"),
        pytest.param('{"created_at": 5}', None, id="another-form"),
        pytest.param(_config("yesterday"), None, id="no-moment"),
        pytest.param(_config("2026-01-01T00:00:00"), "2026-01-01T00:00:00+00:00", id="no-zone"),
        pytest.param(_config("2026-01-01T00:00:00+00:00"), "2026-01-01T00:00:00+00:00", id="ours"),
    ],
)
def test_a_champion_set_by_hand_does_not_end_the_watch(tmp_path, monkeypatch, said, expected):
    """When it was trained is then not known, and the jobs alone tell how long ago somebody looked."""
    told = []
    monkeypatch.setattr(flows.staleness, "Registry", lambda _address: Hall(said))
    monkeypatch.setattr(flows.staleness, "say", lambda message, *values: told.append(message % values))
    found = flows.staleness.champion_trained_at.fn(FlowSettings.of(home=tmp_path))

    assert (None if found is None else found.isoformat()) == expected
    assert [sentence.startswith("When champion 7 was trained is not known: ") for sentence in told] == (
        [] if expected else [True]
    )
