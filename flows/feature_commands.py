"""What qtctl says about features and labels: a catalogue, whether one's own are sound, how trades would have ended."""

from __future__ import annotations

import json as json_codec
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from feature_store.errors import BadInputError
from feature_store.terminal import FAILED, OK, help_end
from flows.settings import FlowSettings, TimeframeName, VenueName

if TYPE_CHECKING:
    from feature_store.candle import CandleBlock, Timeframe
    from feature_store.extensions.checking import Finding
    from flows.outcomes import Outcomes

AsJson = Annotated[bool, Parameter(name="--json", negative=())]
Recording = Annotated[Path | None, Parameter(name="--from")]

catalogue = App(
    name="catalogue",
    help_format="plaintext",
    help_epilogue=help_end(
        "qtctl features catalogue",
        "qtctl features catalogue --out docs --from candles.parquet",
        "qtctl features catalogue --json | jq -r .html",
        statuses={
            0: "page, Markdown and plots are written",
            1: "failed: the folder cannot be written, or a file of candles is damaged",
            2: "bad usage: an unknown option or setting, or a recording without enough candles",
        },
        as_json=True,
    ),
)
check = App(
    name="check",
    help_format="plaintext",
    help_epilogue=help_end(
        "qtctl features check my_features.py",
        "qtctl features check my_features --from candles.parquet",
        "qtctl features check my_features.py --json | jq '.[] | select(.passed | not)'",
        statuses={
            0: "every check of every feature holds",
            1: "failed: a check does not hold, or a file of candles is damaged",
            2: "bad usage: an unknown option, no file, or one that cannot be run or declares what cannot be",
        },
        as_json=True,
    ),
)
labels = App(
    name="labels",
    help_format="plaintext",
    help_epilogue=help_end(
        "qtctl features labels",
        "qtctl features labels --symbols BTC/USDT:USDT --days 90 --half-spread-bps 0.5",
        "qtctl features labels --policy policy.toml",
        "qtctl features labels --json | jq '.[] | select(.net_bps > 0)'",
        statuses={
            0: "the outcomes are told",
            1: "failed: a stored file is damaged",
            2: "bad usage: an unknown option, setting or rule, or a series of which no candle is stored",
        },
        as_json=True,
    ),
)


@catalogue.default
def _catalogue(
    *,
    out: Path | None = None,
    from_: Recording = None,
    timeframe: TimeframeName | None = None,
    json: AsJson = False,
) -> int:
    """
    Write a page on all features: formula, source, parameters with their reason, warm-up, who reads them, and a plot.

    Generated from the definition, needs no server, and opens in any browser without a network. Features of your own
    (QT_EXTENSIONS) have a chapter in it, and what QT_INCLUDE_* add is among the model inputs.

    Args:
        out: Folder to write into; by default the folder catalogue of QUANTUM_HOME.
        from_: Recording (Parquet or CSV) whose candles are drawn; by default the lake's, else a made-up market.
        timeframe: Duration of the lake's candles that are drawn; by default QT_TIMEFRAME, else 5m.
        json: Print the result, or the error, as one JSON document and nothing else.
    """
    from feature_store.candle import Timeframe  # noqa: PLC0415 - --help stays quick
    from feature_store.extensions.settings import ViewSettings  # noqa: PLC0415 - as above
    from flows.catalogue.writing import candles_to_show, write_catalogue  # noqa: PLC0415 - as above
    from flows.frames import require_included  # noqa: PLC0415 - as above
    from flows.training.config import TrainingConfig  # noqa: PLC0415 - as above

    settings = FlowSettings.of(timeframe=timeframe)
    shown = candles_to_show(settings.candle_lake(), from_, Timeframe.parse(settings.timeframe))
    view = ViewSettings.of().view()
    require_included(view, settings.candle_lake(), settings.venue, Timeframe.parse(settings.timeframe))
    reads = TrainingConfig(created_at="", code_version="")
    folder = out or settings.home / "catalogue"
    try:
        done = write_catalogue(folder, reads, shown, view=view)
    except OSError as error:
        raise BadInputError(f"Cannot write into {folder} ({error.strerror}); name another folder with --out") from error
    sentence = f"{done.features} features and {done.model_inputs} model inputs: {done.html}"
    print(json_codec.dumps(asdict(done)) if json else sentence)  # noqa: T201 - a command speaks to who typed it
    return OK


@check.default
def _check(path: Path | None = None, /, *, from_: Recording = None, json: AsJson = False) -> int:
    """
    Check features of your own: live equals batch, a prefix gives what the whole gives, oracles agree, models can read.

    Models can read what varies, is not cut off at 20 nearly always, and has no unit (another currency or unit of volume
    changes nothing), unless its declaration names a unit.

    They are computed on made-up markets, whole and with gaps, and on candles of the lake or of a recording: candle by
    candle, in chunks, and with restarts in between. This runs the code in the file.

    Args:
        path: Python file, or folder of them; by default QT_EXTENSIONS.
        from_: Recording (Parquet or CSV) to compute on as well; by default the lake's candles, if there are some.
        json: Print the findings, or the error, as one JSON document and nothing else.
    """
    from feature_store.extensions.checking import check_extensions  # noqa: PLC0415 - --help stays quick
    from feature_store.extensions.loading import load_extensions  # noqa: PLC0415 - as above
    from feature_store.extensions.settings import ViewSettings  # noqa: PLC0415 - as above

    settings = FlowSettings.of()
    chosen = path or ViewSettings.of().extensions
    if chosen is None:
        raise BadInputError("Name a Python file or folder with features, or set QT_EXTENSIONS to one")
    extensions = load_extensions(chosen)
    findings = check_extensions(extensions, _samples(settings, from_))
    print(  # noqa: T201 - see _catalogue
        json_codec.dumps([asdict(one) for one in findings]) if json else _told(findings, extensions.fingerprint())
    )
    return OK if all(one.passed for one in findings) else FAILED


