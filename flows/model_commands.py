"""The commands of qtctl that make, judge and change models, each the run of a flow."""

from __future__ import annotations

import getpass
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from feature_store.errors import BadInputError
from flows.retraining.job import JobKind, Trigger
from flows.rollback_command import rollback
from flows.running import UNUSABLE, AsJson, app, execute
from flows.settings import DeviceName, FlowSettings, LabelName, TimeframeName, TrainingSize, VenueName, parse_moment
from inference.models.manifest import EnsembleMode, Weighting

# See flows/commands.py.
if importlib.util.find_spec("prefect") is None:
    raise ModuleNotFoundError("Flows need Prefect: pip install 'quantum-trader[pipeline]'", name="prefect")

__all__ = ["approve", "promote", "retrain", "rollback", "shadow", "train"]

_NO_VERSION = "failed: Prefect or MLflow does not answer, or there is no such version"
_REFUSED = "refused: what was measured fails a gate, and the champion stays"
_HELD = "held back: nothing speaks against the version, but evidence is missing; the champion stays"

train = app(
    "train",
    "qtctl train",
    "qtctl train --size quick --days 14",
    "qtctl train --as-of 2026-03-01",
    "qtctl train --label barrier --policy policy.toml",
    "qtctl train --members xgboost,lightgbm,forest --mode bagging",
    "qtctl train --weighting fixed --heads quantile",
    "qtctl train --tuned default",
    statuses={
        0: "a candidate is registered as challenger",
        1: "failed: Prefect or MLflow does not answer, or a stored file is damaged",
        2: "bad usage: an unknown option or setting, or too few candles are stored",
    },
)
shadow = app(
    "shadow",
    "qtctl shadow",
    "qtctl shadow 3 --json",
    "qtctl shadow --policy policy.toml",
    "qtctl shadow --live",
    "qtctl shadow 3 --live",
    statuses={0: "scored, whatever the score, or nothing has matured on live candles yet", 1: _NO_VERSION},
)
promote = app(
    "promote",
    "qtctl promote",
    "qtctl promote 3 --json | jq .missing",
    statuses={0: "promoted: the version is champion", 1: _NO_VERSION, 3: _REFUSED, 4: _HELD},
)
approve = app(
    "approve",
    "qtctl approve 3 --by 'Ada Lovelace'",
    "qtctl approve 3 --by ada --json | jq .bundle_digest",
    statuses={
        0: "approved: the version's tags say by whom, when, and which bundle",
        1: _NO_VERSION,
        3: "refused: the gates refused the version, or it lacks other evidence than the approval",
    },
)
retrain = app(
    "retrain",
    "qtctl retrain",
    "qtctl retrain --deployment",
    "qtctl retrain --kind incremental",
    "qtctl retrain --resume retrain_20251213_041028",
    "qtctl retrain --days 60 --size quick --json | jq .promoted",
    statuses={
        0: "a new version was promoted",
        1: "failed: a step, or with --deployment the run; the message is its own",
        2: UNUSABLE,
        3: _REFUSED,
        4: _HELD,
    },
)


