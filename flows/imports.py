"""The flow that imports candles which people already have."""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from feature_store.candle import Series
from feature_store.lake import CandleLake
from feature_store.sources.importing import Advance
from feature_store.sources.opening import SourceKind
from flows.importing import Brought, Pace, Wanted, import_from, told
from flows.orchestration import ProgressBar, markdown, passes_later, say, table
from flows.settings import FlowSettings, TimeframeName
from flows.wording import moment

_MOST_ROWS = 500


def named_by_place() -> str:
    """Name a flow run by what it reads: `import user_data/data`."""
    place = str(flow_run.parameters.get("place", "")).rstrip("/")
    return f"{flow_run.flow_name} {'/'.join(place.split('/')[-2:])}"


@task(
    task_run_name="read-and-store",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=passes_later,
    timeout_seconds=6 * 3600,
)
def bring_in(wanted: Wanted, settings: FlowSettings) -> Brought:
    """Read each file that is new, store it or refuse it whole, and derive longer candles of minutes if asked to."""
    bar = ProgressBar("import", f"Candles from {wanted.place}")
    pace = Pace()

    def show(how_far: Advance) -> None:
        bar.show(how_far.done / max(how_far.total, 1), pace.described(how_far))

    return import_from(wanted, settings, show)


@flow(name="import", flow_run_name=named_by_place, timeout_seconds=6 * 3600)
def import_files(
    place: str,
    kind: SourceKind | None = None,
    venue: str | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
    columns: str | None = None,
    days: int | None = None,
    again: bool = False,  # noqa: FBT001, FBT002 - a flow's parameters are its form in the UI
    derive: str | None = None,
) -> dict[str, int]:
    """
    Import candles that are there already; each file is judged as a whole, and refused with the reason.

    A second run reads only what is new. A file that contradicts older candles of the lake is refused; read `again`, it
    is taken as corrections, and both are kept.

    Args:
        place: A file or folder that Prefect's worker can read, or an address of Binance's public archives.
        kind: binance-archive, freqtrade or recording. Left empty: recognised by the files.
        venue: Under which venue the candles are stored. Left empty: as the files say.
        symbols: Unified names separated by commas. Left empty: all; at an address, QT_SYMBOLS.
        timeframe: Duration of a candle. Left empty: all; at an address, QT_TIMEFRAME.
        columns: Which column of a Parquet or CSV file is which, as `ts=Date:iso,open=Open`. Left empty: called as ours.
        days: How far back an address is asked. Left empty: QT_DAYS, by default 30.
        again: Read also what was imported before or contradicts the lake, and set damaged files of the lake aside.
        derive: Longer candles to make of imported minutes, such as `5m,15m,1h,4h,1d`. Left empty: QT_DERIVE, where
            timeframe is 1m.
    """
    settings = FlowSettings.of(symbols=symbols, timeframe=timeframe, days=days)
    brought = bring_in(Wanted(place, kind, venue, symbols, timeframe, columns, again, derive), settings)
    done = brought.imports
    lake = settings.candle_lake()
    table("import", [_row(lake, one) for one in done.series[:_MOST_ROWS]], f"Imported from {place}")
    refused = [{"file": one.part, "reason": one.reason} for one in done.refused[:_MOST_ROWS]]
    table("import-refused", refused, "Files of which nothing was stored, and why")
    markdown("import-report", told(brought), "What the import did")
    say("%s", told(brought))
    return {
        "new": done.appended - done.corrections,
        "corrections": done.corrections,
        "derived": brought.derived,
        "files": done.parts,
        "known": done.known,
        "refused": len(done.refused),
        "missing": len(done.missing),
    }


def _row(lake: CandleLake, series: Series) -> dict[str, Any]:
    coverage = lake.coverage(series)
    return {
        "venue": series.venue,
        "symbol": series.symbol,
        "timeframe": str(series.timeframe),
        "first candle": moment(coverage.first_open_time_ms),
        "last candle": moment(coverage.last_open_time_ms),
        "candles": coverage.candles,
        "missing": coverage.missing,
        "corrections": coverage.corrections,
    }
