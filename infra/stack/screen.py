"""How the demonstration shows itself: live on a terminal, calm plain lines elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from feature_store.clock import monotonic
from infra.stack.figures import SCORES, Report
from infra.stack.prefect_api import Progress as Step

_SECONDS_BETWEEN_LINES = 15.0
_MOST_ROWS = 10
# A headline, which may take two lines, three titles with their headings, and one for the cursor.
_LINES_OF_NO_ROW = 9
_WAITING = "waiting for the Prefect worker"
_FORMS = {"hit_rate": ".3f", "ic": "+.3f", "net_per_trade_bps": "+.1f"}


class Screen:
    """One place for everything the demonstration prints."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or _console()
        self._said_at = -_SECONDS_BETWEEN_LINES

    @property
    def is_live(self) -> bool:
        """Whether a person watches a terminal."""
        return self.console.is_terminal

    def say(self, sentence: str) -> None:
        """Print one sentence."""
        self.console.print(sentence, soft_wrap=True, markup=False)

    def say_calmly(self, sentence: str) -> None:
        """Print one line, unless one was printed a moment ago."""
        if monotonic() - self._said_at >= _SECONDS_BETWEEN_LINES:
            self._said_at = monotonic()
            self.say(sentence)

    def urls(self, urls: Mapping[str, str]) -> None:
        """Print where a browser finds each server."""
        names = {"prefect-server": "Prefect", "mlflow": "MLflow", "sandbox": "Sandbox exchange"}
        for key, name in names.items():
            if key in urls:
                self.say(f"  {name:18}{urls[key]}")

    @contextlib.contextmanager
    def step(self, sentence: str) -> Iterator[None]:
        """Say what is being done and, on a terminal, let a bar move until it is."""
        if not self.is_live:
            self.say(sentence)
            yield
            return
        with Progress(*_columns(), console=self.console) as progress:
            task = progress.add_task(sentence, total=None)
            yield
            progress.update(task, total=1.0, completed=1.0)

    @contextlib.contextmanager
    def bars(self) -> Iterator[Bars]:
        """Show progress bars while the context lasts."""
        percent = TextColumn("{task.percentage:>5.1f} %")
        progress = Progress(*_columns(), percent, console=self.console)
        with progress if self.is_live else contextlib.nullcontext():
            yield Bars(self, progress)

    @contextlib.contextmanager
    def live(self) -> Iterator[Trade]:
        """Show the live tables while the context lasts."""
        with Live(console=self.console, refresh_per_second=2) if self.is_live else contextlib.nullcontext() as view:
            yield Trade(self, view)


class Bars:
    """The progress of a flow run's steps."""

    def __init__(self, screen: Screen, progress: Progress) -> None:
        self._screen = screen
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._waiting = progress.add_task(f"{_WAITING[0].upper()}{_WAITING[1:]}", total=None)

    def show(self, steps: Sequence[Step], running: Sequence[str], elapsed_s: float) -> None:
        """Bring the bars up to date."""
        if self._screen.is_live:
            self._progress.update(self._waiting, visible=not steps)
            for step in steps:
                if step.key not in self._tasks:
                    self._tasks[step.key] = self._progress.add_task(step.description, total=100.0)
                self._progress.update(self._tasks[step.key], completed=step.percent, description=step.description)
            return
        unfinished = [f"{step.description} {step.percent:.0f} %" for step in steps if step.percent < 100.0]
        doing = "; ".join(unfinished) or ", ".join(running) or _WAITING
        self._screen.say_calmly(f"  {elapsed_s:5.0f} s  {doing}")


class Trade:
    """Positions, signals and refusals as they change."""

    def __init__(self, screen: Screen, view: Live | None) -> None:
        self._screen = screen
        self._view = view

    def show(self, worker: Mapping[str, Any], audit: Mapping[str, Any], headline: str) -> None:
        """Bring the tables, or the line, up to date."""
        if self._view is not None:
            self._view.update(tables(worker, audit, headline, height=self._screen.console.height))
            return
        refusals = _refusal_text(worker)
        open_positions = len(audit.get("open_positions") or [])
        self._screen.say_calmly(f"  {headline}; open positions {open_positions}; refusals: {refusals or 'none'}")


def _columns() -> tuple[ProgressColumn, ...]:
    return TextColumn("{task.description}", markup=False), BarColumn(bar_width=32), TimeElapsedColumn()


