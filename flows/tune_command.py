"""The command of qtctl that searches for better settings."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from flows.running import FAILED, UNUSABLE, AsJson, app, execute
from flows.settings import FlowSettings, TimeframeName, TrainingSize, VenueName

# See flows/commands.py.
if importlib.util.find_spec("optuna") is None or importlib.util.find_spec("prefect") is None:
    raise ModuleNotFoundError("Tuning needs Optuna: pip install 'quantum-trader[pipeline]'", name="optuna")

tune = app(
    "tune",
    "qtctl tune --trials 40",
    "qtctl tune --study evolved --aim net-and-drawdown --parts members,features,labels",
    "qtctl tune --study leave --parts exits,ensemble",
    "qtctl tune --study leave --parts exits --policy policy.toml",
    "qtctl tune --study deep --parts choice,weights --members xgboost,lightgbm,nhits --size quick",
    "qtctl tune --study wide --processes 4 --json | jq .net_per_slot_bps",
    statuses={0: "as many choices were tried as were asked for; the best is kept", 1: FAILED, 2: UNUSABLE},
)


@tune.default
def _tune(
    *,
    study: str = "default",
    trials: int = 40,
    processes: int = 2,
    aim: str = "net",
    parts: str = "members,features,ensemble",
    members: str | None = None,
    policy: Path | None = None,
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
    days: int | None = None,
    size: TrainingSize | None = None,
    json: AsJson = False,
) -> int:
    """
    Search for better settings of a training; train --tuned STUDY takes them.

    Each choice is trained and traded, net of costs, by walk-forward inside the stretch that a candidate's members learn
    from; what weighs, calibrates and judges candidates is never looked at. Interrupted, it goes on where it was when
    called again. Trials are kept in the home, or in the database that QT_TUNING_STORAGE names
    (postgresql+psycopg://user@host/tuning), where several machines that call it with the same study share them. The
    gates count the trials of all studies that looked at a candidate's candles: the best of many has to show more. A
    study keeps to the venue, timeframe, symbols, days and size that it was begun with, and to the candles that were
    stored then. Search over as many days as you train on: a training refuses settings that were chosen by candles that
    judge it.

    A trial costs one training and one trading of its members on each of three folds. What parts search:

    members: settings of the trees, and of nets that are named; costs nothing more.

    features: which families of inputs are read; costs nothing more.

    labels: what trees learn, and by which exits; candles are read once more for each.

    exits: stop, target and longest holding of the worker's policy. Trades are then those of the compiled backtest, net
    of costs, where else each is held for one horizon; costs little more. The policy is written beside the study.

    ensemble: how much of the market's move and of learned weights is taken back, and on how many trades a threshold is
    chosen; costs nothing more.

    thresholds: the least and the most confidence that the ensemble may trade from; costs nothing more.

    choice: who of the members votes; costs less, where members are left out.

    weights: fixed shares instead of learned ones; costs nothing more, and fits chance easily.

    Args:
        study: Name of the study: small letters, digits, dots and dashes.
        trials: How many choices to try in all; those of earlier runs of the study count.
        processes: How many at the same time, of one core each.
        aim: net, where poor choices are given up early, or net-and-drawdown, evolved by NSGA-II.
        parts: Of members, features, labels, exits, ensemble, thresholds, choice, weights, with commas: what to search.
        members: Who is trained in each trial, with commas; by default the trees among QT_MEMBERS. Nets (nhits,
            patchtst) make it much longer.
        policy: TOML file of the rules that exits leaves as they are; by default the built-in ones.
        venue: sandbox, binanceusdm, binance or bitfinex; by default QT_VENUE, else sandbox.
        symbols: Unified names separated by commas, or all that are stored; by default QT_SYMBOLS, else all.
        timeframe: Duration of a candle; by default QT_TIMEFRAME, else 5m.
        days: How many days, counted back from the newest candle that was stored when the study began; by default
            QT_DAYS, else 30.
        size: Settings to begin from: full, quick or tiny; by default QT_SIZE, else full.
        json: Print the result, or the error, as one JSON document and nothing else.
    """
    from flows.tuning.exits import base_policy  # noqa: PLC0415 - --help stays quick
    from flows.tuning.search import check_numbers  # noqa: PLC0415 - as above
    from flows.tuning.space import parse_space  # noqa: PLC0415
    from flows.tuning.studies import parse_place  # noqa: PLC0415

    chosen: dict[str, Any] = {"venue": venue, "symbols": symbols, "timeframe": timeframe, "days": days, "size": size}
    settings = FlowSettings.of(**chosen)
    parse_place(study, aim, settings.home / "tuning", settings.tuning_storage)
    parse_space(parts, members)
    file = None if policy is None else str(policy.expanduser().resolve())
    base_policy(parts, file)
    check_numbers(trials, processes)

    def run() -> Any:
        from flows.tune import tune as flow  # noqa: PLC0415 - see flows/commands.py

        return flow(
            study=study,
            trials=trials,
            processes=processes,
            aim=aim,
            parts=parts,
            members=members,
            policy=file,
            **chosen,
        )

    return execute(run, chosen, as_json=json, sentence=_told)


def _told(done: Any) -> str:
    found = (
        f"Trial {done.number} of {done.trials} is the best: {done.net_per_slot_bps:.2f} bps per slot, net, where the "
        f"standard settings earned {done.standard_net_per_slot_bps:.2f}. To take it: qtctl train --tuned {done.study}"
    )
    return found if done.policy is None else f"{found}\nIts exits: qtctl backtest --policy {done.policy}"
