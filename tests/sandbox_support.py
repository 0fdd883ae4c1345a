"""Start the real sandbox exchange in a process of its own, for tests of those who trade on it."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).resolve().parent.parent
API_KEY = "sandbox-key"
API_SECRET = "sandbox-secret"


class SandboxFailedError(RuntimeError):
    """The sandbox ended before it answered."""


@dataclass(slots=True)
class SandboxProcess:
    """A running sandbox."""

    url: str
    ws_url: str
    process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self.process.pid

    async def get(self, path: str) -> Any:
        """Fetch a public path, such as /sandbox/audit."""
        async with aiohttp.ClientSession() as session, session.get(self.url + path) as answer:
            return await answer.json()

    async def ctl(self, **operation: Any) -> Any:
        """Use the control plane: `await sandbox.ctl(op="kill_ws")`."""
        address = self.url + "/sandbox/ctl"
        async with aiohttp.ClientSession() as session, session.post(address, json=operation) as answer:
            return await answer.json()

    async def stop(self) -> int:
        """Ask it to stop, insist after a minute, and return its exit status."""
        if self.process.returncode is None:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), 60)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        assert self.process.returncode is not None
        return self.process.returncode

    async def kill(self) -> None:
        """End it without a farewell."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


async def start_sandbox(**options: object) -> SandboxProcess:
    """
    Start `python -m infra.sandbox serve` on a free port and wait until it answers.

    Options are those of the command line with underscores: `start_sandbox(speed=60, symbols=5, edge=0)`.

    Raises:
        SandboxFailedError: It ended or stayed silent for two minutes.
    """
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in ({"port": 0} | options).items()]
    # Its own environment variables would otherwise set the keys it expects.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QT_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "infra.sandbox",
        "serve",
        *arguments,
        cwd=ROOT,
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 120)
    except TimeoutError:
        line = b""
    if not line:
        if process.returncode is None:
            process.kill()
        error = (await process.stderr.read()).decode()
        await process.wait()
        raise SandboxFailedError(f"The sandbox did not start with {arguments}: {error}")
    ready = json.loads(line)
    return SandboxProcess(ready["url"], ready["ws"], process)


@asynccontextmanager
async def running_sandbox(**options: object) -> AsyncIterator[SandboxProcess]:
    """Start a sandbox for the length of a `async with` block."""
    sandbox = await start_sandbox(**options)
    try:
        yield sandbox
    finally:
        await sandbox.stop()


def point(exchange: Any, url: str) -> Any:
    """Point an unmodified ccxt `binanceusdm` at the sandbox, with the error classes of the live venue."""
    socket = url.replace("http://", "ws://")
    api = exchange.urls["api"]
    for name, value in list(api.items()):
        if isinstance(value, str):
            api[name] = url + "/" + value.split("/", 3)[3]
    if "ws" in api:
        api["ws"].update({"linear": socket + "/ws", "ws-api": {"linear": socket + "/ws-fapi/v1"}})
    exact = exchange.exceptions["exact"]
    exchange.exceptions["exact"] = {**exact, **exchange.exceptions["linear"]["exact"]}
    return exchange


def point_spot(exchange: Any, url: str) -> Any:
    """Point an unmodified ccxt `binance` at the sandbox's spot, by its addresses alone."""
    socket = url.replace("http://", "ws://")
    api = exchange.urls["api"]
    for name, value in list(api.items()):
        if isinstance(value, str):
            api[name] = url + "/" + value.split("/", 3)[3]
    if "ws" in api:
        api["ws"].update({"spot": socket + "/stream.spot/ws", "ws-api": {"spot": socket + "/ws-api/v3"}})
    return exchange


def signed_frame(method: str, now_ms: int, **params: str) -> str:
    """Return a request over a WebSocket, signed as the live venue asks: over its parameters in order."""
    said = {"apiKey": API_KEY, "timestamp": str(now_ms), "recvWindow": "60000"} | params
    payload = "&".join(f"{name}={said[name]}" for name in sorted(said))
    signature = hmac.digest(API_SECRET.encode(), payload.encode(), "sha256").hex()
    return json.dumps({"id": method, "method": method, "params": said | {"signature": signature}})


def ccxt_options() -> dict[str, Any]:
    """Constructor options of a ccxt client for the sandbox."""
    return {
        "apiKey": API_KEY,
        "secret": API_SECRET,
        "enableRateLimit": False,
        "options": {
            "fetchCurrencies": False,
            "recvWindow": 30_000,
            "ws": {"keepAlive": 15000},
            "fetchOpenOrders": {"warnWithoutSymbol": False},
        },
    }


def point_bitfinex(exchange: Any, url: str) -> Any:
    """Point an unmodified ccxt `bitfinex` at the sandbox's other front."""
    base, socket = url + "/bitfinex", url.replace("http://", "ws://") + "/bitfinex"
    api = exchange.urls["api"]
    for name, value in list(api.items()):
        if isinstance(value, str):
            api[name] = base
    if "ws" in api:
        api["ws"] = {"public": socket + "/public/ws/2", "private": socket + "/private/ws/2"}
    return exchange
