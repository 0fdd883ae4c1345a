"""The flow that compares what the champion sees now with what it was fitted on."""

from __future__ import annotations

import msgspec
import numpy as np
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from feature_store.errors import BadInputError
from feature_store.lake import CandleLake
from flows.frames import frames_between, newest_close_ms, stored_series
from flows.orchestration import ASKING_REGISTRY, markdown, say, table
from flows.outcome import TRAINING_REPORT
from flows.registry import RegisteredVersion, Registry, RunLog
from flows.settings import FlowSettings
from flows.stability import DRIFTED, MOVED, Stability, stability
from flows.training.dataset import FrameSet
from flows.training.report import TrainingReport
from flows.wording import figure, moment

_HOUR_MS = 3_600_000


@task(task_run_name="find-champion", **ASKING_REGISTRY)
def find_champion(settings: FlowSettings) -> tuple[RegisteredVersion, TrainingReport] | None:
    """Return the champion with the report of its training, or None while nothing was promoted."""
    registry = Registry(settings.registry_address)
    champion = registry.champion()
    if champion is None:
        return None
    return champion, msgspec.json.decode(registry.read_text(champion.run_id, TRAINING_REPORT), type=TrainingReport)


@task(task_run_name="compare-inputs", cache_policy=NO_CACHE, timeout_seconds=1800)
def compare(settings: FlowSettings, training: TrainingReport, hours: int) -> tuple[list[Stability], int]:
    """Compare the newest hours of every model input with the window the champion was fitted on."""
    lake = CandleLake(settings.lake)
    chosen = FlowSettings.of(venue=settings.venue, symbols=",".join(training.symbols), timeframe=training.timeframe)
    series = stored_series(lake, chosen)
    end_ms = newest_close_ms(lake, series)
    fit = training.windows.fit
    if end_ms - hours * _HOUR_MS < fit.end_ms:
        raise BadInputError(
            f"The last {hours} hours of stored candles reach into the window the champion was fitted on, which ends "
            f"{moment(fit.end_ms)}; ingest newer candles, or compare fewer hours"
        )

    def inputs(start_ms: int, end_ms: int) -> FrameSet:
        return frames_between(
            settings.features, lake, series, start_ms=start_ms, end_ms=end_ms, horizon=training.horizon
        )

    before, now = inputs(fit.start_ms, fit.end_ms), inputs(end_ms - hours * _HOUR_MS, end_ms)
    return stability(before.input_names, _stacked(before), _stacked(now)), end_ms


@task(task_run_name="log-to-mlflow", **ASKING_REGISTRY)
def log_drift(settings: FlowSettings, run_id: str, found: list[Stability]) -> str:
    """Log the indexes to the champion's run and return its page."""
    registry = Registry(settings.registry_address)
    metrics = {f"drift/psi/{one.name}": one.index for one in found} | {"drift/psi_max": found[0].index}
    registry.log(run_id, RunLog(metrics=metrics))
    return registry.run_page(run_id, settings.registry_page)


@flow(name="drift", flow_run_name="drift of the champion", timeout_seconds=3600)
def drift(hours: int = 24) -> dict[str, float]:
    """
    Compare the model inputs of the last day with those the champion was fitted on.

    The population stability index of every input: below 0.10 nothing moved, above 0.25 the champion sees a market
    that it was not fitted on. While nothing was promoted there is nothing to compare, and the flow says so.

    Args:
        hours: How many hours, counted back from the newest stored candle, are compared.
    """
    settings = FlowSettings.of()
    found = find_champion(settings)
    if found is None:
        say("Nothing was promoted yet, so there is no champion to compare with")
        markdown("drift-summary", "Nothing was promoted yet: there is no champion to compare with.", "Drift")
        return {}
    champion, training = found
    inputs, end_ms = compare(settings, training, hours)
    page = log_drift(settings, champion.run_id, inputs)

    table(
        "drift",
        [_row(one) for one in inputs],
        f"Inputs of [version {champion.version}]({page}) until {moment(end_ms)}",
    )
    drifted = [one.name for one in inputs if one.index >= DRIFTED]
    moved = [one.name for one in inputs if MOVED <= one.index < DRIFTED]
    markdown(
        "drift-summary",
        f"## {len(drifted)} of {len(inputs)} inputs drifted, {len(moved)} moved\n\n"
        f"The {hours} hours until {moment(end_ms)} against the fit window of "
        f"[version {champion.version}]({page}).\n\nDrifted: {', '.join(drifted) or 'none'}\n\n"
        f"Moved: {', '.join(moved) or 'none'}",
        "What the champion sees now, against what it was fitted on",
    )
    say("%d of %d inputs drifted, %d moved", len(drifted), len(inputs), len(moved))
    return {one.name: one.index for one in inputs}


def _stacked(frames: FrameSet) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.concatenate([frame.inputs for frame in frames.frames])


def _row(one: Stability) -> dict[str, str]:
    return {
        "input": one.name,
        "stability index": figure(one.index, 3),
        "reading": one.verdict,
        "median when fitted": figure(one.median_before),
        "median now": figure(one.median_now),
    }