@train.default
def _train(
    *,
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
    days: int | None = None,
    size: TrainingSize | None = None,
    as_of: str | None = None,
    label: LabelName | None = None,
    policy: Path | None = None,
    members: str | None = None,
    weighting: Weighting | None = None,
    mode: EnsembleMode | None = None,
    heads: str | None = None,
    device: DeviceName | None = None,
    tuned: str | None = None,
    json: AsJson = False,
) -> int:
    """
    Train a candidate from the candle lake, log it to MLflow and register it as challenger.

    Trees learn the return over the horizon (forward); or the same net of costs and stored funding (net), where constant
    costs are only a shift and change little; or the net return of the exit that the worker's rules would have taken
    (barrier). Nets learn the returns of each candle, whatever is chosen, and all are judged on the forward return.

    Args:
        venue: sandbox, binanceusdm, binance or bitfinex; by default QT_VENUE, else sandbox.
        symbols: Unified names separated by commas, or all that are stored; by default QT_SYMBOLS, else all.
        timeframe: Duration of a candle; by default QT_TIMEFRAME, else 5m.
        days: How many days, counted back from the newest stored candle; by default QT_DAYS, else 30.
        size: full, quick or tiny (tiny only tries the machinery); by default QT_SIZE, else full.
        as_of: Train on what could be known at a past date or moment of UTC, such as 2026-03-01; by default now.
        label: What trees learn: forward, net or barrier, as above; by default forward.
        policy: TOML file whose exits label barrier takes; by default those that --tuned found, else the built-in ones.
        members: Which vote, by name and comma; by default QT_MEMBERS, else xgboost,lightgbm,nhits,patchtst. Those that
            are compared with (dlinear, forest, linear, mlp) vote where they are named.
        weighting: stacking (out of fold), skill, equal or fixed; by default QT_WEIGHTING, else stacking.
        mode: voting, stacking (least squares alone weighs) or bagging (means of several draws of days); by default
            QT_ENSEMBLE_MODE, else voting.
        heads: quantile (an interval), direction (a probability of a rise), or both with a comma; by default QT_HEADS,
            else none.
        device: cpu or gpu, where nets train; by default QT_DEVICE, else cpu.
        tuned: Tuning (qtctl tune) whose best settings it takes; by default QT_TUNED, else none. Members and weights
            that were searched are taken too, where none are named here. It must have searched this venue and timeframe,
            and looked at no candle that weighs, calibrates or judges: tune over as many days as you train on.
        json: Print the result, or the error, as one JSON document and nothing else.
    """
    chosen: dict[str, Any] = {"venue": venue, "symbols": symbols, "timeframe": timeframe, "days": days, "size": size}
    chosen |= _ensemble(members, weighting, mode, heads, device) | _tuned(tuned, chosen)
    learned = _learned(label, policy)
    if as_of is not None:
        parse_moment(as_of)

    def run() -> Any:
        from flows.train import train as flow  # noqa: PLC0415 - see flows/commands.py

        return flow(**chosen, **learned, as_of=as_of)

    return execute(run, chosen, as_json=json, sentence=_registered)


@shadow.default
def _shadow(
    version: str | None = None,
    *,
    policy: Path | None = None,
    live: Annotated[bool, Parameter(negative=())] = False,
    json: AsJson = False,
) -> int:
    """
    Score a version on the candles that were locked away from its training, beside baselines and the champion.

    The worker's own decisions trade them too, with its stops, limits and costs: gates hold what that would have earned.
    With --live, mature instead what challengers predicted on live candles, as the worker journaled it, and log it by
    day to their MLflow runs. Days of that journal that are older than QT_SHADOW_KEEP_DAYS (90; 0 keeps all) are taken
    away once all of their outcomes are logged; those of challengers of the last days stay.

    Args:
        version: Number of the version; by default the challenger, with --live all that were scored in the last days.
        policy: TOML file with the worker's trading rules; by default QT_POLICY, else the built-in ones.
        live: Read the shadow journal of this home. By default stored candles are scored.
        json: Print the result, or the error, as one JSON document and nothing else.
    """
    if live:
        from flows.shadowing import told  # noqa: PLC0415 - see flows/commands.py

        def run_live() -> Any:
            from flows.live_shadow import live_shadow as flow  # noqa: PLC0415 - see flows/commands.py

            return flow(version=version)

        return execute(run_live, {}, as_json=json, sentence=told)

    def run() -> Any:
        from flows.shadow import shadow as flow  # noqa: PLC0415 - see flows/commands.py

        return flow(version=version, policy=None if policy is None else str(policy))

    return execute(run, {}, as_json=json, sentence=lambda done: f"Scored in shadow: {len(done)} figures, see MLflow.")


