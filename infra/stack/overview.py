"""What runs at this moment: services, champion and worker, read from outside."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
import psutil
from rich.console import Console
from rich.table import Table

from feature_store.clock import utc_now
from feature_store.json_text import UNREADABLE
from infra.stack import processes
from infra.stack.errors import StackError
from infra.stack.health import is_ready
from infra.stack.home import Home
from infra.stack.mlflow_api import MlflowServer
from infra.stack.record import ServiceRecord, StackRecord, read_record
from infra.stack.rest import JsonApi
from infra.stack.retraining import RetrainingView, look_at_jobs
from infra.stack.services import MLFLOW, PREFECT, PREFECT_WORKER, SANDBOX, SHADOW, TABLES, WORKER, Health

_MEASURES = {"hit_rate": "hit rate", "brier": "Brier score", "promised": "what training promised"}
_HEALTH_PATHS = {SANDBOX: "/sandbox/status", PREFECT: "/api/health", MLFLOW: "/health"}


class ServiceView(msgspec.Struct, frozen=True, kw_only=True):
    """One service as it is now."""

    pid: int
    health: str
    url: str | None
    uptime_s: float
    memory_mb: float
    log: str


class StackView(msgspec.Struct, frozen=True, kw_only=True):
    """The stack as it is now."""

    home: str
    services: dict[str, ServiceView]
    champion: dict[str, str] | None
    worker: dict[str, Any] | None
    settings: dict[str, Any]
    retraining: RetrainingView | None = None


async def look(home: Home) -> StackView:
    """
    Ask every service how it is.

    Raises:
        StackError: The record of the stack is damaged.
    """
    record, damage = read_record(home.record)
    if damage is not None:
        raise StackError(f"{home.record} cannot be read ({damage}); `qtctl up` sets it aside and finds what still runs")
    if record is None:
        return StackView(home=str(home.root), services={}, champion=None, worker=None, settings={})
    services = {name: await _view(name, known, record, home) for name, known in record.services.items()}
    return StackView(
        home=str(home.root),
        services=services,
        champion=await _champion(record),
        worker=read_worker_status(home),
        settings=record.settings,
        retraining=look_at_jobs(home.root, utc_now()),
    )


async def _view(name: str, known: ServiceRecord, record: StackRecord, home: Home) -> ServiceView:
    process = processes.find(known.pid, known.create_time, record.stack_id)
    if process is None:
        health = "gone"
    else:
        health = "ready" if await is_ready(_health(name, known, record, home), known.started_at) else "not answering"
    memory = sum(_memory(one) for one in processes.marked(record.stack_id, [name])) if process else 0.0
    return ServiceView(
        pid=known.pid,
        health=health,
        url=known.url,
        uptime_s=round((utc_now() - known.started_at).total_seconds(), 1),
        memory_mb=round(memory / 1024**2, 1),
        log=known.log,
    )


def _health(name: str, known: ServiceRecord, record: StackRecord, home: Home) -> Health:
    if name in _HEALTH_PATHS:
        return Health("http", f"{known.url}{_HEALTH_PATHS[name]}")
    if name == PREFECT_WORKER and PREFECT in record.services:
        return Health("prefect-worker", f"{record.services[PREFECT].url}/api")
    if name in (WORKER, SHADOW):
        return Health("worker", str(home.worker_status if name == WORKER else home.shadow_status))
    if name == TABLES:
        return Health("worker", str(home.tables_status))
    return Health("process", name)


def _memory(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error):
        return float(process.memory_info().rss)
    return 0.0


async def _champion(record: StackRecord) -> dict[str, str] | None:
    known = record.services.get(MLFLOW)
    if known is None or known.url is None:
        return None
    with contextlib.suppress(StackError):
        async with JsonApi("MLflow", known.url) as api:
            champion = await MlflowServer(api).champion()
            if champion is not None:
                return {"version": champion.version, "gate_verdict": champion.verdict}
    return None


def read_worker_status(home: Home) -> dict[str, Any] | None:
    """Return what the inference worker last wrote about itself, or None."""
    try:
        return msgspec.json.decode(home.worker_status.read_bytes(), type=dict[str, Any])
    except (OSError, *UNREADABLE):
        return None


def show(view: StackView, console: Console) -> None:
    """Print the stack as a table."""
    if not view.services:
        console.print(f"Nothing runs under {view.home}; `qtctl up` starts the stack.")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("service", "health", "address", "up for", "memory"):
        table.add_column(heading)
    for name, one in view.services.items():
        table.add_row(name, one.health, one.url or "", f"{one.uptime_s:.0f} s", f"{one.memory_mb:.0f} MB")
    console.print(table)
    champion = view.champion
    console.print(
        f"champion: version {champion['version']}, gates: {champion['gate_verdict']}" if champion else "champion: none"
    )
    if view.retraining is not None:
        console.print(_retraining(view.retraining))
    if view.worker is not None and WORKER in view.services:
        _show_worker(view.worker, console)


def _show_worker(worker: Mapping[str, Any], console: Console) -> None:
    played = {
        "paper": f" on paper, at prices of {worker.get('venue')}",
        "testnet": f" with play money, on the test network of {worker.get('venue')}",
    }.get(str(worker.get("mode")), "")
    console.print(f"worker: {worker.get('state')}{played} {worker.get('reason') or ''}".rstrip())
    for told in (
        health_told(worker.get("health") or {}),
        result_told(worker),
        *map(hold_told, worker.get("holds") or ()),
        bus_told(worker.get("bus") or {}),
        challenger_told(worker.get("shadow") or {}),
        bias_told(worker.get("bias") or {}),
        quality_told(worker.get("quality") or {}),
        members_told(worker.get("members") or {}),
    ):
        if told:
            console.print(told)


def health_told(health: Mapping[str, Any]) -> str:
    """Say how well the worker is and what keeps it from the best, or nothing where it does not say."""
    if not health:
        return ""
    because = "; ".join(health.get("reasons") or ())
    return f"health: {health['level']}" + (f" ({because})" if because else "")


def result_told(worker: Mapping[str, Any]) -> str:
    """Say what trading came to, funding included, or nothing before any money has moved."""
    pnl, fees, funding = (Decimal(str(worker.get(name) or 0)) for name in ("realized_pnl", "fees", "funding"))
    closed = worker.get("closed_trades") or 0
    if not closed and not funding:
        return ""
    return (
        f"result: {pnl + funding:.4f} = {closed} trades, profit and loss {pnl:.4f} after fees of {fees:.4f},"
        f" and funding {funding:+.4f}"
    )


def hold_told(hold: Mapping[str, Any]) -> str:
    """Say what the venue said that holds entries back, and for how long."""
    if hold["what"] == "bus":
        return f"entries: HELD in all symbols while the event bus takes nothing ({hold['because']})"
    where = {"account": "in all symbols", "reduce-only": "in all symbols, the account may only reduce"}
    what = where.get(hold["what"], f"in {hold['what']}")
    return f"entries: HELD {what} for {hold['seconds_left']:.0f} s more, the venue said {hold['because']}"


def bus_told(bus: Mapping[str, Any]) -> str:
    """Say that the event bus does not take what is journaled, or nothing while it does."""
    if not bus.get("late"):
        return ""
    trouble = bus.get("trouble") or "it takes nothing"
    return f"events: LATE, waiting for {bus['waiting_seconds']:.0f} s for the bus ({bus['where']}): {trouble}"


def challenger_told(shadow: Mapping[str, Any]) -> str:
    """Say which version is scored beside what trades, or nothing where none is."""
    if not shadow.get("version"):
        return ""
    return f"challenger: version {shadow['version']}, {shadow['state']}, {shadow['candles']} candles"


def bias_told(bias: Mapping[str, Any]) -> str:
    """Say that the worker's signals are biased and what follows, or nothing where they are not."""
    if not bias.get("found"):
        return ""
    follows = "entries on that side are refused" if bias.get("mode") == "enforce" else "only observed"
    return (
        f"signals: BIASED to {bias['side']}, {bias['share']:.0%} over {bias['candles']} candles"
        f" (limit {bias['limit']:.0%}), {follows}"
    )


