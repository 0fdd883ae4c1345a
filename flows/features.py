"""The flow that computes features of every stored candle and keeps them for audit."""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from feature_store.candle import Series
from feature_store.features.definition import FEATURE_NAMES, fingerprint
from feature_store.lake import CandleLake
from feature_store.store import FeatureStore, Materialized
from flows.frames import stored_series
from flows.orchestration import ProgressBar, named_by_series, say, table
from flows.settings import FlowSettings, TimeframeName, VenueName


@task(task_run_name="features-{series.symbol}-{series.timeframe}", cache_policy=NO_CACHE, timeout_seconds=900)
def compute(store: FeatureStore, lake: CandleLake, series: Series) -> Materialized:
    """Compute the features of one series and store those months whose candles changed."""
    return store.materialize(lake, [series])[series]


@flow(name="features", flow_run_name=named_by_series, timeout_seconds=3600)
def features(
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
) -> dict[str, int]:
    """
    Compute the 49 features of every stored candle and keep them for audit, with the state that live goes on from.

    Training recomputes features from candles, which is faster than reading them back; these files tell what was known.

    Args:
        venue: Whose candles. Left empty: QT_VENUE, by default the sandbox exchange.
        symbols: Unified names separated by commas, or `all` that are stored. Left empty: QT_SYMBOLS.
        timeframe: Duration of a candle. Left empty: QT_TIMEFRAME, by default 5m.
    """
    settings = FlowSettings.of(venue=venue, symbols=symbols, timeframe=timeframe)
    lake, store = settings.candle_lake(), FeatureStore(settings.features)
    series = stored_series(lake, settings)
    bar = ProgressBar("features", f"Features of {len(series)} series")
    done = []
    for number, one in enumerate(series, start=1):
        done.append(compute(store, lake, one))
        bar.show(number / len(series), one.symbol)

    table("features", [_row(one) for one in done], f"{len(FEATURE_NAMES)} features, set {fingerprint()[:12]}")
    say("Features of %d series are stored", len(series))
    return {one.series.symbol: one.candles for one in done}


def _row(one: Materialized) -> dict[str, Any]:
    return {
        "symbol": one.series.symbol,
        "timeframe": str(one.series.timeframe),
        "candles": one.candles,
        "months written": one.months_written,
        "continued from stored state": one.resumed,
    }
