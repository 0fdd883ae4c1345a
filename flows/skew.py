"""The flow that holds what decisions read against what the lake says now."""

from __future__ import annotations

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from feature_store.candle import Series
from feature_store.skew import Difference, Used
from flows.orchestration import ProgressBar, markdown, say, table
from flows.settings import FlowSettings
from flows.skewing import NOT_IN_THE_LAKE, audit_series, by_cause, refuse_unexplained, report_of, rows, told, used_rows


@task(task_run_name="read-journal", cache_policy=NO_CACHE, timeout_seconds=900)
def read(settings: FlowSettings, hours: int) -> dict[Series, Used]:
    """Return what decisions read in the journal's last hours."""
    return used_rows(settings.journal, hours)


@task(task_run_name="audit-{series.symbol}-{series.timeframe}", cache_policy=NO_CACHE, timeout_seconds=900)
def recompute(settings: FlowSettings, series: Series, used: Used) -> tuple[Difference, ...]:
    """Recompute the rows of one series and name the cause of each difference."""
    return audit_series(settings, series, used)


@flow(name="skew", flow_run_name="skew of decisions", timeout_seconds=3600)
def skew(hours: int = 24) -> dict[str, int]:
    """
    Recompute from the lake every row of features that decisions read, and report what differs, and why.

    Candles that were corrected after use, a worker that began at another candle or missed some, an included symbol
    that was late, another feature set: each is named and counted, once features computed so give again what was read.
    What nothing gives again fails the flow, also where other code computed it: code of one feature set computes the
    same. With QT_MODE=testnet nothing is audited: the lake holds the venue's candles, and none of its test network.

    Args:
        hours: How many hours, counted back from the newest decision in the journal, are audited.
    """
    settings = FlowSettings.of()
    if settings.trades_other_candles:
        say("%s", NOT_IN_THE_LAKE)
        markdown("skew-summary", f"{NOT_IN_THE_LAKE}.", "Skew")
        return {}
    if not settings.journal.exists():
        say("No worker has decided here yet, so there is nothing to audit")
        markdown("skew-summary", "No worker has decided here yet: there is nothing to audit.", "Skew")
        return {}
    used = read(settings, hours)
    bar = ProgressBar("skew", f"Skew of {len(used)} series")
    differences: list[Difference] = []
    for number, (series, one) in enumerate(sorted(used.items()), start=1):
        differences += recompute(settings, series, one)
        bar.show(number / len(used), series.symbol)

    report = report_of(used, differences)
    table("skew", rows(report.differences), f"Candles whose features were other than the lake says, {hours} hours")
    table("skew-causes", by_cause(report.differences), "Why, and which features")
    markdown("skew-summary", told(report).replace("\n", "\n\n"), "What decisions read, against the lake")
    refuse_unexplained(report)
    say("%d rows were recomputed, %d differences, all explained", report.rows, len(report.differences))
    return {row["cause"]: row["candles"] for row in by_cause(report.differences)}
