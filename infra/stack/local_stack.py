"""The whole stack of one home as a person starts it: servers, deployments and the inference worker together."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from feature_store.candle import Timeframe
from feature_store.clock import utc_now
from feature_store.errors import BadInputError, UnknownTimeframeError
from infra.stack import processes
from infra.stack.checks import sqlite_damage
from infra.stack.errors import PortTakenError, ServiceFailedError, StackError
from infra.stack.home import Home, Programs
from infra.stack.prefect_api import PrefectServer
from infra.stack.record import read_record
from infra.stack.rest import JsonApi
from infra.stack.retraining import are_scheduled
from infra.stack.services import (
    MARKET_SETTINGS,
    MLFLOW,
    NAMES,
    PREFECT,
    PREFECT_WORKER,
    SANDBOX,
    SHADOW,
    TABLES,
    WORKER,
    Service,
    StackSettings,
    client_environment,
    plan,
)
from infra.stack.supervisor import Supervisor

LEAST_FREE_BYTES = 2 * 1024**3
VENUES = ("sandbox", "binanceusdm", "binance", "bitfinex")
_FULL_BYTES = 256 * 1024**2
_DEPLOY_DEADLINE_S = 180.0
_SERVERS = (SANDBOX, PREFECT, MLFLOW)


@dataclass(slots=True)
class LocalStack:
    """One home's services under one set of settings."""

    home: Home
    settings: StackSettings
    say: Callable[[str], None]
    programs: Programs
    supervisor: Supervisor
    services: tuple[Service, ...] = ()

    @property
    def urls(self) -> dict[str, str]:
        """The addresses of the servers."""
        return {service.name: service.url for service in self.services if service.url is not None}

    def prepare(self, names: tuple[str, ...] = NAMES) -> None:
        """
        Check what must be there, mend what an interrupted run left, and settle ports and order.

        Raises:
            BadInputError: A setting cannot work.
            StackError: Something needed is missing or damaged; one sentence says what.
        """
        check_settings(self.settings)
        check_timeframe(os.environ)
        self.programs.check(with_worker=WORKER in names or SHADOW in names)
        for sentence in self.supervisor.load():
            self.say(sentence)
        self.home.prepare()
        check_disk(self.home)
        if not self.home.prefect_database.exists():
            self._deployed.unlink(missing_ok=True)
        running = self.supervisor.record.services
        check_databases({name: self._databases[name] for name in names if name in self._databases.keys() - running})
        self._settle_ports(names)
        self.supervisor.remember(msgspec.to_builtins(self.settings))

    @property
    def _deployed(self) -> Path:
        return self.home.prefect / "deployed.digest"

    @property
    def _databases(self) -> dict[str, Path]:
        return {PREFECT: self.home.prefect_database, MLFLOW: self.home.mlflow_database}

    def _settle_ports(self, names: tuple[str, ...]) -> None:
        ports = self.supervisor.choose_ports({*names, *self.supervisor.record.services})
        self.services = plan(self.settings, self.home, self.programs, ports, names)

    async def _up_servers(self) -> None:
        """Start the servers; one whose port was snatched away meanwhile gets another."""
        for _ in range(3):
            try:
                await self.supervisor.up([service for service in self.services if service.name in _SERVERS])
            except PortTakenError as error:
                self.say(f"Another program took port {error.port} while {error.name} was starting; trying another.")
                await self.supervisor.stop([error.name])
                self._settle_ports(tuple(service.name for service in self.services))
            else:
                return
        raise StackError("Ports are taken away faster than servers start; see what else starts here, then try again")

    async def start_servers(self) -> None:
        """Start the exchange, Prefect and MLflow at once, then Prefect's worker on a tidied queue."""
        executor = next((service for service in self.services if service.name == PREFECT_WORKER), None)
        running = self.supervisor.record.services.get(PREFECT_WORKER)
        if executor is not None and running is not None and running.digest != executor.digest:
            await self.supervisor.stop([PREFECT_WORKER])
        await self._up_servers()
        # One in good order still executes its runs. Without it nobody does, whatever Prefect's database says.
        if executor is None or await self.supervisor.adopt(executor):
            return
        if PREFECT in self.urls:
            async with JsonApi("Prefect", self.urls[PREFECT]) as api:
                closed = await PrefectServer(api).end_interrupted_runs(utc_now())
            if closed:
                self.say(f"Closed {closed} flow run{'s' if closed > 1 else ''} that had been interrupted.")
        await self.supervisor.up([executor])

    async def start_worker(self) -> None:
        """Start the inference worker, and beside it what scores challengers or makes tables, where that was asked."""
        await self.supervisor.up([service for service in self.services if service.name in (WORKER, SHADOW, TABLES)])

    async def deploy(self, *, schedules: bool = True) -> bool:
        """
        Deploy prefect.yaml, unless exactly this was deployed here before; without schedules they are there but paused.

        QT_SCHEDULES=false in the environment pauses them whatever is asked for.

        Returns:
            Whether anything was deployed.

        Raises:
            StackError: Prefect refused a deployment.
        """
        schedules = schedules and are_scheduled()
        digest = self._deployment_digest(schedules=schedules)
        if self._deployed.exists() and self._deployed.read_text() == digest:
            return False
        marks = {processes.MARK: self.supervisor.record.stack_id, processes.SERVICE: "prefect-deploy"}
        log = self.home.logs / "prefect-deploy.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                str(self.programs.pipeline_bin / "prefect"),
                *("--no-prompt", "deploy", "--all"),
                cwd=self.programs.repository,
                env=client_environment(self.settings, self.home, self.urls)
                | {"QT_SCHEDULES": "true" if schedules else "false"}
                | marks,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
            )
            try:
                async with asyncio.timeout(_DEPLOY_DEADLINE_S):
                    code = await process.wait()
            except BaseException:  # Nothing that we started outlives us, cancelled or late; then raise on.
                process.kill()
                await process.wait()
                raise
        if code != 0:
            raise ServiceFailedError(
                "prefect deploy", f"ended with status {code}", log, log.read_text(errors="replace")[-2000:]
            )
        self._deployed.write_text(digest)
        return True

    def _deployment_digest(self, *, schedules: bool) -> str:
        sources = [
            self.programs.repository / "prefect.yaml",
            *sorted((self.programs.repository / "flows").glob("*.py")),
        ]
        missing = [path for path in sources[:1] if not path.exists()]
        if missing:
            raise StackError(f"{missing[0]} is missing; the deployments are described there")
        told = [path.read_bytes() for path in sources] + [
            str(schedules).encode(),
            os.environ.get("QT_SOURCES", "").encode(),
        ]
        return hashlib.sha256(b"\0".join(told)).hexdigest()

    async def stop(self) -> list[str]:
        """Stop everything; return the names of those that had to be killed."""
        return await self.supervisor.stop()


