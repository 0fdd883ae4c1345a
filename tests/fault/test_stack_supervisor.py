"""The supervisor's mechanics on small real processes: start, take over, recover, stop, and never touch others."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil
import pytest

from infra.stack import processes
from infra.stack.errors import PortTakenError, ServiceFailedError, StackBusyError
from infra.stack.home import Home
from infra.stack.ports import is_free
from infra.stack.record import ServiceRecord, read_record
from infra.stack.services import Health, Service
from infra.stack.supervisor import Supervisor
from tests.stack_fixtures import free_port

ROOT = Path(__file__).resolve().parents[2]
# A server that leaves a child in a session of its own, as Prefect's worker does with flow runs.
SERVER = """
import http.server, subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def web_service(home: Home, port: int, *, name: str = "web", extra: str = "", grace_s: float = 60.0) -> Service:
    return Service(
        name=name,
        command=(sys.executable, "-c", SERVER, str(port), extra),
        environment=dict(os.environ),
        directory=home.root,
        log=home.logs / f"{name}.log",
        health=Health("http", f"http://127.0.0.1:{port}/"),
        port=port,
        url=f"http://127.0.0.1:{port}",
        deadline_s=100.0,
        grace_s=grace_s,
    )


def script(home: Home, code: str, *, deadline_s: float = 100.0) -> Service:
    return Service(
        name="script",
        command=(sys.executable, "-c", code),
        environment=dict(os.environ),
        directory=home.root,
        log=home.logs / "script.log",
        health=Health("http", f"http://127.0.0.1:{free_port()}/"),
        deadline_s=deadline_s,
    )


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path)
    home.prepare()
    yield home
    record, _ = read_record(home.record)
    if record is not None:
        for process in processes.marked(record.stack_id):
            process.kill()


def loaded(home: Home, said: list[str] | None = None) -> Supervisor:
    supervisor = Supervisor(home, (said if said is not None else []).append)
    supervisor.load()
    return supervisor


async def started(home: Home, port: int, *, grace_s: float = 60.0) -> Supervisor:
    supervisor = loaded(home)
    await supervisor.up([web_service(home, port, grace_s=grace_s)])
    return supervisor


async def test_a_service_starts_answers_and_stops_with_everything_it_started(home):
    """Stopping leaves neither the process nor children that moved to sessions of their own."""
    supervisor = await started(home, free_port())
    stack_id = supervisor.record.stack_id

    assert len(processes.marked(stack_id)) == 2
    assert supervisor.record.services["web"].state == "running"

    assert await supervisor.stop() == []
    assert processes.marked(stack_id) == []
    assert read_record(home.record)[0].services == {}


async def test_a_second_command_takes_over_what_runs(home):
    """With equal settings nothing is restarted: the process is the same before and after."""
    port = free_port()
    first = await started(home, port)
    second = await started(home, port)

    assert second.record.services["web"].pid == first.record.services["web"].pid


async def test_other_settings_restart_the_service(home):
    """A process that was told something else is replaced, and the person is told."""
    port = free_port()
    first = await started(home, port)
    said: list[str] = []
    second = loaded(home, said)
    await second.up([web_service(home, port, extra="other")])

    assert second.record.services["web"].pid != first.record.services["web"].pid
    assert any("other settings" in sentence for sentence in said)
    assert len(processes.marked(second.record.stack_id)) == 2


async def test_a_service_that_hangs_is_restarted(home):
    """Running is not enough: a process that does not answer is replaced."""
    port = free_port()
    first = await started(home, port, grace_s=1.0)
    pid = first.record.services["web"].pid
    os.kill(pid, signal.SIGSTOP)
    second = await started(home, port)

    assert second.record.services["web"].pid != pid
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_a_service_that_ends_while_starting_is_reported_with_its_log(home):
    """The error carries the exit status and the last lines of the log."""
    supervisor = loaded(home)

    with pytest.raises(ServiceFailedError, match=r"(?s)ended with status 3 while starting.*no such thing"):
        await supervisor.up([script(home, "import sys; print('no such thing'); sys.exit(3)")])

    assert "script" not in supervisor.record.services


async def test_a_service_that_never_answers_is_reported_in_time(home):
    """The deadline holds, and the process can still be found and stopped."""
    supervisor = loaded(home)

    with pytest.raises(ServiceFailedError, match="not ready after 1 s"):
        await supervisor.up([script(home, "import time; time.sleep(600)", deadline_s=1.0)])

    await supervisor.stop()
    assert processes.marked(supervisor.record.stack_id) == []


async def test_a_missing_program_is_one_sentence(home):
    """A command that does not exist names itself."""
    supervisor = loaded(home)
    service = script(home, "")
    missing = Service(
        name="gone",
        command=("/no/such/program",),
        environment={},
        directory=home.root,
        log=service.log,
        health=service.health,
    )

    with pytest.raises(ServiceFailedError, match="/no/such/program"):
        await supervisor.up([missing])


