"""The flow that chooses the universe of each week from what was known when it began."""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from feature_store.universe.archive import StoredUniverse
from flows.orchestration import ProgressBar, named_by_series, passes_later, say, table
from flows.settings import FlowSettings, TimeframeName, VenueName
from flows.universe_text import changes, lacking, summary, verdict_rows
from flows.universes import build_universes, newest_universe, stored_universes, without_candles
from flows.wording import moment

_WEEKS_SHOWN = 52


@task(
    task_run_name="choose-weekly-universes",
    cache_policy=NO_CACHE,
    retries=1,
    retry_delay_seconds=5,
    retry_condition_fn=passes_later,
    timeout_seconds=1800,
)
def choose(settings: FlowSettings, bar: ProgressBar, *, again: bool) -> list[StoredUniverse]:
    """Judge every symbol of the lake in each week that is not stored yet, and store what came of it."""
    return build_universes(settings, again=again, progress=bar.callback())


@flow(name="universe", flow_run_name=named_by_series, timeout_seconds=3600)
def universe(
    venue: VenueName | None = None,
    timeframe: TimeframeName | None = None,
    again: bool = False,  # noqa: FBT001, FBT002 - a flow's parameters are its form in the UI
) -> dict[str, Any]:
    """
    Choose the universe of every week that the candle lake reaches and that is not stored yet.

    Each week is judged by what was known at its Monday 00:00 UTC; symbols that left later stay in the weeks before.

    Args:
        venue: Whose symbols. Left empty: QT_VENUE, by default the sandbox exchange.
        timeframe: Candles from which volume and liquidity are summed. Left empty: QT_TIMEFRAME, by default 5m.
        again: Judge stored weeks once more, too; what differs, because candles came late, becomes a new revision.
    """
    settings = FlowSettings.of(venue=venue, timeframe=timeframe)
    built = choose(settings, ProgressBar("universe", "Weekly universes"), again=again)
    # Just after midnight the week that was made is not in force yet.
    newest = built[-1] if built else newest_universe(settings)
    absent = lacking(without_candles(settings))
    description = f"{summary(newest)}. Known since {moment(newest.available_at_ms)}"
    table("universe", verdict_rows(newest.universe), f"{description}. {absent}" if absent else description)
    weeks = changes(stored_universes(settings))[-_WEEKS_SHOWN:]
    joined = [row | {"joined": ", ".join(row["joined"]), "left": ", ".join(row["left"])} for row in weeks]
    table("universe-history", joined, f"The last {len(joined)} weekly universes: who joined and who left")
    say("%d weeks judged. %s%s", len(built), summary(newest), f". {absent}" if absent else "")
    return {"weeks": len(built), "at": moment(newest.universe.at_ms), "symbols": list(newest.universe.symbols)}