def _console() -> Console:
    console = Console(highlight=False)
    # A log has no width of its own; a narrow guess would cut names.
    return console if console.is_terminal else Console(highlight=False, width=140)


def tables(worker: Mapping[str, Any], audit: Mapping[str, Any], headline: str, *, height: int) -> RenderableType:
    """Return the live view: a headline, positions, the newest signals, refusals; as many rows as the height holds."""
    refused = sorted((worker.get("refusals") or {}).items())
    # What does not fit is cut off at the end, where the refusals are.
    shown = min(max((height - len(refused) - _LINES_OF_NO_ROW) // 2, 1), _MOST_ROWS)
    positions = _table(
        "Positions",
        ("symbol", "direction", "quantity", "entry", "stop at the venue"),
        [
            (
                row.get("symbol"),
                "SHORT" if str(row.get("quantity", "")).startswith("-") else "LONG",
                str(row.get("quantity", "")).lstrip("-"),
                row.get("entry_price"),
                "yes" if row.get("protected") else "NO",
            )
            for row in (audit.get("open_positions") or [])[:shown]
        ],
    )
    signals = _table(
        "Newest signals",
        ("symbol", "direction", "confidence", "expected", "decision"),
        [_signal_row(row) for row in (worker.get("last_signals") or [])[:shown]],
    )
    refusals = _table("Refusals", ("code", "count"), refused)
    return Group(headline, positions, signals, refusals)


def _signal_row(row: Mapping[str, Any]) -> tuple[Any, ...]:
    expected = row.get("expected_return")
    return (
        row.get("symbol"),
        row.get("direction"),
        _number(row.get("confidence"), ".3f"),
        "" if expected is None else f"{float(expected) * 10_000:+.1f} bps",
        row.get("decision") or row.get("code") or row.get("outcome") or "",
    )


def _number(value: Any, form: str) -> str:
    try:
        return format(float(value), form)
    except (TypeError, ValueError):
        return ""


def _refusal_text(worker: Mapping[str, Any]) -> str:
    return ", ".join(f"{code} {count}" for code, count in sorted((worker.get("refusals") or {}).items()))


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    return table


def show_report(screen: Screen, report: Report) -> None:
    """Print the summary of a demonstration."""
    say = screen.say
    say("")
    say("Summary")
    if report.models:
        rows = [
            (one.name, one.role, *(_number(one.scores.get(score), _FORMS.get(score, ".5f")) for score in SCORES))
            for one in report.models
        ]
        headings = ("model", "", "RMSE", "MAE", "R²", "right\ndirection", "corr.", "net bps\nper trade")
        screen.console.print(
            _table(f"Scores on the {report.window} candles, version {report.model_version}", headings, rows)
        )
    if report.verdict is not None:
        say(f"  Gates             {report.verdict}")
        for reason in (report.gate_reasons or "").splitlines() if report.verdict != "passed" else ():
            say(f"    {reason}")
    if report.trading is not None:
        _show_trading(screen, report)
    if report.journal:
        verdict = "verified" if report.journal_verified else "NOT VERIFIED"
        say(f"  Journal           {verdict}: {report.journal}")
    if report.worker:
        cold, rss = report.worker.get("cold_start_s"), report.worker.get("rss_mb")
        say(f"  Worker            cold start {_number(cold, '.2f')} s, resident memory {_number(rss, '.0f')} MB")
    times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report.seconds.items())
    say(f"  Time              {times}")
    for name in report.killed:
        say(f"  {name} did not end when asked and was killed; its log says more.")
    say(f"{report.outcome} (exit status {report.exit_status})")


def _show_trading(screen: Screen, report: Report) -> None:
    trading = report.trading
    if trading is None:
        return
    screen.say(
        f"  Trades            {trading.closed_trades} closed on {len(trading.symbols)} symbols, "
        f"{trading.winners} won, {trading.open_positions} still open under their stops"
    )
    screen.say(
        f"  PnL               {trading.pnl:+.2f} USDT after fees of {trading.fees:.2f}; "
        f"95 % interval {trading.pnl_low:+.2f} to {trading.pnl_high:+.2f}; equity {trading.equity:.2f}"
    )
    screen.say(
        f"  Protection        longest time without a stop at the venue: {trading.max_unprotected_ms:.0f} ms; "
        f"duplicate orders: {len(trading.duplicate_client_ids)}"
    )
    if report.refusals:
        screen.say("  Refusals          " + ", ".join(f"{code} {n}" for code, n in sorted(report.refusals.items())))
