"""The demonstration: start everything, retrain through Prefect, trade the champion, stop cleanly, sum up."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from feature_store.clock import monotonic, utc_now
from feature_store.errors import BadInputError, QuantumError
from infra.stack import processes
from infra.stack.checks import verify_journal
from infra.stack.errors import ServiceDownError, StackError
from infra.stack.figures import Report, reasons_by_line, scores_of, trading_of
from infra.stack.home import Home
from infra.stack.local_stack import LocalStack, disk_note, make_stack
from infra.stack.mlflow_api import MlflowServer, ModelVersion
from infra.stack.overview import read_worker_status
from infra.stack.prefect_api import FlowRun, PrefectServer
from infra.stack.rest import JsonApi
from infra.stack.screen import Screen, show_report
from infra.stack.services import MLFLOW, PREFECT, SANDBOX, WORKER, StackSettings

RETRAIN = "retrain/retrain"
_RETRAIN_FLOW = RETRAIN.partition("/")[0]
LEAST_SYMBOLS = 5
_TRADES = 20
_MOST_DAYS = 1500
_FOLDERS = (
    "lake", "features", "sandbox", "prefect", "mlflow", "bundles", "journal", "worker", "shadow", "candidates", "logs",
    "database",
)  # fmt: skip
_DONE, _FAILED, _NOTHING_PROMOTED = 0, 1, 3
_ONCE_MINUTES = 10.0
_IDLE_PATIENCE_S = 60.0
_IDLE_SETTLED_S = 5.0
_ERROR_LINE = re.compile(r"^[\w.]*(Error|Exception)\b.*:")
_PREFECT_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What a person may ask of the demonstration."""

    once: bool = False
    trades: int | None = None
    minutes: float | None = None
    days: int = 30
    fresh: bool = False
    retrain: bool = False
    size: str | None = None
    report: Path | None = None


def check_options(options: DemoOptions) -> None:
    """
    Refuse what cannot be asked for, before anything starts.

    Raises:
        BadInputError: One of the options cannot be; the message says what it takes.
    """
    if not 1 <= options.days <= _MOST_DAYS:
        raise BadInputError(f"--days is how many days of candles to train on, 1 to {_MOST_DAYS}, was {options.days}")
    if options.minutes is not None and not options.minutes > 0:
        raise BadInputError(f"--minutes is for how long to trade, above 0, was {options.minutes:g}")
    if options.trades is not None and options.trades < 0:
        raise BadInputError(f"--trades is how many trades must close, 0 or more, was {options.trades}")