async def test_a_recycled_pid_is_never_touched(home):
    """A record that points at somebody else's process neither adopts nor ends it."""
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(command) as stranger:  # noqa: ASYNC220 - starting it takes a millisecond
        try:
            supervisor = await started(home, free_port())
            known = supervisor.record.services["web"]
            await supervisor.stop()
            create_time = psutil.Process(stranger.pid).create_time()
            stolen = ServiceRecord(
                pid=stranger.pid,
                create_time=create_time,
                url=known.url,
                port=known.port,
                log=known.log,
                state="running",
                digest=known.digest,
                started_at=known.started_at,
            )
            content = json.loads(home.record.read_text())
            content["services"] = {"web": msgspec.to_builtins(stolen)}
            home.record.write_text(json.dumps(content))

            again = Supervisor(home, lambda _: None)
            mended = again.load()
            await again.stop()

            assert "web" not in again.record.services
            assert any("ended without being stopped" in sentence for sentence in mended)
            assert stranger.poll() is None
        finally:
            stranger.kill()


async def test_a_torn_record_is_set_aside_and_its_processes_found(home):
    """Half a stack.json still leads to the processes it spoke of, and they are stopped."""
    supervisor = await started(home, free_port())
    stack_id = supervisor.record.stack_id
    text = home.record.read_text()
    home.record.write_text(text[: len(text) // 2])

    mended = Supervisor(home, lambda _: None).load()

    assert processes.marked(stack_id) == []
    assert any("set aside" in sentence for sentence in mended)
    assert any("left by an interrupted run" in sentence for sentence in mended)
    assert read_record(home.record)[1] is None


async def test_a_command_killed_between_start_and_note_leaves_nothing(home):
    """A process that was started but not yet recorded is found by its mark and stopped."""
    supervisor = loaded(home)
    service = web_service(home, free_port())
    marks = {processes.MARK: supervisor.record.stack_id, processes.SERVICE: "web"}
    pid = processes.start(
        service.command, environment={**service.environment, **marks}, directory=home.root, log=service.log
    )
    await asyncio.sleep(0.5)

    mended = Supervisor(home, lambda _: None).load()

    assert not psutil.pid_exists(pid)
    assert any("interrupted run" in sentence for sentence in mended)


async def test_two_homes_do_not_see_each_other(tmp_path):
    """Stopping one home's stack leaves another's alone."""
    homes = [Home(tmp_path / name) for name in ("one", "two")]
    supervisors = []
    for home in homes:
        home.prepare()
        supervisors.append(await started(home, free_port()))
    await supervisors[0].stop()

    assert supervisors[0].dead() == []
    assert len(processes.marked(supervisors[1].record.stack_id)) == 2
    await supervisors[1].stop()


def test_a_taken_port_is_replaced_and_named(home):
    """Another program on a usual port costs one sentence and another port."""
    said: list[str] = []
    supervisor = loaded(home, said)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 9100))
            taken.listen()
        except OSError:
            pass  # Somebody else holds it already, which is the same case.
        ports = supervisor.choose_ports(["sandbox"])

    assert ports["sandbox"] != 9100
    assert len(said) == 1
    assert "Port 9100 is in use by" in said[0]


@pytest.mark.parametrize("taken", [False, True], ids=["free-again", "taken-meanwhile"])
async def test_a_home_that_moved_to_another_port_stays_there(home, taken):
    """Links in reports go on to work after a stop: a server comes back on its last port, unless that is taken."""
    last = free_port()
    supervisor = loaded(home)
    await supervisor.up([web_service(home, last, name="mlflow")])
    await supervisor.stop()
    said: list[str] = []
    with socket.socket() as other:
        if taken:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", last))
            other.listen()
        port = loaded(home, said).choose_ports(["mlflow"])["mlflow"]

    assert (port == last) is not taken
    assert any(f"Port {last} is in use by" in sentence for sentence in said) is taken


def test_two_commands_do_not_race(home):
    """Whoever comes second is told so at once."""
    first, second = Supervisor(home, print), Supervisor(home, print)
    with first.exclusive(), pytest.raises(StackBusyError, match="Another command"), second.exclusive():
        pass

    with second.exclusive():
        assert True


def test_the_lock_of_a_killed_command_is_free(home):
    """A lock held by a process that was killed does not outlive it."""
    code = (
        "import time\nfrom pathlib import Path\nfrom infra.stack.home import Home\n"
        "from infra.stack.supervisor import Supervisor\n"
        f"with Supervisor(Home(Path({str(home.root)!r})), print).exclusive():\n"
        "    print('held', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as holder:
        assert holder.stdout.readline().strip() == "held"
        with pytest.raises(StackBusyError), Supervisor(home, print).exclusive():
            pass
        holder.kill()
        holder.wait()

    with Supervisor(home, print).exclusive():
        assert True


async def test_a_stranger_on_the_port_is_not_taken_for_our_service(home):
    """A server that answers on our port but is not ours is noticed, although the health check is content."""
    port = free_port()
    stranger = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    with subprocess.Popen(  # noqa: ASYNC220 - starting it takes a millisecond
        stranger, cwd=home.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as other:
        try:
            for _ in range(2000):
                if not is_free(port):
                    break
                await asyncio.sleep(0.05)
            with pytest.raises(PortTakenError, match=str(port)):
                await loaded(home).up([web_service(home, port)])
            assert other.poll() is None
        finally:
            other.kill()


def test_two_stacks_that_start_at_once_choose_different_ports(tmp_path):
    """A port that one stack has chosen and not yet opened is not chosen by the next, until the first lets go."""
    chosen = []
    supervisors = []
    for name in ("one", "two"):
        home = Home(tmp_path / name)
        home.prepare()
        supervisors.append(loaded(home))
        chosen.append(supervisors[-1].choose_ports(["sandbox", "mlflow"]))

    assert set(chosen[0].values()).isdisjoint(chosen[1].values())
