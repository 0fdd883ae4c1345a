"""The flow that trades a version on stored candles, by the worker's own decisions."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from feature_store.clock import utc_now
from feature_store.errors import BadInputError
from flows.backtest_asked import Asked, Engine
from flows.backtest_inputs import looks_into_locked, open_bundle, scored_market, seen_share, series_of, window_of
from flows.backtest_report import (
    BacktestReport,
    SweepResult,
    backtest_markdown,
    by_reason,
    by_symbol,
    equity_csv,
    run_figures,
    swept,
    trades_csv,
)
from flows.locked import count_look
from flows.orchestration import ASKING_REGISTRY, ProgressBar, markdown, say, this_run
from flows.registry import (
    CHALLENGER,
    CHAMPION,
    MODEL_NAME,
    PREVIOUS,
    RegisteredVersion,
    Registry,
    RegistryError,
    RunLog,
)
from flows.replay.fast import FastEngine
from flows.replay.market import Intrabar, ScoredMarket
from flows.replay.outcome import BacktestRun
from flows.replay.sweep import Walk, by_word, compiled, run_sweep
from flows.replay.word import replay
from flows.resources import Meter
from flows.settings import FlowSettings, TimeframeName, VenueName
from flows.tear_sheet import tear_sheet
from flows.unreplayed import not_replayed
from flows.wording import flattened, moment
from inference.models.bundle import Bundle
from inference.models.manifest import TimeWindow


@task(task_run_name="find-version-{version}", **ASKING_REGISTRY)
def find_version(settings: FlowSettings, version: str | None) -> RegisteredVersion:
    """Return the version of a number or an alias; by default the champion, else the challenger."""
    registry = Registry(settings.registry_address)
    if version is None:
        return registry.champion() or registry.resolve(None)
    try:
        found = registry.by_alias(version) if version in (CHAMPION, CHALLENGER, PREVIOUS) else registry.version(version)
    except RegistryError as error:
        page = f"{registry.url}/#/models/{MODEL_NAME}"
        raise BadInputError(f"There is no version {version!r}: {error}; {page} shows those that there are") from error
    if found is None:
        raise BadInputError(f"No version has the alias {version!r}; run 'qtctl train' first, or name a number")
    return found


@task(task_run_name="download-version-{version.version}", **ASKING_REGISTRY)
def download(settings: FlowSettings, version: RegisteredVersion, folder: Path) -> Path:
    """Download the bundle as it was registered."""
    return Registry(settings.registry_address).download_bundle(version.version, folder)


@task(task_run_name="score-candles", cache_policy=NO_CACHE, timeout_seconds=3 * 3600)
def load_market(
    settings: FlowSettings, bundle: Bundle, window: TimeWindow, version: str, bar: ProgressBar
) -> ScoredMarket:
    """Read the candles of the window and ask the model at every close."""
    series = series_of(settings, bundle.manifest)
    return scored_market(
        settings,
        series,
        bundle,
        window,
        version=version,
        tell=lambda sentence: say("%s", sentence),
        progress=lambda share: bar.show(0.1 + 0.4 * share, "asking the model"),
    )


@task(task_run_name="replay-decisions", cache_policy=NO_CACHE, timeout_seconds=6 * 3600)
def replay_market(market: ScoredMarket, asked: Asked, bar: ProgressBar) -> BacktestRun:
    """Trade the market by the worker's own decisions at the sandbox's matching engine."""
    return replay(
        market,
        asked.policy,
        balance=asked.balance,
        costs=asked.costs,
        exits=asked.exits,
        progress=lambda share: bar.show(0.5 + 0.4 * share, "replaying decisions"),
    )


@task(task_run_name="bounds-and-sweep", cache_policy=NO_CACHE, timeout_seconds=6 * 3600)
def compile_report(
    market: ScoredMarket, asked: Asked, run: BacktestRun, report: BacktestReport, bar: ProgressBar
) -> BacktestReport:
    """Add bounds inside candles and sweeps, and whether the compiled engine agrees, where it was asked."""
    terms: dict[str, Any] = {"balance": asked.balance, "costs": asked.costs, "exits": asked.exits}
    if asked.engine is Engine.WORD:
        rows, lucky = _swept(by_word(market, **terms), asked, bar)
        return replace(report, bounds=_bounds_by_word(market, asked), sweep=rows, lucky_sharpe=lucky)
    try:
        engine = FastEngine(market)
        ours = engine.run(asked.policy, **terms)
        bounds = {
            one.value: run_figures(engine.run(asked.policy, **terms, intrabar=one))
            for one in (Intrabar.PESSIMISTIC, Intrabar.OPTIMISTIC)
        }
    except BadInputError as error:
        if asked.sets:
            raise
        say("The compiled engine was not asked: %s", error)
        return replace(report, bounds=_bounds_by_word(market, asked))
    agree = ours.trades == run.trades
    warnings = report.warnings
    if not agree:
        warnings = (*warnings, "The compiled engine and the worker's decisions differ: believe the latter, report this")
    rows, lucky = _swept(compiled(engine, **terms), asked, bar)
    return replace(report, bounds=bounds, engines_agree=agree, warnings=warnings, sweep=rows, lucky_sharpe=lucky)


def _bounds_by_word(market: ScoredMarket, asked: Asked) -> dict[str, dict[str, float]]:
    return {
        one.value: run_figures(
            replay(market, asked.policy, balance=asked.balance, costs=asked.costs, intrabar=one, exits=asked.exits)
        )
        for one in (Intrabar.PESSIMISTIC, Intrabar.OPTIMISTIC)
    }


def _swept(walk: Walk, asked: Asked, bar: ProgressBar) -> tuple[tuple[SweepResult, ...], float | None]:
    if not asked.sets:
        return (), None
    return swept(run_sweep(walk, asked.sets, progress=lambda share: bar.show(0.9 + 0.08 * share, "sweeping")))


@task(task_run_name="count-look", **ASKING_REGISTRY)
def note_look(settings: FlowSettings, version: RegisteredVersion, look: str, sets: int) -> int:
    """Count a look where gates and trials read it, before anything is seen; return how many there were, by whatever."""
    when = utc_now().isoformat(timespec="milliseconds")
    return count_look(Registry(settings.registry_address), version.run_id, look, when, sets=sets)


@task(task_run_name="log-to-mlflow", **ASKING_REGISTRY)
def log_backtest(settings: FlowSettings, report: BacktestReport, files: dict[str, str]) -> str:
    """Log figures and files to a run of their own; return its page."""
    registry = Registry(settings.registry_address)
    run_id = registry.start_run(
        f"backtest v{report.version} {report.start} to {report.end}",
        {"kind": "backtest", "version": report.version, "bundle_digest": report.bundle_digest},
        "A version traded on stored candles by the worker's own decisions.",
    )
    bounds = {f"{name}/{key}": value for name, found in report.bounds.items() for key, value in found.items()}
    told = msgspec.to_builtins(report)
    params = {name: told[name] for name in ("venue", "timeframe", "symbols", "start", "end", "balance")}
    entry = RunLog(
        params=flattened(params | {"policy": told["policy"], "costs": told["costs"]}),
        metrics={f"backtest/{name}": value for name, value in (report.figures | bounds).items()}
        | {f"resources/{name}": value for name, value in report.resources.items()},
        texts=files,
    )
    registry.log(run_id, entry)
    registry.finish_run(run_id)
    return registry.run_page(run_id, settings.registry_page)


def _named() -> str:
    chosen = flow_run.parameters
    return f"backtest {chosen.get('version') or Path(chosen.get('bundle') or CHAMPION).name}"


@flow(name="backtest", flow_run_name=_named, timeout_seconds=12 * 3600)
def backtest(
    version: str | None = None,
    *,
    bundle: str | None = None,
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
    start: str | None = None,
    end: str | None = None,
    policy: str | None = None,
    balance: str = "10000",
    spread_bps: str = "1",
    maker_fee: str = "0.0002",
    sweep: tuple[str, ...] = (),
    engine: Engine = Engine.FAST,
    out: str | None = None,
) -> BacktestReport:
    """
    Trade a version on stored candles as the worker would have traded it.

    Args:
        version: Number, or `champion`, `challenger`, `previous`. Left empty: the champion, else the challenger.
        bundle: Folder of a bundle to trade instead; nothing is asked of MLflow then.
        venue: Whose candles. Left empty: QT_VENUE, by default the sandbox exchange.
        symbols: Unified names separated by commas. Left empty: QT_SYMBOLS, else those that the model was trained on.
        timeframe: Duration of a candle. Left empty: QT_TIMEFRAME, by default 5m; it must be the model's.
        start: First moment (UTC) of the window. Left empty: from where the model has seen nothing.
        end: Last moment, exclusive. Left empty: the newest stored candle.
        policy: TOML file with the trading rules; it may name an exit profile of the home. Left empty: the built-in
            ones.
        balance: What the account holds at the start, in quote currency.
        spread_bps: Spread between bid and ask in basis points.
        maker_fee: Fee of what rested before it filled, as a fraction of notional.
        sweep: Rules to try besides, each as `rule=a,b,c`; every combination is.
        engine: What walks sweeps and bounds: `fast`, compiled, or `word`, the worker's own decisions.
        out: Folder for trades, equity, report and tear sheet. Left empty: one of its own in QUANTUM_HOME/backtests.
    """
    settings = FlowSettings.of(venue=venue, symbols=symbols, timeframe=timeframe)
    asked = Asked.of(
        settings, policy=policy, sweep=sweep, balance=balance, spread_bps=spread_bps, maker_fee=maker_fee, start=start,
        end=end, engine=engine,
    )  # fmt: skip
    meter, bar = Meter.start(), ProgressBar("backtest", "Backtest")
    registered = None if bundle is not None else find_version(settings, version)
    name = registered.version if registered else Path(bundle or "").name
    settings.candidates.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.candidates) as folder:
        path = download(settings, registered, Path(folder)) if registered else Path(bundle or "").expanduser()
        model = open_bundle(path, registered.tagged_digest if registered else None)
    series = series_of(settings, model.manifest)
    window = window_of(settings, series, model.manifest, asked.start_ms, asked.end_ms)
    warnings, looks = _what_limits(settings, registered, model, window, len(asked.sets))
    warnings = (*warnings, *not_replayed(asked.policy.stated()))
    for one in warnings:
        say("%s", one)
    bar.show(0.1, "the model is here")
    market = load_market(settings, model, window, name, bar)
    run = replay_market(market, asked, bar)
    report = compile_report(
        market, asked, run, _report(settings, model, market, name, asked, run, warnings, looks), bar
    )
    target = Path(out).expanduser() if out else settings.home / "backtests" / f"{utc_now():%Y%m%dT%H%M%SZ}-{name}"
    report = replace(report, folder=str(target.resolve()), resources=meter.figures())
    files = _files(run, report)
    if registered is not None:
        page = log_backtest(settings, report, files)
        report = replace(report, page=page)
    _write(target, files | {"report.json": msgspec.json.encode(report).decode()})
    markdown("backtest-report", backtest_markdown(report), f"Version {name} traded on stored candles")
    bar.show(1.0, "done")
    return report


def _what_limits(
    settings: FlowSettings, registered: RegisteredVersion | None, model: Bundle, window: TimeWindow, sets: int
) -> tuple[tuple[str, ...], int | None]:
    warnings: list[str] = []
    looks: int | None = None
    seen = seen_share(model.manifest, window)
    if seen > 0:
        seen_until = moment(model.manifest.training.seen_until_ms)
        warnings.append(
            f"IN-SAMPLE: the model saw {seen:.0%} of this window in training (until {seen_until} UTC); "
            "what it earns there says nothing about what it will earn"
        )
    if looks_into_locked(model.manifest, window):
        counted = "nobody counts looks at a bundle that is not registered, or not by a training of ours"
        if registered and registered.run_id:
            looks = note_look(settings, registered, f"backtest-{this_run()}", sets)
            counted = f"this is look {looks}" + (f", at {sets:,} sets of rules besides" if sets else "")
        warnings.append(
            f"LOCKED WINDOW: these candles judge this version ({counted}); choosing by them what to train or "
            "trade spends them: gates count each look, and each set"
        )
    return tuple(warnings), looks


def _report(
    settings: FlowSettings,
    model: Bundle,
    market: ScoredMarket,
    name: str,
    asked: Asked,
    run: BacktestRun,
    warnings: tuple[str, ...],
    looks: int | None,
) -> BacktestReport:
    if run.stopped_ms is not None:
        at = moment(run.stopped_ms)
        warnings = (*warnings, f"EMERGENCY STOP at {at} UTC, at a wall of drawdown; nothing was entered after it")
    if run.liquidated_ms is not None:
        warnings = (*warnings, f"LIQUIDATED at {moment(run.liquidated_ms)} UTC; nothing was traded after it")
    return BacktestReport(
        version=name,
        bundle_digest=model.digest,
        venue=settings.venue,
        timeframe=settings.timeframe,
        symbols=market.symbols,
        start=moment(market.start_ms),
        end=moment(market.end_ms),
        candles=len(market),
        opinions=market.scored,
        balance=str(asked.balance),
        costs={key: str(value) for key, value in asdict(asked.costs).items()},
        policy={key: str(value) for key, value in asked.policy.stated().items()},
        figures=run_figures(run),
        bounds={},
        by_symbol=by_symbol(run),
        by_reason=by_reason(run),
        denied=dict(run.denied),
        approved=run.approved,
        engines_agree=None,
        warnings=warnings,
        looks=looks,
    )


def _files(run: BacktestRun, report: BacktestReport) -> dict[str, str]:
    page = tear_sheet(run, f"Version {report.version}, {report.start} to {report.end} UTC")
    files = {"trades.csv": trades_csv(run), "equity.csv": equity_csv(run), "backtest.md": backtest_markdown(report)}
    return files if page is None else files | {"tear-sheet.html": page}


def _write(folder: Path, files: dict[str, str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"{folder} cannot be written: {error.strerror}; choose another with --out") from error