@promote.default
def _promote(version: str | None = None, *, json: AsJson = False) -> int:
    """
    Judge a version by mlflow/gates.yaml: point the alias champion at it, hold it back, or refuse it and say why.

    Held back is a version that nothing speaks against but for which evidence is missing: judge it again later. What
    must be shown depends on QT_MODE: testnet and live want a version trained on QT_VENUE and a shadow on live candles
    of that very mode that paid, and live a person's approval.

    Args:
        version: Number of the version; by default the one that the alias challenger points at.
        json: Print the result, or the error, as one JSON document and nothing else.
    """

    def run() -> Any:
        from flows.promote import promote as flow  # noqa: PLC0415 - see flows/commands.py

        return flow(version=version)

    return execute(run, {}, as_json=json, sentence=_judged)


@approve.default
def _approve(version: str, /, *, by: str | None = None, json: AsJson = False) -> int:
    """
    Record in MLflow and the journal that a person lets a version trade real money; it replaces no gate.

    The version trades once QT_MODE=live qtctl promote has judged it after that. With QT_MODE=testnet none is needed,
    and none is taken.

    Args:
        version: Number of a version that passed the gates, or lacks nothing but the approval.
        by: Who approves, a name that others recognise; by default the name that you are logged in by.
        json: Print the result, or the error, as one JSON document and nothing else.
    """
    try:
        name = getpass.getuser() if by is None else by
    except (KeyError, OSError):
        raise BadInputError("Nobody is logged in here; say who approves, such as --by 'Ada Lovelace'") from None

    def run() -> Any:
        from flows.approve import approve as flow  # noqa: PLC0415 - see flows/commands.py

        return flow(version=version, by=name)

    return execute(run, {}, as_json=json, sentence=_approved)


@retrain.default
def _retrain(
    *,
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
    days: int | None = None,
    size: TrainingSize | None = None,
    label: LabelName | None = None,
    policy: Path | None = None,
    members: str | None = None,
    weighting: Weighting | None = None,
    mode: EnsembleMode | None = None,
    heads: str | None = None,
    device: DeviceName | None = None,
    tuned: str | None = None,
    kind: JobKind | None = None,
    trigger: Trigger = "demand",
    resume: str | None = None,
    deployment: Annotated[bool, Parameter(negative=())] = False,
    json: AsJson = False,
) -> int:
    """
    Make the next model: ingest, features, train, shadow, promote.

    One runs at a time in a home. A job that was interrupted goes on where it was when the same is ordered again.

    Trees learn the return over the horizon (forward); or the same net of costs and stored funding (net), where constant
    costs are only a shift and change little; or the net return of the exit that the worker's rules would have taken
    (barrier). Nets learn the returns of each candle, whatever is chosen, and all are judged on the forward return.

    Args:
        venue: sandbox, binanceusdm, binance or bitfinex; by default QT_VENUE, else sandbox.
        symbols: Unified names separated by commas, or all; by default QT_SYMBOLS, else all.
        timeframe: Duration of a candle; by default QT_TIMEFRAME, else 5m.
        days: How many days of candles to train and judge on; by default QT_DAYS, else 30.
        size: full, quick or tiny (tiny only tries the machinery); by default QT_SIZE, else full.
        label: What trees learn: forward, net or barrier, as above; by default forward.
        policy: TOML file whose exits label barrier takes; by default those that --tuned found, else the built-in ones.
        members: Which vote, by name and comma; by default QT_MEMBERS, else xgboost,lightgbm,nhits,patchtst. Those that
            are compared with (dlinear, forest, linear, mlp) vote where they are named.
        weighting: stacking (out of fold), skill, equal or fixed; by default QT_WEIGHTING, else stacking.
        mode: voting, stacking (least squares alone weighs) or bagging (means of several draws of days); by default
            QT_ENSEMBLE_MODE, else voting.
        heads: quantile (an interval), direction (a probability of a rise), or both with a comma; by default QT_HEADS,
            else none.
        device: cpu or gpu, where nets train; by default QT_DEVICE, else cpu.
        tuned: Tuning (qtctl tune) whose best settings it takes; by default QT_TUNED, else none. Members and weights
            that were searched are taken too, where none are named here. It must have searched this venue and timeframe,
            and looked at no candle that weighs, calibrates or judges: tune over as many days as you train on.
        kind: full or incremental, which takes deep members over where they still fit; by default full, and for
            trigger schedule incremental until deep members are due (QT_DEEP_EVERY).
        trigger: schedule, drift, degradation or demand, as the job is noted; by default demand.
        resume: Id of a job that failed or was interrupted, to go on with as it was ordered; by default none.
        deployment: Let the Prefect worker run it, and follow it here.
        json: Print the result, or the error, as one JSON document and nothing else.
    """
    chosen: dict[str, Any] = {"venue": venue, "symbols": symbols, "timeframe": timeframe, "days": days, "size": size}
    chosen |= _ensemble(members, weighting, mode, heads, device) | _tuned(tuned, chosen)
    learned = _learned(label, policy)
    job: dict[str, Any] = {"kind": kind, "trigger": trigger, "resume": resume}

    def run() -> Any:
        from flows.retrain import retrain as flow  # noqa: PLC0415 - see flows/commands.py

        return flow(**chosen, **learned, **job)

    def run_by_worker() -> Any:
        import asyncio  # noqa: PLC0415 - see flows/commands.py

        from flows.following import run_and_follow  # noqa: PLC0415 - see flows/commands.py
        from flows.venue import refuse_unlisted  # noqa: PLC0415 - see flows/commands.py

        asyncio.run(refuse_unlisted(FlowSettings.of(**chosen)))
        parameters = {name: value for name, value in (chosen | learned | job).items() if value is not None}
        return run_and_follow("retrain/retrain", parameters, quiet=json)

    if deployment:
        return execute(run_by_worker, chosen, as_json=json, sentence=_judged, here=False)
    return execute(run, chosen, as_json=json, sentence=_judged)


