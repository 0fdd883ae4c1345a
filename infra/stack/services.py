"""The services of the local stack: command line, environment, health and order of each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from feature_store.errors import BadInputError
from infra.stack.home import Home, Programs
from infra.stack.ports import HOST

SANDBOX = "sandbox"
PREFECT = "prefect-server"
PREFECT_WORKER = "prefect-worker"
MLFLOW = "mlflow"
WORKER = "worker"
SHADOW = "shadow-worker"
TABLES = "tables"
NAMES = (SANDBOX, PREFECT, MLFLOW, PREFECT_WORKER, WORKER, SHADOW, TABLES)
PREFERRED_PORTS = {SANDBOX: 9100, PREFECT: 4200, MLFLOW: 5000}
WORK_POOL = "quantum"

# Nothing calls home, and no progress bar or banner ends up in a log.
_QUIET = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "PREFECT_LOGGING_LEVEL": "INFO",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    "PREFECT_CLI_PROMPT": "false",
    "PYTHONUNBUFFERED": "1",
}
# Two threads per process that share two cores spin against each other (1.4 to 10 times slower, measured).
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
# A person's own profile, key or server must not reach into this stack.
_NOT_INHERITED = ("PREFECT_", "MLFLOW_", "PYTHON", "VIRTUAL_ENV", "UVICORN_", "GUNICORN_")


class StackSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a person may choose about the local stack."""

    venue: str = "sandbox"
    symbols: int = 20
    seed: int = 7
    speed: float = 60.0
    edge: float | None = None
    replay: str | None = None


MARKET_SETTINGS = ("symbols", "seed", "edge", "replay")


@dataclass(frozen=True, slots=True)
class Health:
    """How to tell that a service is ready: an answering URL, an online Prefect worker, or a fresh status file."""

    kind: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One process of the stack."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    directory: Path
    log: Path
    health: Health
    port: int | None = None
    url: str | None = None
    needs: tuple[str, ...] = ()
    deadline_s: float = 90.0
    grace_s: float = 10.0

    @property
    def digest(self) -> str:
        """A digest of what the process was told; another one means that it must be started anew."""
        told = [*self.command, str(self.directory)]
        told += [f"{name}={value}" for name, value in sorted(self.environment.items()) if _matters(name)]
        return hashlib.sha256("\0".join(told).encode()).hexdigest()[:16]


def _matters(name: str) -> bool:
    return name.startswith(("QT_", "PREFECT_", "MLFLOW_", "OMP_")) or name == "QUANTUM_HOME"


def base_environment() -> dict[str, str]:
    """Return the caller's environment without what would reach into the stack from outside, made quiet."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
    return inherited | _QUIET | _ONE_THREAD


def client_environment(settings: StackSettings, home: Home, urls: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which flows, deployments and the worker find the servers of this stack."""
    environment = base_environment() | {"QUANTUM_HOME": str(home.root), "PREFECT_HOME": str(home.prefect)}
    environment["QT_VENUE"] = settings.venue
    if PREFECT in urls:
        environment["PREFECT_API_URL"] = f"{urls[PREFECT]}/api"
    if MLFLOW in urls:
        environment |= {"QT_MLFLOW_URL": urls[MLFLOW], "MLFLOW_TRACKING_URI": urls[MLFLOW]}
    if settings.venue == "sandbox":
        environment |= {"QT_MODE": "sandbox", "QT_API_KEY": "sandbox-key", "QT_API_SECRET": "sandbox-secret"}
        if SANDBOX in urls:
            environment["QT_VENUE_URL"] = urls[SANDBOX]
    return environment


def plan(
    settings: StackSettings, home: Home, programs: Programs, ports: Mapping[str, int], names: tuple[str, ...] = NAMES
) -> tuple[Service, ...]:
    """
    Describe the chosen services, in an order in which each comes after those it needs.

    Raises:
        BadInputError: A chosen service needs one that is neither chosen nor running.
    """
    for_workers = (MLFLOW, *((SANDBOX,) if settings.venue == "sandbox" else ()))
    needed = {PREFECT_WORKER: (PREFECT,), WORKER: for_workers, SHADOW: for_workers}
    if names == NAMES:
        # As a rule the worker itself scores the challenger, and the journal is record enough.
        asked = {SHADOW: os.environ.get("QT_SHADOW") == "beside", TABLES: bool(os.environ.get("QT_DATABASE_URL"))}
        names = tuple(name for name in NAMES if asked.get(name, True))
    for name in names:
        if missing := [other for other in needed.get(name, ()) if other not in ports]:
            raise BadInputError(
                f"{name} needs {' and '.join(missing)}: start it first, or name it too, as in "
                f"--services {','.join([*missing, name])}"
            )
    urls = {name: f"http://{HOST}:{port}" for name, port in ports.items()}
    builders = {
        SANDBOX: _sandbox,
        PREFECT: _prefect_server,
        MLFLOW: _mlflow_server,
        PREFECT_WORKER: _prefect_worker,
        WORKER: _worker,
        SHADOW: _shadow,
        TABLES: _tables,
    }
    wanted = [name for name in NAMES if name in names and (name != SANDBOX or settings.venue == "sandbox")]
    return tuple(builders[name](settings, home, programs, urls) for name in wanted)


