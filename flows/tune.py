"""The flow that searches for better settings of a training, inside the stretch that its members may learn from."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import numpy as np
import optuna
from msgspec.structs import replace
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from feature_store.clock import utc_now
from feature_store.errors import BadInputError, QuantumError
from flows.backtest_inputs import stored_market
from flows.frames import lake_as_of, newest_close_ms, recent_frames, stored_series
from flows.orchestration import ASKING_REGISTRY, ProgressBar, markdown, named_by_series, say, table
from flows.registry import Registry, RunLog
from flows.settings import FOLLOW_UNIVERSE, FlowSettings, TimeframeName, TrainingSize, VenueName
from flows.sizes import training_config
from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, FrameSet
from flows.trials import STUDY_TAG, study_tags
from flows.tuned import Tuned, keep, policy_path, tuning_folder
from flows.tuning.exits import TradedMarket, base_policy, policy_with
from flows.tuning.objective import fit_window, scores
from flows.tuning.pictures import study_plots
from flows.tuning.search import Task, search, variant_of, variants
from flows.tuning.space import Space, chosen, parse_space
from flows.tuning.studies import (
    Aim,
    Candles,
    Place,
    best,
    candles_of,
    keep_to_candles,
    looked_at,
    open_study,
    parse_place,
    tried,
)
from flows.wording import moment
from inference.domain.errors import RegistryUnavailableError
from inference.domain.policy import Policy
from inference.policy.policy_file import policy_text

TRIAL_TAG = "tuning_trial"
_PARENT, _CHILD, _STANDARD = "mlflow/study", "mlflow/trial", "standard"


@task(task_run_name="load-candles-and-features", cache_policy=NO_CACHE, timeout_seconds=1800)
def load_variants(
    settings: FlowSettings, base: TrainingConfig, space: Space, *, end_ms: int, symbols: tuple[str, ...] | None
) -> dict[str, FrameSet]:
    """Read the lake once for each thing that may be learned, up to one moment."""
    return {
        name: recent_frames(
            settings,
            config.horizon,
            lambda sentence: say("%s", sentence),
            end_ms=end_ms,
            symbols=symbols,
            learns=config,
        )
        for name, config in variants(base, space).items()
    }


@task(task_run_name="load-candles-to-trade", cache_policy=NO_CACHE, timeout_seconds=1800)
def load_traded(settings: FlowSettings, base: TrainingConfig, frames: FrameSet, policy: Policy) -> TradedMarket:
    """Read the candles that exits are scored on: those of the stretch that members learn from, and none after it."""
    dataset = Dataset(frames, horizon=base.horizon, window=base.window)
    fit = fit_window(dataset, base)
    stored = stored_series(lake_as_of(settings, None), settings)
    series = [one for one in stored if one.symbol in frames.symbols]
    market = stored_market(
        settings, series, fit, horizon=base.horizon, version="tuning", tell=lambda sentence: say("%s", sentence)
    )
    return TradedMarket(market, policy)


@task(task_run_name="try-choices", cache_policy=NO_CACHE, timeout_seconds=24 * 3600)
def try_choices(place: Place, work: Task, trials: int, processes: int, bar: ProgressBar) -> int:
    """Search until as many choices were tried as were asked for; return how many were."""
    study = search(place, work, trials=trials, processes=processes, progress=bar.callback())
    if _STANDARD not in study.user_attrs:
        base = replace(work.base, members=work.space.trained(work.base))
        found = scores(work.frames.get(variant_of(base), next(iter(work.frames.values()))), base, work.traded)
        study.set_user_attr(_STANDARD, float(np.mean([one.net_per_slot_bps for one in found])))
    return len(tried(study))


@task(task_run_name="log-study-to-mlflow", **ASKING_REGISTRY)
def log_study(settings: FlowSettings, place: Place, tuned: Tuned, policy: str | None) -> str:
    """Log the study as a run and each trial as a run inside it, each once; return the page of the study."""
    registry, study = Registry(settings.registry_address), open_study(place)
    parent = study.user_attrs.get(_PARENT)
    if parent is None:
        note = "A tuning: each run inside is one choice, scored inside the stretch that members may learn from."
        parent = registry.start_run(f"tuning {place.name}", {STUDY_TAG: place.name}, note)
        study.set_user_attr(_PARENT, parent)
        registry.finish_run(parent)
    for trial in tried(study):
        key = f"{_CHILD}/{trial.number}"
        if key not in study.user_attrs:
            study.set_user_attr(key, _log_trial(registry, place, parent, trial))
    registry.log(
        parent,
        RunLog(
            metrics={
                "tuning/trials": tuned.trials,
                "tuning/net_per_slot_bps": tuned.net_per_slot_bps,
                "tuning/standard_net_per_slot_bps": tuned.standard_net_per_slot_bps,
            },
            # Once more with each run: a study that goes on has tried more.
            tags=study_tags(
                tuned.study,
                venue=tuned.venue,
                timeframe=tuned.config.timeframe,
                trials=tuned.trials,
                looked_at=tuned.looked_at,
            ),
            texts={"reports/tuned.json": msgspec.json.encode(tuned).decode()}
            | ({} if policy is None else {"policy.toml": policy}),
            images={f"plots/{name}": image for name, image in study_plots(study).items()},
        ),
    )
    return registry.run_page(parent, settings.registry_page)


def _log_trial(registry: Registry, place: Place, parent: str, trial: optuna.trial.FrozenTrial) -> str:
    tags = {"mlflow.parentRunId": parent, STUDY_TAG: place.name, TRIAL_TAG: str(trial.number)}
    run_id = registry.start_run(f"trial {trial.number}", tags, f"Trial {trial.number} of study {place.name}.")
    folds: list[dict[str, float]] = trial.user_attrs.get("folds", [])
    metrics = {f"tuning/{name}": float(np.mean([fold[name] for fold in folds])) for name in (folds[0] if folds else ())}
    registry.log(run_id, RunLog(params=trial.params, metrics=metrics, tags={"state": trial.state.name.lower()}))
    registry.finish_run(run_id)
    return run_id


@flow(name="tune", flow_run_name=named_by_series, timeout_seconds=25 * 3600)
def tune(
    study: str = "default",
    trials: int = 40,
    processes: int = 2,
    aim: Aim = "net",
    parts: str = "members,features,ensemble",
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
    days: int | None = None,
    size: TrainingSize | None = None,
    *,
    members: str | None = None,
    policy: str | None = None,
) -> Tuned:
    """
    Search for better settings of members, of what they read and learn, of the ensemble, and of where trades end.

    Each choice is scored by walk-forward inside the stretch that a candidate's members learn from; what weighs,
    calibrates and judges a candidate is never looked at. The best choice is kept in the home, and `train` takes it
    with parameter `tuned`; the gates then ask more of the candidate, the more choices were tried, in this study or in
    others on its candles. Run again, a study goes on where it was, also after a crash; it keeps to the candles and
    sizes that it was begun with, however many newer candles there are by then.

    Args:
        study: Name of the study; small letters, digits, dots and dashes.
        trials: How many choices to try in all; those of earlier runs of the study count.
        processes: How many at the same time; each takes one core.
        aim: `net`: net return alone, poor choices are given up early. `net-and-drawdown`: both, evolved by NSGA-II.
        parts: What to search, with commas. `members`: the settings of each; `features`: which families of inputs are
            read; `labels`: what trees learn; `exits`: stop, target and longest holding of the worker's policy, traded
            by the compiled backtest; `ensemble`: how much is taken back and shrunk; `thresholds`: the least and the
            most confidence that it may trade from; `choice`: who of the members votes; `weights`: fixed ones, instead
            of those learned.
        members: Who is trained in each trial, with commas; nets too, which make it much longer. Left empty: the trees
            among QT_MEMBERS.
        policy: TOML file of the rules that part `exits` does not search. Left empty: the built-in ones.
        venue: Whose candles. Left empty: QT_VENUE, by default the sandbox exchange.
        symbols: Unified names separated by commas, or `all` that are stored. Left empty: QT_SYMBOLS.
        timeframe: Duration of a candle. Left empty: QT_TIMEFRAME, by default 5m.
        days: How many days, counted back from the newest candle that was stored when the study began. Left empty:
            QT_DAYS, by default 30.
        size: Where the search begins: the settings of `full`, `quick` or `tiny`. Left empty: QT_SIZE.
    """
    settings = FlowSettings.of(venue=venue, symbols=symbols, timeframe=timeframe, days=days, size=size)
    space, rules = parse_space(parts, members), base_policy(parts, policy)
    place = parse_place(study, aim, tuning_folder(settings), settings.tuning_storage)
    base = training_config(settings, utc_now())
    frames = _load(settings, place, base, space)
    traded = None if rules is None else load_traded(settings, base, next(iter(frames.values())), rules)
    work = Task(base=base, space=space, frames=frames, traded=traded, market=market_of(settings))
    count = try_choices(place, work, trials, processes, ProgressBar("tune", "Tuning"))
    tuned = _found(settings, place, work, count)
    text = _policy_text(work, tuned)
    keep(settings, tuned, text)
    with contextlib.suppress(RegistryUnavailableError):
        # What was found is kept in the home; a registry that is down now gets the trials with the next run.
        page = log_study(settings, place, tuned, text)
        say("Study %s: %s", study, page)
    _publish(open_study(place), tuned)
    return tuned


def _load(settings: FlowSettings, place: Place, base: TrainingConfig, space: Space) -> dict[str, FrameSet]:
    """Read the candles that a study was begun with, or begin it with the newest."""
    lake, study = lake_as_of(settings, None), open_study(place)
    newest_ms = newest_close_ms(lake, stored_series(lake, settings))
    known = candles_of(study, place, market_of(settings), newest_ms)
    end_ms = newest_ms if known is None else known.end_ms
    if known is not None:
        say("Study %s goes on with candles up to %s UTC, as it was begun", place.name, moment(end_ms))
    frames = load_variants(settings, base, space, end_ms=end_ms, symbols=None if known is None else known.symbols)
    keep_to_candles(study, place, Candles(end_ms=end_ms, symbols=next(iter(frames.values())).symbols))
    return frames


def _policy_text(work: Task, tuned: Tuned) -> str | None:
    if work.traded is None:
        return None
    note = (
        f"Exits of trial {tuned.number} of {tuned.trials} of study {tuned.study}. The best of many looks better than "
        "it is.\nTry it: qtctl backtest --policy FILE. Trade by it: qtctl worker --policy FILE."
    )
    return policy_text(policy_with(work.traded.policy, tuned.config.traded_exits), note)


def _found(settings: FlowSettings, place: Place, work: Task, count: int) -> Tuned:
    study = open_study(place)
    trial = best(study)
    if trial is None:
        raise QuantumError(f"No trial of study {place.name} ran to its end, so nothing was found; try more")
    config = config_of(trial, place, work)
    return Tuned(
        study=place.name,
        trials=count,
        number=trial.number,
        net_per_slot_bps=trial.values[0],
        standard_net_per_slot_bps=study.user_attrs[_STANDARD],
        venue=settings.venue,
        looked_at=looked_at(study),
        config=config,
        takes_members=work.space.chooses_members,
        policy=None if work.traded is None else str(policy_path(settings, place.name)),
    )


def market_of(settings: FlowSettings) -> dict[str, Any]:
    """Return which candles a search asks for, and where its settings begin, by name."""
    symbols = settings.chosen_symbols()
    everything = FOLLOW_UNIVERSE if settings.follows_universe else "all"
    return {
        "venue": settings.venue,
        "timeframe": settings.timeframe,
        "symbols": sorted(symbols) if symbols else everything,
        "days": settings.days,
        "size": settings.size,
    }


def config_of(trial: optuna.trial.FrozenTrial, place: Place, work: Task) -> TrainingConfig:
    """
    Return the training that a trial chose.

    Raises:
        BadInputError: It did not choose all that is searched now, as a trial of other inputs or another code.
    """
    fixed: Any = optuna.trial.FixedTrial(trial.params)
    try:
        return chosen(fixed, work.base, work.space, next(iter(work.frames.values())).input_names)
    except ValueError as error:
        raise BadInputError(
            f"Trial {trial.number} of study {place.name} did not choose what is searched now ({error}); choose another "
            "--study"
        ) from error


def _publish(study: optuna.Study, tuned: Tuned) -> None:
    rows = [
        {
            "trial": one.number,
            "state": one.state.name.lower(),
            "net per slot, bps": round(one.values[0], 3) if one.values else None,
            "drawdown, bps": round(one.values[1], 1) if one.values and len(one.values) > 1 else None,
        }
        for one in sorted(tried(study), key=lambda one: -(one.values[0] if one.values else -1e9))[:50]
    ]
    front = {one.number for one in study.best_trials} if len(study.directions) > 1 else set()
    table("tuning-trials", [row | {"on the front": row["trial"] in front} for row in rows], "The best trials first")
    markdown(
        "tuning",
        f"## Study {tuned.study}: trial {tuned.number} of {tuned.trials}\n\n"
        f"{tuned.net_per_slot_bps:.2f} bps per slot, net, where the settings it began from earned "
        f"{tuned.standard_net_per_slot_bps:.2f}, on the same folds. The best of {tuned.trials} looks better than it "
        f"is: only a candidate trained with it, and judged on locked candles, tells.\n\n"
        f"`qtctl train --tuned {tuned.study}` trains one." + _exits_told(tuned),
        "What the search found",
    )


def _exits_told(tuned: Tuned) -> str:
    exits = tuned.config.traded_exits
    if exits is None:
        return ""
    return (
        f"\n\nIts trades ended {exits.stop_atr_multiple:g} average true ranges against it, "
        f"{exits.target_atr_multiple:g} for it, or after {exits.holding_candles} candles. `{tuned.policy}` holds the "
        "whole policy; a backtest and a worker take it as `--policy`, and nothing takes it by itself."
    )