def _ensemble(
    members: str | None,
    weighting: Weighting | None,
    mode: EnsembleMode | None,
    heads: str | None,
    device: DeviceName | None,
) -> dict[str, Any]:
    """Return what is chosen of the ensemble as flows take it, once it is sure that it can be trained."""
    from flows.sizes import ensemble_of  # noqa: PLC0415 - --help stays quick

    chosen: dict[str, Any] = {
        "members": members, "weighting": weighting, "ensemble_mode": mode, "heads": heads, "device": device,
    }  # fmt: skip
    ensemble_of(FlowSettings.of(**chosen))
    return chosen


def _tuned(study: str | None, market: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tuning that is asked for as flows take it, once it is sure that it found something in that market."""
    from flows.tuned import tuned_for  # noqa: PLC0415 - --help stays quick

    if study is not None:
        tuned_for(FlowSettings.of(**market, tuned=study))
    return {"tuned": study}


def _learned(label: LabelName | None, policy: Path | None) -> dict[str, Any]:
    """Return what is learned as flows take it, once it is sure that it can be."""
    from flows.sizes import exits_of  # noqa: PLC0415 - --help stays quick

    file = None if policy is None else str(policy.expanduser().resolve())
    exits_of(label, file)
    return {"label": label, "policy": file}


def _registered(done: Any) -> str:
    return f"Registered version {done.version}, run {done.run_id}."


def _judged(done: Any) -> str:
    said = f"Version {done.version} {done.sentence}"
    return f"{said}." if done.promoted else "\n".join([f"{said}:", *(f"  {reason}" for reason in done.reasons)])


def _approved(done: Any) -> str:
    if not done.approved:
        return f"{done.reason}."
    return (
        f"{done.by} approved version {done.version}, bundle {done.bundle_digest}. "
        f"Let it trade: QT_MODE=live qtctl promote {done.version}"
    )
