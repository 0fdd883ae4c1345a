"""The real worker over HTTP and WebSocket at a venue whose time waits for it, and what the venue then says it did."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import msgspec

from feature_store.clock import monotonic
from inference.domain.decision import DenyCode
from inference.domain.events import CandlesDecided, FeaturesUsed
from infra.prove.record import events_in
from infra.prove.servers import Servers
from infra.prove.stage import WORKER_PYTHON, ProofError, Stage, get, post
from infra.prove.wire_candles import STEP_MS, WireCandles
from infra.prove.wire_replay import BALANCE, COSTS
from infra.sandbox.protocol.signing import Credentials

SPEED = 240
SEED = 7
# Looks at which nobody does anything, before time goes on.
_QUIET_LOOKS = 8
_LOOK_S = 0.05
# What is not the strategy's word: the worker was not ready yet, or the venue did not answer in time.
_NOT_OF_THE_STRATEGY = frozenset({DenyCode.TRADING_STATE, DenyCode.NO_QUOTE, DenyCode.STALE_DATA})
# What a worker decides first depends on when it was ready; until then no candle is waited for.
_BEGUN_BY_S = 6.0
_PATIENCE_S = 420.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Traded:
    """What the worker looked at and decided, and the venue's own record of what came of it."""

    decided: list[CandlesDecided]
    used: list[FeaturesUsed]
    orders: list[dict[str, Any]]
    algos: list[dict[str, Any]]
    fills: list[dict[str, Any]]
    funding: list[dict[str, Any]]


def trade(stage: Stage, candles: WireCandles, *, bundle: Path, policy: Path, decisions: int, name: str) -> Traded:
    """Let a worker decide so many candles in a home of its own, and stop it as a person would."""
    home = stage.home / name
    home.mkdir()
    candles.write(home / "candles.parquet")
    with Servers(stage) as servers:
        url = servers.sandbox(
            replay=home / "candles.parquet", replay_start=iso(candles.opens_ms), speed=SPEED, seed=SEED, lockstep=True,
            balance=BALANCE, taker_fee=COSTS.taker_fee, spread_bps=COSTS.spread_bps, intrabar="path",
        )  # fmt: skip
        post(f"{url}/sandbox/ctl", {"op": "lead"})
        journal = _Journal(home / "journal" / "journal.jsonl")
        with (home / "worker.log").open("wb") as log:
            process = subprocess.Popen(
                [str(WORKER_PYTHON), "-m", "inference.cli", "worker", "--policy", str(policy), "--venue-url", url,
                 "--bundle", str(bundle)],
                env=stage.environment | {"QUANTUM_HOME": str(home)}, cwd=home, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            _lead(url, journal, process, decisions)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait()
        return told(url, journal.path, tuple(candles.blocks))


class _Journal:
    """What was decided so far; read again only when it has grown."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = 0
        self._known: list[CandlesDecided] = []

    def decided(self) -> list[CandlesDecided]:
        """Return the decisions, oldest first."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size != self._size:
            self._known = [one for one in events_in(self.path) if isinstance(one, CandlesDecided)]
            self._size = size
        return self._known


def _lead(url: str, journal: _Journal, process: subprocess.Popen[bytes], decisions: int) -> None:
    ends = monotonic() + _PATIENCE_S
    while len(journal.decided()) < decisions:
        if process.poll() is not None or monotonic() > ends:
            log = (journal.path.parents[1] / "worker.log").read_text(errors="replace")
            raise ProofError(f"The worker ended, or decided too little in {_PATIENCE_S:.0f} s: {log[-1500:]}")
        _until_settled(url, journal, process.pid)
        post(f"{url}/sandbox/ctl", {"op": "go_on"})
        time.sleep(0.02)


def _until_settled(url: str, journal: _Journal, worker: int) -> None:
    """
    Return once nobody has anything left to do at this venue time.

    A worker that trades decides each candle that closes. Beyond that, on a machine however slow, it is done when none
    of its threads has run and no request was made, at several looks one after another.
    """
    looks, requests, begun_by = 0, -1, monotonic() + _BEGUN_BY_S
    while looks < _QUIET_LOOKS:
        status = get(f"{url}/sandbox/status")
        held_ms = status["held_ms"]
        quiet = held_ms is not None and asleep(worker) and status["requests"] == requests
        looks, requests = looks + 1 if quiet else 0, status["requests"]
        if looks and held_ms % STEP_MS == 0:
            newest = max((one.snapshot.candle_close_ms for one in journal.decided()), default=None)
            if monotonic() < begun_by if newest is None else newest < held_ms:
                looks = 0
        time.sleep(_LOOK_S)


def kept_out(decided: CandlesDecided) -> frozenset[str]:
    """Return the symbols that were denied for the state of the worker or the venue, of which no replay can know."""
    return frozenset(one.symbol for one in decided.denied if one.code in _NOT_OF_THE_STRATEGY)


def asleep(pid: int) -> bool:
    """Say whether no thread of a process runs or waits for its turn; one that ends meanwhile ran."""
    try:
        found = [(task / "stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return all(one.rpartition(")")[2].split()[0] in "SIZ" for one in found)


def told(url: str, journal: Path, symbols: tuple[str, ...]) -> Traded:
    """Return what a journal says was decided, and what the venue says became of it, of these native names."""
    events = events_in(journal)
    each: dict[str, list[dict[str, Any]]] = {
        path: [row for symbol in symbols for row in signed(url, path, symbol=symbol, limit=1000)]
        for path in ("/fapi/v1/allOrders", "/fapi/v1/allAlgoOrders", "/fapi/v1/userTrades")
    }
    return Traded(
        decided=[one for one in events if isinstance(one, CandlesDecided)],
        used=[one for one in events if isinstance(one, FeaturesUsed)],
        orders=each["/fapi/v1/allOrders"],
        algos=each["/fapi/v1/allAlgoOrders"],
        fills=each["/fapi/v1/userTrades"],
        funding=signed(url, "/fapi/v1/income", incomeType="FUNDING_FEE", limit=1000),
    )


def signed(url: str, path: str, **values: object) -> Any:
    """Return what the venue answers to a signed question."""
    credentials = Credentials(
        os.environ.get("QT_API_KEY", "sandbox-key"), os.environ.get("QT_API_SECRET", "sandbox-secret")
    )
    query = urlencode(values | {"timestamp": get(f"{url}/fapi/v1/time")["serverTime"], "recvWindow": 60_000})
    address = f"{url}{path}?{query}&signature={credentials.sign(query)}"
    with urlopen(Request(address, headers={"X-MBX-APIKEY": credentials.api_key}), timeout=20) as answer:
        return msgspec.json.decode(answer.read())


def iso(time_ms: int) -> str:
    """Return a time as the sandbox's command line reads it."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
