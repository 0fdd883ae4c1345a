"""What a backtest has to say: to machines, in a table on the terminal, and as a page of markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from flows.replay.metrics import TradeTable, figures, grouped
from flows.replay.outcome import BacktestRun
from flows.replay.sweep import SweepRow, lucky_sharpe
from flows.wording import figure, markdown_table

_SHOWN_SETS = 20
_HEADLINE = (
    ("net_return", "net return", 100.0, "%"),
    ("net_profit", "net profit", 1.0, ""),
    ("sharpe", "Sharpe (days, √365)", 1.0, ""),
    ("sortino", "Sortino", 1.0, ""),
    ("max_drawdown", "max drawdown", 100.0, "%"),
    ("longest_drawdown_days", "longest drawdown", 1.0, " d"),
    ("trades", "trades", 1.0, ""),
    ("win_rate", "win rate", 100.0, "%"),
    ("net_per_trade_bps", "net per trade", 1.0, " bps"),
    ("profit_factor", "profit factor", 1.0, ""),
    ("average_minutes", "held on average", 1.0, " min"),
    ("exposure", "mean exposure", 100.0, "% of equity"),
    ("time_in_market", "time in market", 100.0, "%"),
    ("turnover_per_day", "turnover", 1.0, " equities a day"),
    ("fees", "fees", 1.0, ""),
    ("funding", "funding", 1.0, ""),
)
_COLUMNS = ("trades", "net profit", "bps per trade", "win rate", "wins/losses", "minutes", "fees")


class SweepResult(msgspec.Struct, frozen=True, kw_only=True):
    """One set of rules that was tried."""

    changed: dict[str, str]
    figures: dict[str, float]


class BacktestReport(msgspec.Struct, frozen=True, kw_only=True):
    """
    One backtest, whole.

    `figures` are those of the final word at the stated path of prices; `bounds` the same at the worst and the best
    order of prices inside candles. `warnings` say what limits the claim. `looks` counts how often the version's locked
    window was looked at, by shadows and backtests, this one included; None where this one did not, or where nobody
    counts. `resources` are what it took of the machine, as `flows.resources` names it.
    """

    version: str
    bundle_digest: str
    venue: str
    timeframe: str
    symbols: tuple[str, ...]
    start: str
    end: str
    candles: int
    opinions: int
    balance: str
    costs: dict[str, str]
    policy: dict[str, str]
    figures: dict[str, float]
    bounds: dict[str, dict[str, float]]
    by_symbol: list[dict[str, float | str]]
    by_reason: list[dict[str, float | str]]
    denied: dict[str, int]
    approved: int
    engines_agree: bool | None
    warnings: tuple[str, ...]
    looks: int | None = None
    sweep: tuple[SweepResult, ...] = ()
    lucky_sharpe: float | None = None
    resources: dict[str, float] = {}
    folder: str = ""
    page: str = ""


def run_figures(run: BacktestRun) -> dict[str, float]:
    """Return the figures of a run."""
    return figures(TradeTable.of(run), run.time_ms, run.equity, run.exposure)


def by_symbol(run: BacktestRun) -> list[dict[str, float | str]]:
    """Return one row a symbol and their total."""
    return grouped(run, lambda trade: trade.symbol)


def by_reason(run: BacktestRun) -> list[dict[str, float | str]]:
    """Return one row for each reason why trades ended, and their total."""
    return grouped(run, lambda trade: trade.reason)


def swept(rows: Sequence[SweepRow]) -> tuple[tuple[SweepResult, ...], float | None]:
    """Return the sets of a sweep, best first, and the Sharpe that luck alone would show."""
    told = tuple(SweepResult(changed=dict(row.changed), figures=dict(row.figures)) for row in rows)
    return told, lucky_sharpe(rows)


def trades_csv(run: BacktestRun) -> str:
    """Return the trades as CSV with times in UTC, oldest exit first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("symbol", "direction", "exit_reason", "opened_at", "closed_at", "minutes", "quantity", "entry_price")
    writer.writerow((*names, "exit_price", "fees", "funding", "pnl", "net", "net_return"))
    for one in run.trades:
        writer.writerow(
            (
                one.symbol, one.direction.value, one.reason, _time(one.opened_ms), _time(one.closed_ms),
                f"{(one.closed_ms - one.opened_ms) / 60_000:g}", f"{one.quantity:f}", f"{one.entry_price:f}",
                f"{one.exit_price:f}", f"{one.fees:f}", f"{one.funding:f}", f"{one.pnl:f}", f"{one.net:f}",
                f"{one.net_return:.8f}",
            )
        )  # fmt: skip
    return text.getvalue()


def equity_csv(run: BacktestRun) -> str:
    """Return the account at the open of each candle as CSV."""
    lines = ["time,equity,exposure"]
    lines += [
        f"{_time(int(at))},{equity:.8f},{exposure:.8f}"
        for at, equity, exposure in zip(run.time_ms, run.equity, run.exposure, strict=True)
    ]
    return "\n".join(lines) + "\n"


