"""How the services of one home are started in order, watched, taken over from an earlier command, and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC
from typing import Literal

import msgspec
import psutil

from feature_store.clock import monotonic, utc_now
from infra.stack import processes
from infra.stack.errors import PortTakenError, ServiceFailedError, StackBusyError, StackError
from infra.stack.health import is_ready
from infra.stack.home import Home
from infra.stack.ports import any_free, holder, is_free, is_listening, reserve
from infra.stack.record import (
    ServiceRecord,
    StackRecord,
    new_record,
    read_record,
    stack_id_in,
    write_record,
)
from infra.stack.services import PREFECT_WORKER, PREFERRED_PORTS, WORKER, Service

_ADOPTION_PATIENCE_S = 5.0
_STRAY_GRACE_S = 3.0
# Two locks, taken in this order: one for as long as somebody needs what he started, one for each change of it.
_BUSY = {
    "demo": "A demonstration, or another command that starts services, is under way in",
    "stack": "Another command is at this moment working on",
}


class Supervisor:
    """
    Starts and stops the processes of one home.

    Every process carries the home's mark in its environment, so that after any crash, of a service, of this program
    or of both, what is still running can be found, and nothing else can be mistaken for it.
    """

    def __init__(self, home: Home, say: Callable[[str], None]) -> None:
        self._home = home
        self._say = say
        self._record = new_record()
        self._changing = asyncio.Lock()
        self._reservations: dict[int, int] = {}

    @property
    def record(self) -> StackRecord:
        """What is known to run."""
        return self._record

    @contextlib.contextmanager
    def exclusive(self, name: Literal["stack", "demo"] = "stack") -> Iterator[None]:
        """
        Hold one of the home's locks; the kernel lets go of it when this program ends, however it ends.

        Lock "stack" is held while services are started or stopped. Lock "demo" is held by a demonstration for its
        whole life, and by `up`: neither may build on services that the other is about to stop.

        Raises:
            StackBusyError: Another command holds it.
            StackError: The home cannot be written.
        """
        with contextlib.ExitStack() as held:
            try:
                self._home.root.mkdir(parents=True, exist_ok=True)
                lock = held.enter_context((self._home.root / f".{name}.lock").open("w"))
            except OSError as error:
                raise self._home.unwritable(error) from error
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackBusyError(
                    f"{_BUSY[name]} {self._home.root}; wait until it has ended, or set QUANTUM_HOME to another folder"
                ) from None
            yield

    def load(self) -> list[str]:
        """
        Read the record, repair it where an earlier run was interrupted, and end what nobody answers for.

        Returns:
            One sentence for each thing that had to be mended.
        """
        mended: list[str] = []
        found, damage = read_record(self._home.record)
        if damage is not None:
            mark = stack_id_in(self._home.record)
            aside = self._home.record.with_suffix(".damaged.json")
            self._home.record.replace(aside)
            mended.append(f"stack.json could not be read ({damage}); it was set aside as {aside.name} and begun anew.")
            found = StackRecord(stack_id=mark) if mark else None
        self._record = found or new_record()
        if gone := self.dead():
            for name in gone:
                self._record = self._record.without_service(name)
            services = "Service" if len(gone) == 1 else "Services"
            mended.append(f"{services} {', '.join(gone)} had ended without being stopped.")
        mended += self._end_strays()
        # Whoever frees a full disk must be able to stop what fills it.
        with contextlib.suppress(StackError):
            self._save()
        return mended

    def _end_strays(self) -> list[str]:
        strays: dict[str, int] = {}
        for process in processes.marked(self._record.stack_id):
            service = processes.service_of(process)
            if service not in self._record.services:
                strays[service] = strays.get(service, 0) + 1
        for service in strays:
            processes.end(self._record.stack_id, service, _STRAY_GRACE_S)
        return [
            f"Stopped {count} process{'es' if count > 1 else ''} of {service} left by an interrupted run."
            for service, count in strays.items()
        ]

    def choose_ports(self, names: Iterable[str]) -> dict[str, int]:
        """
        Keep the ports of what runs; prefer this home's last ones, then the usual, and say so where one is taken.

        Reports and artifacts link to MLflow and Prefect by address, so a home that moved once stays where it moved to.
        """
        ports: dict[str, int] = {}
        for name, usual in PREFERRED_PORTS.items():
            if name not in names:
                continue
            preferred = self._record.ports.get(name, usual)
            running = self._record.services.get(name)
            if running is not None and running.port is not None:
                ports[name] = running.port
            elif self._reserves(preferred):
                ports[name] = preferred
            elif preferred != usual and self._reserves(usual):
                ports[name] = usual
                self._say(f"Port {preferred} is in use by {holder(preferred)}; {name} uses {usual} instead.")
            else:
                ports[name] = next(port for port in iter(any_free, 0) if self._reserves(port))
                self._say(f"Port {preferred} is in use by {holder(preferred)}; {name} uses {ports[name]} instead.")
        return ports

    def _reserves(self, port: int) -> bool:
        if not is_free(port) or (reservation := reserve(port)) is None:
            return False
        self._reservations[port] = reservation
        return True

    async def up(self, services: Sequence[Service]) -> None:
        """
        Bring every service up, those that need nothing from one another at the same time.

        Raises:
            ServiceFailedError: One ended or was not ready in time; the others keep running.
        """
        ready = {service.name: asyncio.Event() for service in services}

        async def bring_up(service: Service) -> None:
            for need in service.needs:
                if need in ready:
                    await ready[need].wait()
            await self._ensure(service)
            ready[service.name].set()

        try:
            async with asyncio.TaskGroup() as group:
                for service in services:
                    group.create_task(bring_up(service))
        except* StackError as failures:
            raise failures.exceptions[0] from None

    async def _ensure(self, service: Service) -> None:
        if not await self.adopt(service):
            await self._start(service)

    async def adopt(self, service: Service) -> bool:
        """Take over a service that an earlier command left in good order; one that is not is stopped."""
        known = self._record.services.get(service.name)
        if known is None:
            return False
        if processes.find(known.pid, known.create_time, self._record.stack_id) is not None:
            if known.digest != service.digest:
                self._say(f"Service {service.name} runs with other settings; restarting it.")
            elif await self._ready_within(service, known):
                return True
            else:
                self._say(f"Service {service.name} runs but does not answer; restarting it.")
        await self.stop([service.name])
        return False

    async def _ready_within(self, service: Service, known: ServiceRecord) -> bool:
        # One that a failed or interrupted command left starting gets the time that starting takes.
        patience_s = service.deadline_s if known.state == "starting" else _ADOPTION_PATIENCE_S
        end = monotonic() + patience_s
        while not await is_ready(service.health, known.started_at):
            if monotonic() > end or processes.find(known.pid, known.create_time, self._record.stack_id) is None:
                return False
            await asyncio.sleep(0.2)
        if not self._listens(service):
            return False
        await self._note(service.name, msgspec.structs.replace(known, state="running"))
        return True

    def _listens(self, service: Service) -> bool:
        """Tell whether it is our service, and not a stranger on its port, that answered."""
        if service.port is None:
            return True
        return is_listening(processes.marked(self._record.stack_id, [service.name]), service.port)

    async def _start(self, service: Service) -> None:
        marks = {processes.MARK: self._record.stack_id, processes.SERVICE: service.name}
        started_at = utc_now()
        try:
            pid = processes.start(
                service.command,
                environment={**service.environment, **marks},
                directory=service.directory,
                log=service.log,
            )
        except OSError as error:
            raise ServiceFailedError(
                service.name, f"could not be started ({error.strerror}: {service.command[0]})", service.log, ""
            ) from error
        known = ServiceRecord(
            pid=pid,
            create_time=psutil.Process(pid).create_time(),
            url=service.url,
            port=service.port,
            log=str(service.log),
            state="starting",
            digest=service.digest,
            started_at=started_at.astimezone(UTC),
            grace_s=service.grace_s,
        )
        await self._note(service.name, known)
        deadline = monotonic() + service.deadline_s
        while not await is_ready(service.health, started_at):
            if (code := processes.exit_status(pid)) is not None:
                await self._note(service.name, None)
                if service.port is not None and not is_free(service.port):
                    raise PortTakenError(service.name, service.port)
                raise ServiceFailedError(
                    service.name, f"ended with status {code} while starting", service.log, processes.tail(service.log)
                )
            if monotonic() > deadline:
                raise ServiceFailedError(
                    service.name,
                    f"was not ready after {service.deadline_s:.0f} s",
                    service.log,
                    processes.tail(service.log),
                )
            await asyncio.sleep(0.15)
        if service.port is not None:
            if not await asyncio.to_thread(self._listens, service):
                raise PortTakenError(service.name, service.port)
            if service.port in self._reservations:
                os.close(self._reservations.pop(service.port))
        await self._note(service.name, msgspec.structs.replace(known, state="running"))

    async def stop(self, names: Iterable[str] | None = None) -> list[str]:
        """
        Stop services in the reverse of their order, each with everything it started.

        Returns:
            The names of those that had to be killed.
        """
        wanted = set(self._record.services if names is None else names)
        killed: list[str] = []

        async def end(name: str) -> None:
            known = self._record.services.get(name)
            grace_s = _STRAY_GRACE_S if known is None else known.grace_s
            if await asyncio.to_thread(processes.end, self._record.stack_id, name, grace_s):
                killed.append(name)
            # A record that cannot be written must not keep the others running; the next command mends it.
            with contextlib.suppress(StackError):
                await self._note(name, None)

        # Those that others need end last; servers need nothing from one another.
        for name in (WORKER, PREFECT_WORKER):
            if name in wanted:
                await end(name)
        await asyncio.gather(*(end(name) for name in wanted - {WORKER, PREFECT_WORKER}))
        return killed

    def dead(self) -> list[str]:
        """Name the services that should run and do not."""
        return [
            name
            for name, known in self._record.services.items()
            if processes.find(known.pid, known.create_time, self._record.stack_id) is None
        ]

    async def _note(self, name: str, known: ServiceRecord | None) -> None:
        async with self._changing:
            if known is None:
                self._record = self._record.without_service(name)
            else:
                self._record = self._record.with_service(name, known)
            await asyncio.to_thread(self._save)

    def remember(self, settings: dict[str, object]) -> None:
        """Keep the chosen settings, so that a later command can say or repeat them."""
        self._record = msgspec.structs.replace(self._record, settings=settings)
        self._save()

    def _save(self) -> None:
        try:
            write_record(self._home.record, self._record)
        except OSError as error:
            raise self._home.unwritable(error) from error