@dataclass(slots=True)
class Demo:
    """One demonstration under way."""

    options: DemoOptions
    home: Home
    settings: StackSettings
    screen: Screen
    report: Report = field(default_factory=Report)
    trades_before: int = 0
    _started: float = field(default_factory=monotonic)

    async def run(self) -> int:
        """
        Carry the demonstration through and return its exit status; whatever happens, nothing is left running.

        Raises:
            StackError: It could not begin.
        """
        stack = make_stack(self.home, self.settings, self.screen.say)
        with stack.supervisor.exclusive("demo"):
            try:
                self._mark()
                await self._begin(stack)
                await self._play(stack)
            except asyncio.CancelledError:
                self.report.exit_status = _FAILED if self.options.once else _DONE
                self.report.outcome = "Stopped by request."
            except QuantumError as error:
                self.report.exit_status, self.report.outcome = _FAILED, str(error)
            finally:
                await _to_its_end(self._finish(stack))
        return self.report.exit_status

    def _mark(self) -> None:
        """Say whether the last demonstration here reached its end, and note that this one has not yet."""
        mark = self.home.demo_mark
        if mark.exists():
            todo = "beginning anew" if self.options.fresh else "going on from what it left"
            self.screen.say(f"An earlier demonstration here was interrupted; {todo}.")
        try:
            mark.touch()
        except OSError as error:
            raise self.home.unwritable(error) from error

    async def _begin(self, stack: LocalStack) -> None:
        with stack.supervisor.exclusive():
            if self.options.fresh:
                await self._start_over(stack)
            stack.prepare()
            self.report.settings = msgspec.to_builtins(self.settings)
            with self._step("start", f"Starting the exchange, Prefect and MLflow under {self.home.root}"):
                await stack.start_servers()
        self.report.urls = stack.urls
        self.screen.urls(stack.urls)

    async def _start_over(self, stack: LocalStack) -> None:
        stack.home.prepare()
        stack.supervisor.load()
        await stack.supervisor.stop()
        for name in _FOLDERS:
            shutil.rmtree(self.home.root / name, ignore_errors=True)

    async def _play(self, stack: LocalStack) -> None:
        async with (
            JsonApi("Prefect", stack.urls[PREFECT]) as prefect_api,
            JsonApi("MLflow", stack.urls[MLFLOW]) as mlflow_api,
            JsonApi("The sandbox exchange", stack.urls[SANDBOX]) as sandbox,
        ):
            registry = MlflowServer(mlflow_api)
            champion = await registry.champion()
            resumes = champion is not None and not self.options.retrain
            if resumes:
                self.screen.say("A champion is here already; --retrain makes another candidate.")
            else:
                await self._deploy(stack)
                with self._timed("retrain"):
                    await self._retrain(PrefectServer(prefect_api), stack)
                champion = await registry.champion()
            await self._note_model(registry, champion)
            audit = await sandbox.get("/sandbox/audit")
            self.trades_before = len(audit.get("trades") or [])
            with self._step("worker", "Starting the inference worker"), stack.supervisor.exclusive():
                await stack.start_worker()
            if resumes:
                await self._deploy(stack)
            with self._timed("trading"):
                await self._watch(stack, sandbox, promoted=champion is not None)

    async def _deploy(self, stack: LocalStack) -> None:
        with self._step("deploy", "Bringing the deployments up to date"), stack.supervisor.exclusive():
            await stack.deploy(schedules=not self.options.once)

    async def _retrain(self, prefect: PrefectServer, stack: LocalStack) -> None:
        run = await prefect.under_way(_RETRAIN_FLOW, utc_now())
        if run is not None:
            self.screen.say("A retraining is under way here already; following it.")
            run = await self._follow(prefect, run, stack)
            if run.state_type == "COMPLETED":
                return
            self.screen.say(f"It ended {run.state_name}; beginning another.")
        run = await self._follow(prefect, await prefect.start_deployment(RETRAIN, self._parameters()), stack)
        # Only one may run at a time: a schedule may have been a moment faster.
        if run.state_type == "CANCELLED" and (other := await prefect.under_way(_RETRAIN_FLOW, utc_now())) is not None:
            self.screen.say("A retraining had begun before; following that one.")
            run = await self._follow(prefect, other, stack)
        if run.state_type != "COMPLETED":
            await self._explain_failure(prefect, run, stack)

    def _parameters(self) -> dict[str, Any]:
        parameters = {"venue": self.settings.venue, "symbols": "all", "days": self.options.days}
        return parameters if self.options.size is None else parameters | {"size": self.options.size}

    async def _follow(self, prefect: PrefectServer, run: FlowRun, stack: LocalStack) -> FlowRun:
        """Show a run's progress until it is over."""
        self.screen.say(f"Retraining: {stack.urls[PREFECT]}/runs/flow-run/{run.id}")
        began = monotonic()
        silent_since: float | None = None
        with self.screen.bars() as bars:
            while not run.is_over:
                await asyncio.sleep(1.0)
                self._check_alive(stack)
                try:
                    run = await prefect.flow_run(run.id)
                    flow_runs = await prefect.with_subflows(run.id)
                    steps = await prefect.progress(flow_runs)
                    running = [task.name for task in await prefect.task_runs(flow_runs) if task.state_type == "RUNNING"]
                except ServiceDownError:
                    # A busy server may miss a poll; the run itself goes on in its own process.
                    silent_since = silent_since or monotonic()
                    if monotonic() - silent_since > _PREFECT_PATIENCE_S:
                        raise
                    continue
                silent_since = None
                bars.show(steps, running, monotonic() - began)
        return run

    async def _explain_failure(self, prefect: PrefectServer, run: FlowRun, stack: LocalStack) -> None:
        log = stack.home.logs / "prefect-worker.log"
        found = run.message
        if not found or run.state_type == "CRASHED":
            with contextlib.suppress(ServiceDownError):
                logged = await prefect.failure(await prefect.with_subflows(run.id))
                found = logged.partition("\n")[0] or found
            # A run that could not even be loaded says why only in the log of the worker that started it.
            named = [line for line in processes.tail(log, lines=200).splitlines() if _ERROR_LINE.match(line)]
            found = named[-1] if named else found
        page = f"{stack.urls[PREFECT]}/runs/flow-run/{run.id}"
        raise StackError(
            f"The retrain run ended {run.state_name}: {found or 'no reason given'}; "
            f"read {log} and {page}{disk_note(stack.home)}"
        )

    async def _note_model(self, registry: MlflowServer, champion: ModelVersion | None) -> None:
        newest = await registry.newest()
        judged = newest or champion
        if judged is None:
            return
        self.report.model_version = judged.version
        self.report.champion_version = champion.version if champion else None
        self.report.verdict = judged.verdict
        self.report.gate_reasons = reasons_by_line(judged.tags.get("gate_reasons"))
        self.report.metrics = dict(judged.metrics)
        self.report.window, self.report.models = scores_of(judged.metrics)
        if champion is None:
            did = "hold back" if judged.verdict == "held" else "refused"
            self.screen.say(f"Nothing was promoted: the gates {did} version {judged.version}.")
            for reason in (self.report.gate_reasons or "").splitlines():
                self.screen.say(f"  {reason}")
        else:
            self.screen.say(f"Champion: version {champion.version} (gates: {champion.verdict})")

    async def _watch(self, stack: LocalStack, sandbox: JsonApi, *, promoted: bool) -> None:
        began = monotonic()
        minutes = self.options.minutes or (_ONCE_MINUTES if self.options.once else None)
        wanted = _TRADES if self.options.trades is None else self.options.trades
        # Whoever names the minutes and not the trades asks for the minutes.
        too_few = self.options.once and (self.options.minutes is None or self.options.trades is not None)
        with self.screen.live() as view:
            while True:
                self._check_alive(stack)
                audit = await sandbox.get("/sandbox/audit")
                worker = read_worker_status(self.home) or {}
                now = trading_of(audit, before=self.trades_before)
                view.show(
                    worker,
                    audit,
                    f"worker {worker.get('state', 'starting')}, candles {worker.get('candles_processed', 0)}, "
                    f"closed trades {now.closed_trades} on {len(now.symbols)} symbols, PnL {now.pnl:+.2f} USDT",
                )
                if self.options.once and now.closed_trades >= wanted and len(now.symbols) >= LEAST_SYMBOLS:
                    self._end(_DONE, f"{now.closed_trades} trades were closed on {len(now.symbols)} symbols.")
                    return
                elapsed = monotonic() - began
                if self.options.once and not promoted and self._idles(worker, elapsed):
                    return
                if minutes is not None and elapsed > minutes * 60:
                    self._end(
                        _FAILED if too_few else _DONE,
                        f"After {minutes:g} minutes {now.closed_trades} trades were closed on {len(now.symbols)} "
                        f"symbols{f'; {wanted} on {LEAST_SYMBOLS} were asked for' if too_few else ''}.",
                    )
                    return
                await asyncio.sleep(0.5)

    def _idles(self, worker: dict[str, Any], elapsed_s: float) -> bool:
        # It is idle too while it looks for a model; a moment later the reason is final.
        if worker.get("state") == "idle" and elapsed_s > _IDLE_SETTLED_S:
            self._end(_NOTHING_PROMOTED, "Nothing was promoted, so the worker idles.")
            return True
        if elapsed_s > _IDLE_PATIENCE_S:
            found = worker.get("state") or "nothing"
            raise StackError(f"Nothing was promoted, so the worker should report that it idles; it reported {found}")
        return False

    def _end(self, status: int, outcome: str) -> None:
        self.report.exit_status, self.report.outcome = status, outcome

    @staticmethod
    def _check_alive(stack: LocalStack) -> None:
        if dead := stack.supervisor.dead():
            logs = ", ".join(f"{name}.log" for name in dead)
            raise StackError(
                f"Service {', '.join(dead)} ended by itself; read {logs} in {stack.home.logs}{disk_note(stack.home)}"
            )

    async def _finish(self, stack: LocalStack) -> None:
        """Read what only running servers tell, stop everything, then verify what was written."""
        await self._last_figures(stack)
        if stack.supervisor.record.services:
            with self._step("stop", "Stopping everything; protective stops stay at the venue"):
                self.report.killed += await stack.stop()
        self.home.demo_mark.unlink(missing_ok=True)
        if self.home.journal.exists():
            found = await asyncio.to_thread(verify_journal, self.home, stack.programs)
            self.report.journal_verified, self.report.journal, _ = found
            if not self.report.journal_verified and self.report.exit_status == _DONE:
                self._end(_FAILED, "The journal could not be verified.")
        self.report.seconds["all"] = monotonic() - self._started
        if stack.services:
            show_report(self.screen, self.report)
        else:
            self.screen.say(self.report.outcome)
        if self.options.report is not None:
            self.options.report.parent.mkdir(parents=True, exist_ok=True)
            self.options.report.write_bytes(msgspec.json.format(msgspec.json.encode(self.report)) + b"\n")

    async def _last_figures(self, stack: LocalStack) -> None:
        worker = read_worker_status(self.home) if WORKER in stack.supervisor.record.services else None
        if worker is not None:
            self.report.worker = worker
            self.report.refusals = dict(worker.get("refusals") or {})
        if worker is None or SANDBOX not in stack.supervisor.record.services:
            return
        # The worker stops before the last audit, so that no trade closes unseen between the two.
        with contextlib.suppress(QuantumError):
            self.report.killed = await stack.supervisor.stop([WORKER])
            async with JsonApi("The sandbox exchange", stack.urls[SANDBOX]) as sandbox:
                audit = await sandbox.get("/sandbox/audit")
            self.report.trading = trading_of(audit, before=self.trades_before)

    @contextlib.contextmanager
    def _step(self, name: str, sentence: str) -> Iterator[None]:
        with self.screen.step(sentence), self._timed(name):
            yield

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = monotonic()
        try:
            yield
        finally:
            self.report.seconds[name] = self.report.seconds.get(name, 0.0) + monotonic() - began


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Finish some work, however often the person presses Ctrl-C meanwhile."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    task.result()