def terminal_text(report: BacktestReport) -> str:
    """Return what a person reads after a backtest: warnings first, then per symbol, exit reasons and totals."""
    parts = [f"! {one}" for one in report.warnings]
    parts += [_title(report), ""]
    parts += [*_table("SYMBOL", report.by_symbol), "", *_table("EXIT REASON", report.by_reason), ""]
    low, high = report.bounds.get("pessimistic", {}), report.bounds.get("optimistic", {})
    parts.append(f"{'':<22}{'as replayed':>16}{'pessimistic':>16}{'optimistic':>16}")
    parts += [
        f"{name:<22}" + "".join(f"{_shown(found, key, scale, unit):>16}" for found in (report.figures, low, high))
        for key, name, scale, unit in _HEADLINE
    ]
    if report.denied:
        most = sorted(report.denied.items(), key=lambda item: -item[1])
        parts += ["", "Denied: " + ", ".join(f"{code} {count:,}" for code, count in most)]
    if report.sweep:
        parts += ["", *_sweep_lines(report)]
    if report.resources:
        parts += ["", _taken(report)]
    if report.folder:
        parts += ["", f"Trades, equity, report and tear sheet: {report.folder}"]
    if report.page:
        parts.append(f"MLflow: {report.page}")
    return "\n".join(parts)


def backtest_markdown(report: BacktestReport) -> str:
    """Return the same as a page."""
    warnings = "\n".join(f"> **{one}**\n>" for one in report.warnings)
    low, high = report.bounds.get("pessimistic", {}), report.bounds.get("optimistic", {})
    headline = [
        (name, *(_shown(found, key, scale, unit) for found in (report.figures, low, high)))
        for key, name, scale, unit in _HEADLINE
    ]
    parts = [
        f"## {_title(report)}",
        warnings,
        markdown_table(("figure", "as replayed", "pessimistic", "optimistic"), headline),
        "### By symbol",
        markdown_table(("symbol", *_COLUMNS), [_cells(row) for row in report.by_symbol]),
        "### By exit reason",
        markdown_table(("reason", *_COLUMNS), [_cells(row) for row in report.by_reason]),
    ]
    if report.sweep:
        parts += ["### Sweep", "\n".join(f"    {line}" for line in _sweep_lines(report))]
    if report.resources:
        parts.append(_taken(report))
    if report.page:
        parts.append(f"[Run in MLflow]({report.page})")
    return "\n\n".join(part for part in parts if part)


def _taken(report: BacktestReport) -> str:
    took = report.resources
    return (
        f"Took {took['cpu_seconds']:,.1f} s of processor time, {took['cpu_share']:.0%} of all cores, "
        f"and {took['peak_memory_mb']:,.0f} MiB of memory at most"
    )


def _title(report: BacktestReport) -> str:
    return (
        f"Backtest of version {report.version}: {len(report.symbols)} symbols of {report.venue}, "
        f"{report.timeframe}, {report.start} to {report.end} UTC"
    )


def _table(head: str, rows: Sequence[Mapping[str, float | str]]) -> list[str]:
    widths = (18, 8, 13, 15, 10, 13, 10, 12)
    lines = [(head, *_COLUMNS), *(_cells(row) for row in rows)]
    return [
        "".join(f"{cell:<{width}}" if not place else f"{cell:>{width}}"
                for place, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]  # fmt: skip


def _cells(row: Mapping[str, float | str]) -> tuple[str, ...]:
    return (
        str(row["key"]),
        f"{row['trades']}",
        f"{float(row['net_profit']):,.2f}",
        f"{float(row['net_per_trade_bps']):.2f}",
        f"{float(row['win_rate']):.1%}",
        f"{row['wins']}/{row['losses']}",
        f"{float(row['average_minutes']):.1f}",
        f"{float(row['fees']):,.2f}",
    )


def _sweep_lines(report: BacktestReport) -> list[str]:
    lucky = report.lucky_sharpe
    lines = [f"{len(report.sweep):,} sets of rules, best Sharpe first" + (
        "" if lucky is None else f"; among so many, luck alone would show about {lucky:.2f}"
    )]  # fmt: skip
    for one in report.sweep[:_SHOWN_SETS]:
        changed = " ".join(f"{name}={value}" for name, value in one.changed.items())
        found = one.figures
        lines.append(
            f"Sharpe {figure(found.get('sharpe'), 3):>7}  net {found['net_return']:>8.2%}  "
            f"drawdown {found['max_drawdown']:>7.2%}  trades {found['trades']:>6.0f}  {changed}"
        )
    if len(report.sweep) > _SHOWN_SETS:
        lines.append(f"… and {len(report.sweep) - _SHOWN_SETS:,} more in the report")
    return lines


def _shown(found: Mapping[str, float], key: str, scale: float, unit: str) -> str:
    return "-" if key not in found else f"{found[key] * scale:,.2f}{unit}"


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