@labels.default
def _labels(
    *,
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
    days: int | None = None,
    policy: Path | None = None,
    half_spread_bps: float = 1.0,
    json: AsJson = False,
) -> int:
    """
    Tell how trades decided at every stored candle would have ended by the exit rules that the worker trades by.

    Stop, target or time, on the tick of the stored filters where there is one; held how long; gross and net of fees,
    slippage, spread and the funding that is stored; beside it the net return over the bare horizon, and how much of a
    label is its own. No model has a part in it: this is what is there to be predicted. Needs no server.

    Args:
        venue: sandbox, binanceusdm, binance or bitfinex; by default QT_VENUE, else sandbox.
        symbols: Unified names separated by commas, or all that are stored; by default QT_SYMBOLS, else all.
        timeframe: Duration of a candle; by default QT_TIMEFRAME, else 5m.
        days: How many days, counted back from the newest stored candle; by default QT_DAYS, else 30.
        policy: TOML file with trading rules, as the worker takes it; by default the built-in ones.
        half_spread_bps: What entering and leaving cost in spread, each, in hundredths of a percent.
        json: Print the result, or the error, as one JSON document and nothing else.
    """
    from feature_store.store import FeatureStore  # noqa: PLC0415 - --help stays quick
    from flows.frames import newest_close_ms, stored_series  # noqa: PLC0415 - as above
    from flows.home_exits import exits_for  # noqa: PLC0415 - as above
    from flows.outcomes import outcomes  # noqa: PLC0415 - as above
    from inference.policy.policy_file import read_policy  # noqa: PLC0415 - as above

    settings, rules = FlowSettings.of(venue=venue, symbols=symbols, timeframe=timeframe, days=days), read_policy(policy)
    exits, lake = exits_for(settings, rules), settings.candle_lake()
    series = stored_series(lake, settings)
    start_ms = newest_close_ms(lake, series) - settings.days * 86_400_000
    store = FeatureStore(settings.features)
    found = outcomes(
        lake, store, series, start_ms=start_ms, policy=rules, half_spread=half_spread_bps / 10_000, exits=exits
    )
    plain = [{name: _number(value) for name, value in asdict(one).items()} for one in found]
    print(json_codec.dumps(plain) if json else _table(found))  # noqa: T201 - see _catalogue
    return OK


def _number(value: object) -> object:
    # JSON has no NaN: what there is none of is null.
    return None if isinstance(value, float) and math.isnan(value) else value


def _cell(value: float, form: str) -> str:
    return f"{'-' if math.isnan(value) else format(value, form):>9}"


def _table(found: list[Outcomes]) -> str:
    width = max(len(one.symbol) for one in found)
    heads = ("side", "trades", "stop", "target", "time", "held", "gross", "net", "horizon", "own")
    lines = [f"{'symbol':{width}}  " + "".join(f"{head:>9}" for head in heads)]
    lines += [
        f"{one.symbol:{width}}  {one.side:>9}{one.trades:>9,}"
        f"{_cell(one.stopped, '.1%')}{_cell(one.reached_target, '.1%')}{_cell(one.timed_out, '.1%')}"
        f"{_cell(one.candles_held, '.1f')}{_cell(one.gross_bps, '.2f')}{_cell(one.net_bps, '.2f')}"
        f"{_cell(one.horizon_net_bps, '.2f')}{_cell(one.uniqueness, '.1%')}"
        for one in found
    ]
    settled = sum(one.funding_settlements for one in found if one.side == "long")
    note = (
        "held: candles; gross, net and horizon: bps; own: the share of a label that no other has. "
        f"Funding: {settled:,} settlements stored."
    )
    return "\n".join([*lines, note])


def _samples(settings: FlowSettings, recording: Path | None) -> list[tuple[Timeframe, CandleBlock]]:
    import numpy as np  # noqa: PLC0415 - --help stays quick

    from feature_store.candle import CandleBlock, Timeframe  # noqa: PLC0415 - as above
    from flows.catalogue.writing import candles_to_show, made_up  # noqa: PLC0415 - as above

    whole = made_up(Timeframe.M5)
    kept = np.delete(np.arange(len(whole)), [*range(300, 303), *range(700, 790)])
    gapped = CandleBlock(whole.open_time_ms[kept], whole.values[kept])
    shown = candles_to_show(settings.candle_lake(), recording, Timeframe.parse(settings.timeframe))
    return [
        (Timeframe.M5, whole),
        (Timeframe.M5, gapped),
        (Timeframe.H1, made_up(Timeframe.H1, 600)),
        (shown.timeframe, shown.block),
    ]


def _told(findings: tuple[Finding, ...], fingerprint: str) -> str:
    width = max(len(one.feature) for one in findings)
    lines = [
        f"{'held' if one.passed else 'FAILED':7} {one.feature:{width}}  {one.check:14}  {one.detail}"
        for one in findings
    ]
    features = dict.fromkeys(one.feature for one in findings)
    failed = [name for name in features if not all(one.passed for one in findings if one.feature == name)]
    verdict = "every check holds" if not failed else f"{len(failed)} of them cannot be used: {', '.join(failed)}"
    counted = f"{len(features)} feature{'s' if len(features) != 1 else ''}"
    return "\n".join([*lines, f"{counted}, fingerprint {fingerprint[:12]}: {verdict}."])
