"""The flow that asks other sources than venues: market data, news and posts; none of them is ever needed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from feature_store import clock
from feature_store.candle import Series
from feature_store.context.definition import CONTEXT_NAMES, context_fingerprint
from feature_store.context.features import ContextView
from feature_store.context.gathering import Outcome, gather
from feature_store.context.mentions import asset_of
from feature_store.context.source import Source
from feature_store.context.store import ObservationStore
from flows.orchestration import ProgressBar, say, table
from flows.settings import FlowSettings
from flows.source_settings import SourceSettings
from flows.wording import figure, moment

_LOOKBACK_MS = 3 * 86_400_000
_MOST_ROWS = 200


def named_by_sources() -> str:
    """Name a flow run by what it asks: `sources rss,coingecko`."""
    return f"{flow_run.flow_name} {SourceSettings.of(sources=flow_run.parameters.get('names')).sources or 'none'}"


@task(task_run_name="ask-{source.name}", cache_policy=NO_CACHE, timeout_seconds=400)
async def ask(source: Source, store: ObservationStore) -> Outcome:
    """Ask one source and store what is new; one that does not answer is noted, and fails nothing."""
    (outcome,) = await gather([source], store, clock.utc_now_ms)
    say("%s: %s", source.name, described(outcome))
    return outcome


@flow(name="sources", flow_run_name=named_by_sources, timeout_seconds=900)
async def sources(names: str | None = None) -> dict[str, int | None]:
    """
    Ask market data, news and posts for what is new, and store it with the moment at which it arrived.

    No other flow waits for this one, and none fails with it. What is stored feeds a feature set of its own.

    Args:
        names: coingecko, rss, social, separated by commas. Left empty: QT_SOURCES, by default none.
    """
    settings, flow_settings = SourceSettings.of(sources=names), FlowSettings.of()
    stored = flow_settings.candle_lake().series()
    chosen = settings.build(sorted({asset_of(one.symbol) for one in stored}))
    if not chosen:
        say("No source is chosen; set QT_SOURCES to name some")
        return {}
    store = ObservationStore(flow_settings.lake)
    bar = ProgressBar("sources", f"Answers of {len(chosen)} sources")
    done: list[Outcome] = []
    for asked in asyncio.as_completed([ask(source, store) for source in chosen]):
        done.append(await asked)
        bar.show(len(done) / len(chosen), done[-1].state.name)

    done.sort(key=lambda outcome: outcome.state.name)
    table("sources", [_row(outcome) for outcome in done], "Other sources; none of them is needed")
    now_ms = clock.utc_now_ms()
    description = f"{len(CONTEXT_NAMES)} context features at {moment(now_ms)}, set {context_fingerprint()[:12]}"
    table("context", await asyncio.to_thread(_context_rows, store, stored, now_ms), description)
    return {outcome.state.name: outcome.new for outcome in done}


def described(outcome: Outcome) -> str:
    """Say in one line what came of asking a source."""
    if outcome.new is not None:
        return f"{outcome.new} new"
    if outcome.state.is_down:
        return f"down, {outcome.state.failures} times in a row: {outcome.state.reason}"
    return "not asked"


def _row(outcome: Outcome) -> dict[str, Any]:
    state = outcome.state
    return {
        "source": state.name,
        "state": "down" if state.is_down else "answers",
        "new": "not stored" if outcome.new is None else outcome.new,
        "answered last": moment(state.answered_ms),
        "left alone until": moment(state.not_before_ms) if state.not_before_ms else "",
        "reason": state.reason,
    }


def _context_rows(store: ObservationStore, stored: Sequence[Series], now_ms: int) -> list[dict[str, Any]]:
    view = ContextView(store.read(start_ms=now_ms - _LOOKBACK_MS))
    rows = []
    for asset in sorted({asset_of(one.symbol) for one in stored})[:_MOST_ROWS]:
        (values,) = view.features(asset, np.array([now_ms])).tolist()
        rows.append({"asset": asset} | {name: figure(value) for name, value in zip(CONTEXT_NAMES, values, strict=True)})
    return rows