def _sandbox(settings: StackSettings, home: Home, programs: Programs, urls: Mapping[str, str]) -> Service:
    url = urls[SANDBOX]
    command = [str(programs.pipeline_bin / "python"), "-m", "infra.sandbox", "serve"]
    command += ["--port", url.rpartition(":")[2], "--state", str(home.sandbox), "--speed", f"{settings.speed:g}"]
    command += ["--symbols", str(settings.symbols), "--seed", str(settings.seed)]
    if settings.edge is not None:
        command += ["--edge", f"{settings.edge:g}"]
    if settings.replay is not None:
        command += ["--replay", settings.replay]
    return Service(
        name=SANDBOX,
        command=tuple(command),
        environment=base_environment() | {"QUANTUM_HOME": str(home.root)},
        directory=programs.repository,
        log=home.logs / "sandbox.log",
        health=Health("http", f"{url}/sandbox/status"),
        port=int(url.rpartition(":")[2]),
        url=url,
        deadline_s=120.0,
    )


def _prefect_server(_settings: StackSettings, home: Home, programs: Programs, urls: Mapping[str, str]) -> Service:
    url = urls[PREFECT]
    environment = base_environment() | {
        "PREFECT_HOME": str(home.prefect),
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home.prefect_database}",
        "PREFECT_UI_API_URL": f"{url}/api",
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": url.rpartition(":")[2],
    }
    return Service(
        name=PREFECT,
        command=(str(programs.pipeline_bin / "prefect"), "server", "start"),
        environment=environment,
        directory=home.prefect,
        log=home.logs / "prefect-server.log",
        health=Health("http", f"{url}/api/health"),
        port=int(url.rpartition(":")[2]),
        url=url,
    )


def _mlflow_server(_settings: StackSettings, home: Home, programs: Programs, urls: Mapping[str, str]) -> Service:
    url = urls[MLFLOW]
    environment = base_environment() | _environment_file(programs.repository / "mlflow" / "server.env")
    command = (
        str(programs.pipeline_bin / "mlflow"),
        "server",
        *("--host", HOST, "--port", url.rpartition(":")[2], "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{home.mlflow_database}"),
        *("--artifacts-destination", str(home.mlflow / "artifacts")),
        *("--allowed-hosts", "localhost:*,127.0.0.1:*"),
    )
    return Service(
        name=MLFLOW,
        command=command,
        environment=environment,
        directory=home.mlflow,
        log=home.logs / "mlflow.log",
        health=Health("http", f"{url}/health"),
        port=int(url.rpartition(":")[2]),
        url=url,
    )


def _environment_file(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines() if path.exists() else []
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def _prefect_worker(settings: StackSettings, home: Home, programs: Programs, urls: Mapping[str, str]) -> Service:
    return Service(
        name=PREFECT_WORKER,
        command=(
            str(programs.pipeline_bin / "prefect"),
            *("worker", "start", "--pool", WORK_POOL, "--type", "process", "--name", "local"),
        ),
        environment=client_environment(settings, home, urls),
        directory=programs.repository,
        log=home.logs / "prefect-worker.log",
        health=Health("prefect-worker", f"{urls[PREFECT]}/api"),
        needs=(PREFECT,),
        # A flow run may sit in native code, or lose the request in a callback. It is closed as crashed before another
        # starts, so there is nothing worth waiting for.
        grace_s=3.0,
    )


def _worker(settings: StackSettings, home: Home, programs: Programs, urls: Mapping[str, str]) -> Service:
    environment = client_environment(settings, home, urls) | {"PYTHONPATH": str(programs.repository)}
    return Service(
        name=WORKER,
        command=(str(programs.worker_python), "-m", "inference.cli", "worker"),
        environment=environment,
        directory=home.root,
        log=home.logs / "worker.log",
        health=Health("worker", str(home.worker_status)),
        needs=(SANDBOX, MLFLOW) if settings.venue == "sandbox" else (MLFLOW,),
        # On SIGTERM it finishes its batch of decisions and leaves the protective stops at the venue.
        grace_s=20.0,
    )


def _shadow(settings: StackSettings, home: Home, programs: Programs, urls: Mapping[str, str]) -> Service:
    environment = client_environment(settings, home, urls) | {"PYTHONPATH": str(programs.repository)}
    # It has no account, and is not told of one.
    known = {name: value for name, value in environment.items() if name not in ("QT_API_KEY", "QT_API_SECRET")}
    return Service(
        name=SHADOW,
        command=(str(programs.worker_python), "-m", "inference.cli", "worker", "--shadow"),
        environment=known,
        directory=home.root,
        log=home.logs / "shadow-worker.log",
        health=Health("worker", str(home.shadow_status)),
        needs=(SANDBOX, MLFLOW) if settings.venue == "sandbox" else (MLFLOW,),
    )


def _tables(settings: StackSettings, home: Home, programs: Programs, urls: Mapping[str, str]) -> Service:
    environment = client_environment(settings, home, urls) | {"PYTHONPATH": str(programs.repository)}
    # It reads the journal and writes rows; it has no account, and is not told of one.
    known = {name: value for name, value in environment.items() if name not in ("QT_API_KEY", "QT_API_SECRET")}
    return Service(
        name=TABLES,
        command=(str(programs.pipeline_bin / "python"), "-m", "inference.cli", "db", "follow"),
        environment=known,
        directory=home.root,
        log=home.logs / "tables.log",
        health=Health("worker", str(home.tables_status)),
    )