def make_stack(home: Home, settings: StackSettings, say: Callable[[str], None]) -> LocalStack:
    """Wire a stack; nothing runs yet."""
    return LocalStack(home, settings, say, Programs(), Supervisor(home, say))


def settle(home: Home, new: StackSettings | None = None, *, fresh: bool = False, **asked: Any) -> StackSettings:
    """
    Complete what a person asked for with what this home was made with; what was not said stays as it is.

    A home without a market begins with the settings of `new`.

    Raises:
        BadInputError: Another market was asked for than the one whose candles and trades lie here.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    record, _ = read_record(home.record)
    has_market = home.sandbox.is_dir() and any(home.sandbox.iterdir())
    if fresh or record is None or not record.settings or not has_market:
        return msgspec.structs.replace(new or StackSettings(), **given)
    before = msgspec.convert(record.settings, StackSettings)
    settings = msgspec.structs.replace(before, **given)
    changed = [name for name in MARKET_SETTINGS if getattr(before, name) != getattr(settings, name)]
    if changed:
        asked_for = ", ".join(
            f"--{name} {getattr(settings, name)} (was {_shown(getattr(before, name))})" for name in changed
        )
        raise BadInputError(
            f"{home.root} holds another market than {asked_for}; "
            "begin anew with `qtctl demo --fresh`, or set QUANTUM_HOME to another folder"
        )
    return settings


def _shown(value: object) -> object:
    return "the default" if value is None else value


def check_settings(settings: StackSettings) -> None:
    """
    Refuse settings that cannot work.

    Raises:
        BadInputError: One of them cannot; the message says which and what would.
    """
    if settings.venue not in VENUES:
        raise BadInputError(f"Unknown venue {settings.venue!r}; --venue takes one of: {', '.join(VENUES)}")
    if settings.speed <= 0:
        raise BadInputError(f"--speed is the sandbox's clock against the wall's, above 0, was {settings.speed:g}")
    if settings.symbols < 1:
        raise BadInputError(f"--symbols is how many symbols the sandbox trades, was {settings.symbols}")


def check_timeframe(environment: Mapping[str, str]) -> None:
    """
    Refuse a timeframe that the worker and the flows would refuse later.

    Raises:
        BadInputError: There is no such timeframe.
    """
    try:
        Timeframe.parse(environment.get("QT_TIMEFRAME") or Timeframe.M5)
    except UnknownTimeframeError as error:
        raise BadInputError(f"QT_TIMEFRAME: {error}") from None


def check_databases(files: Mapping[str, Path]) -> None:
    """
    Refuse to start a server on a damaged file, which would only end in a traceback.

    Raises:
        StackError: A file is damaged; it stays as it is.
    """
    for name, path in files.items():
        if path.exists() and (damage := sqlite_damage(path)) is not None:
            raise StackError(
                f"The SQLite file of {name} is damaged ({damage}) and was left as it is; restore {path} from a backup, "
                f"or begin anew without it: mv {path} {path}.damaged"
            )


def check_disk(home: Home, least: int = LEAST_FREE_BYTES) -> None:
    """
    Refuse to start where the disk would soon be full.

    Raises:
        StackError: Less is free than a run needs.
    """
    free = shutil.disk_usage(home.root).free
    if free < least:
        raise StackError(
            f"Only {free / 1024**3:.1f} GiB are free for {home.root}, a run needs {least / 1024**3:.0f}; "
            "free some space, or set QUANTUM_HOME to a folder on another disk"
        )


def disk_note(home: Home) -> str:
    """Name a full disk as the likely reason of a failure; nothing where there is room."""
    free = shutil.disk_usage(home.root).free
    if free >= _FULL_BYTES:
        return ""
    return f"; only {free / 1024**2:.0f} MiB are left on the disk of {home.root}: free some space first"
