"""The flow that measures what features are like, by month and series."""

from __future__ import annotations

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from feature_store.candle import Series
from feature_store.profiles import Kind
from flows.frames import stored_series
from flows.orchestration import ProgressBar, named_by_series, say, table
from flows.profiling import Updated, profile_store, rows, summary, update
from flows.settings import FlowSettings, TimeframeName, VenueName

_KINDS: tuple[tuple[Kind, str], ...] = (("feature", "features"), ("input", "model inputs"))


@task(task_run_name="profile-{series.symbol}-{series.timeframe}", cache_policy=NO_CACHE, timeout_seconds=900)
def measure(settings: FlowSettings, series: Series) -> Updated:
    """Measure the months of one series whose candles changed."""
    return update(settings, series)


@flow(name="profile", flow_run_name=named_by_series, timeout_seconds=3600)
def profile(
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
) -> dict[str, int]:
    """
    Measure the 49 features and the model inputs of every stored month: missing, zero, moments, range, quantiles.

    Only months whose candles changed are measured. The drift flow reads these profiles instead of computing again.

    Args:
        venue: Whose candles. Left empty: QT_VENUE, by default the sandbox exchange.
        symbols: Unified names separated by commas, or `all` that are stored. Left empty: QT_SYMBOLS.
        timeframe: Duration of a candle. Left empty: QT_TIMEFRAME, by default 5m.
    """
    settings = FlowSettings.of(venue=venue, symbols=symbols, timeframe=timeframe)
    series = stored_series(settings.candle_lake(), settings)
    bar = ProgressBar("profile", f"Profiles of {len(series)} series")
    done = []
    for number, one in enumerate(series, start=1):
        done.append(measure(settings, one))
        bar.show(number / len(series), one.symbol)

    newest = max((month for one in series for month in profile_store(settings).months(one)), default=None)
    for kind, words in _KINDS:
        table(f"profile-{kind}s", rows(summary(settings, series, newest, kind)), f"All {words} in {newest}")
    say("%d months of %d series were measured", sum(one.measured for one in done), len(series))
    return {one.series.symbol: one.measured for one in done}