_DONE = {
    "shrink": "; sizes are halved",
    "stop": "; nothing is entered",
    "back": "; nothing is entered until another model has taken over",
}


def quality_told(quality: Mapping[str, Any]) -> str:
    """Say how often the worker's opinions were right and how sure they had been, or nothing before any has matured."""
    if not quality:
        return ""
    told = (
        f"opinions: {quality['right']:.1%} right, {quality['stated']:.1%} stated,"
        f" over {quality['candles']} matured candles"
    )
    done = _DONE.get(quality.get("fallback", ""), "")
    if not quality.get("poor_by"):
        return told + done
    shown = f"{quality['outcomes']} independent outcomes, evidence {quality['evidence']:.0f} of {quality['limit']:.0f}"
    return f"{told}; POOR by {_MEASURES.get(quality['poor_by'], quality['poor_by'])} ({shown}){done}"


def members_told(members: Mapping[str, Mapping[str, Any]]) -> str:
    """Say what each member of the ensemble answered since the start, or nothing before any did."""
    return "\n".join(f"{name}: {_member_told(one)}" for name, one in members.items() if one.get("predictions"))


def _member_told(one: Mapping[str, Any]) -> str:
    told = f"{one['predictions']} predictions"
    if one["not_finite"]:
        told = f"{told}, {one['not_finite']} not finite"
    if one["voted"]:
        told = f"{told}, {one['agreed'] / one['voted']:.0%} with the vote"
    took = (one.get("latency_ms") or {}).get("p50")
    return told if took is None else f"{told}, {took:.1f} ms a candle"


def _retraining(view: RetrainingView) -> str:
    told = f"retraining: {view.last_job} {view.status} ({view.trigger})"
    if view.hours_since_success is not None:
        told = f"{told}, one ended well {view.hours_since_success:.1f} h ago"
    elif view.hours_since_first is not None:
        told = f"{told}, none ever ended well, the first was ordered {view.hours_since_first:.1f} h ago"
    if not view.is_stale:
        return told
    return f"{told}: STALE, the alarm is at {view.limit_hours:g} h; `qtctl jobs` says why"
