"""Recorded candles of real markets: what each member says beside naive rules and straight lines, whatever it is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from msgspec.structs import replace

from feature_store.candle import CandleBlock, Timeframe
from feature_store.errors import BadInputError
from feature_store.features.definition import INDEX, MODEL_INPUT_NAMES, fingerprint
from feature_store.features.engine import FeatureEngine, model_inputs
from feature_store.sources.recorded import read_file
from flows.replay.shadow import score_rows, shadow_candidate
from flows.settings import FlowSettings
from flows.sizes import training_config
from flows.training.baselines import Ridge, baseline_scores
from flows.training.calibrate import shrinking_scale
from flows.training.dataset import Dataset, Floats, FrameSet, Rows, TrainingFrame, thinned
from flows.training.moments import BlockSums, Interval, Sampling, ratio
from flows.training.pipeline import train_candidate
from flows.training.splits import Splits
from flows.training.traded import TradedCandles
from flows.training.tripwires import TripwireError
from inference.models.bundle import load_bundle
from inference.models.market_move import without_market
from infra.prove.proof import Proof, Size
from infra.prove.recorded_markets import FOLDER_VARIABLE
from infra.prove.stage import KEPT_LOGS

if TYPE_CHECKING:
    from flows.training.config import TrainingConfig

_STEP = Timeframe.M5.milliseconds
_DAY_MS = 86_400_000
_BAR = "runs to its end, and states whether skill was shown"
_AGAINST = ("zero", "ridge", "dlinear")


@dataclass(frozen=True, slots=True)
class Extent:
    """How many seeds, each on a stretch of its own, of how many symbols and days, and how long members train."""

    seeds: int
    symbols: int
    days: int
    size: str


EXTENTS = {Size.FULL: Extent(6, 12, 45, "full"), Size.CI: Extent(2, 4, 20, "quick")}


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What everyone said of the locked window of one seed, beside what came, both in spreads of what came."""

    where: str
    rows: Rows
    said: Mapping[str, Floats]
    net_bps: float
    verdict: str


def prove(size: Size) -> Proof:
    """Train on recorded candles with several seeds and write the page; CI has time for two small ones."""
    folder, extent = os.environ.get(FOLDER_VARIABLE), EXTENTS[size]
    if not folder:
        return Proof(name="learning-real", figure=f"{FOLDER_VARIABLE} names no folder", bar=_BAR, holds=False)
    places = stretches(Path(folder), extent)
    if not places:
        said = f"{folder} holds no {extent.days} days of {extent.symbols} symbols in candles of five minutes"
        return Proof(name="learning-real", figure=said, bar=_BAR, holds=False)
    told, stopped = [], []
    for seed in range(extent.seeds):
        path, end_ms = places[seed % len(places)]
        # A file that comes up again is read a stretch earlier.
        end_ms -= seed // len(places) * extent.days * _DAY_MS
        where = f"seed {seed}: {path.name} to {datetime.fromtimestamp(end_ms / 1000, UTC):%Y-%m-%d}"
        try:
            told.append(_trained(frames_until(path, end_ms, extent), _config(extent, seed), where))
        except (TripwireError, BadInputError) as error:
            stopped.append(f"{where}: {error}")
    if not told:
        return Proof(name="learning-real", figure="no seed trained", bar=_BAR, holds=False, details=tuple(stopped))
    found = figures(told)
    low = found["ensemble", "zero"].low
    shown = "skill over naive was shown" if low > 0 else "skill over naive was not shown"
    lines = found["ensemble", "dlinear"]
    over = "over DLinear too" if lines.low > 0 else "not over DLinear"
    page = _write(told, stopped, found, f"{shown}, {over}", extent)
    return Proof(
        name="learning-real",
        figure=(
            f"{len(told)} seeds: {shown} (errors smaller by {found['ensemble', 'zero'].value:.2%}, 95 % "
            f"{low:.2%} to {found['ensemble', 'zero'].high:.2%}), {over} ({lines.value:.2%}, {lines.low:.2%} to "
            f"{lines.high:.2%})"
        ),
        bar=_BAR,
        holds=True,
        details=(*(f"{one.where}: {one.net_bps:+.2f} bps per slot net" for one in told), *stopped, f"page: {page}"),
    )


def stretches(folder: Path, extent: Extent) -> list[tuple[Path, int]]:
    """Return files with enough symbols and days of five-minute candles, each with where its stretch ends."""
    found = []
    for path in sorted(folder.glob("*_5m_*.parquet")):
        ends = [
            int(block.open_time_ms[-1]) + _STEP
            for series, block in _series(path)
            if series.timeframe is Timeframe.M5 and len(block) * _STEP >= extent.days * _DAY_MS
        ]
        if len(ends) >= extent.symbols:
            found.append((path, sorted(ends)[-extent.symbols]))
    return found


def _series(path: Path) -> list[tuple[object, CandleBlock]]:
    try:
        return list(read_file(path))
    except BadInputError:
        return []


def frames_until(path: Path, end_ms: int, extent: Extent) -> FrameSet:
    """Return the stretch before a moment of as many symbols as are whole there."""
    start_ms, frames = end_ms - extent.days * _DAY_MS, []
    for series, block in _series(path):
        part = block.open_time_ms
        inside = (part >= start_ms) & (part < end_ms)
        if inside.sum() < 0.97 * extent.days * _DAY_MS / _STEP or len(frames) == extent.symbols:
            continue
        some = CandleBlock(part[inside], block.values[inside])
        features = FeatureEngine(Timeframe.M5).advance(some)
        moves, close = features[:, INDEX["log_return_1"]], some.close
        traded = TradedCandles(block=some, atr=features[:, INDEX["atr_14"]])
        frames.append(
            TrainingFrame(series.symbol, some.open_time_ms, model_inputs(features), moves, close, traded=traded)
        )
    if len(frames) < extent.symbols:
        raise BadInputError(f"only {len(frames)} of {extent.symbols} symbols are whole there")
    return FrameSet(tuple(frames), MODEL_INPUT_NAMES, fingerprint(), _STEP)


def _config(extent: Extent, seed: int) -> TrainingConfig:
    config = training_config(FlowSettings.of(size=extent.size), datetime(2026, 1, 1, tzinfo=UTC))
    return replace(config, seed=seed + 1)


def _trained(frames: FrameSet, config: TrainingConfig, where: str) -> Told:
    """Train as flow `train` does, and let everyone speak of the locked window."""
    with tempfile.TemporaryDirectory() as folder:
        report = train_candidate(frames, config, Path(folder), lambda _step, _share: None)
        shadow = shadow_candidate(Path(folder), frames, report.windows.shadow, config)
        bundle = load_bundle(Path(folder), expected_fingerprint=frames.feature_fingerprint)
    dataset, windows = Dataset(frames, horizon=config.horizon, window=config.window), report.windows
    splits = Splits(
        fit=windows.fit, validation=windows.validation, calibration=windows.calibration, shadow=windows.shadow,
        horizon_ms=config.horizon * _STEP,
    )  # fmt: skip
    rows, validation = dataset.rows(splits.shadow, splits), dataset.rows(splits.validation, splits)
    ours = score_rows(bundle, dataset, rows)
    learned = thinned(dataset.learned_rows(splits), 3, _STEP)
    ridge, line = Ridge.fit(dataset, learned, config), _linear(dataset, learned, config)

    def naive(some: Rows) -> dict[str, Floats]:
        return {"dlinear": line(some)} | baseline_scores(dataset, ridge, some)

    share = config.market_share_removed
    scales = {name: shrinking_scale(one, validation, share) for name, one in naive(validation).items()}
    said = {name: one * scales[name] for name, one in naive(rows).items()}
    said |= ours.members | {"ensemble": ours.expected}
    spread = float(rows.label.std())
    net = shadow.metrics.get("shadow/ensemble_minus_flat/net_per_slot_bps", 0.0)
    return Told(
        where,
        Rows(rows.index, rows.series, rows.open_time_ms, rows.label / spread),
        {name: one / spread for name, one in said.items()},
        net,
        f"{len(rows):,} rows, {shadow.metrics['shadow/independent_outcomes']:.0f} independent outcomes",
    )


def _linear(dataset: Dataset, rows: Rows, config: TrainingConfig):  # noqa: ANN202 - a closure of this page
    """Fit a straight line through the window of returns: all that DLinear's two lines can say (Zeng et al., 2023)."""
    x = dataset.returns(rows).astype(np.float64)
    y = without_market(rows.label, rows.open_time_ms, config.market_share_removed)
    spread = float(x.std())
    z = x / spread
    weights = np.linalg.solve(z.T @ z + 0.01 * len(z) * np.eye(z.shape[1]), z.T @ (y - y.mean()))
    return lambda asked: np.asarray(dataset.returns(asked).astype(np.float64) / spread @ weights)


def figures(told: list[Told]) -> dict[tuple[str, str], Interval]:
    """
    Return how much smaller everyone's squared errors are than a reference's, and everyone's correlation.

    Keys are (who, reference) and (who, "ic"). Blocks of two hours of all seeds are drawn together, paired: each seed
    has a stretch of its own, so that its blocks are others.
    """
    sampling = Sampling(block_ms=24 * _STEP, samples=2_000, seed=1)
    names = [name for name in told[0].said if all(name in one.said for one in told)]
    found = {}
    for name in names:
        for reference in _AGAINST:
            if reference in names and reference != name:
                sums = _joined(
                    told,
                    lambda one, a=name, b=reference: {
                        "ours": (one.rows.label - one.said[a]) ** 2, "theirs": (one.rows.label - one.said[b]) ** 2
                    },
                )  # fmt: skip
                found[name, reference] = sums.interval(lambda s: 1 - ratio(s["ours"], s["theirs"]), sampling)
        sums = _joined(
            told,
            lambda one, a=name: {
                "py": one.said[a] * one.rows.label, "pp": one.said[a] ** 2, "yy": one.rows.label ** 2
            },
        )  # fmt: skip
        found[name, "ic"] = sums.interval(lambda s: ratio(s["py"], np.sqrt(s["pp"] * s["yy"])), sampling)
    return found


def _joined(told: list[Told], columns) -> BlockSums:  # noqa: ANN001 - a closure of this page
    parts = [BlockSums.of(one.rows.open_time_ms, 24 * _STEP, columns(one)) for one in told]
    return BlockSums(parts[0].names, np.concatenate([part.sums for part in parts]))


def _write(
    told: list[Told], stopped: list[str], found: Mapping[tuple[str, str], Interval], said: str, extent: Extent
) -> Path:
    folder = KEPT_LOGS / "learning-real"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "errors.png").write_bytes(_picture(found))
    names = dict.fromkeys(name for name, _ in found)
    header = "| who | correlation | " + " | ".join(f"errors less than {one}'s by" for one in _AGAINST) + " |"
    rows = [
        "| " + " | ".join([name, *(_cell(found.get((name, one))) for one in ("ic", *_AGAINST))]) + " |"
        for name in names
    ]
    seeds = [f"- {one.where}: {one.verdict}; the ensemble's net {one.net_bps:+.2f} bps per slot" for one in told]
    text = "\n".join(
        [
            "# What was learned from real candles", "", f"**{said[0].upper()}{said[1:]}.**", "",
            (f"{len(told)} seeds, each on a stretch of its own: {extent.days} days of {extent.symbols} symbols, candles"
            f" of five minutes, size `{extent.size}`. Everyone is judged on the locked window, which none was fitted "
            "on; figures are with 95 % intervals of a block bootstrap (blocks of two hours, all symbols together, "
            "paired). `dlinear` is a straight line through the last 64 returns, `ridge` through all inputs, `zero` "
            "expects nothing."), "", "![errors](errors.png)", "", header, "|" + "---|" * (len(_AGAINST) + 2), *rows, "",
            *seeds, *(f"- {one}" for one in stopped), "",
        ]
    )  # fmt: skip
    (folder / "page.md").write_text(text)
    return folder / "page.md"


def _cell(one: Interval | None) -> str:
    if one is None or np.isnan(one.value):
        return "-"
    return f"{one.value:+.4f} ({one.low:+.4f} to {one.high:+.4f})"


def _picture(found: Mapping[tuple[str, str], Interval]) -> bytes:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = [name for name, against in found if against == "zero"]
    for place, name in enumerate(names):
        one = found[name, "zero"]
        axes.plot([one.low, one.high], [place, place], color="#0072B2")
        axes.plot([one.value], [place], "o", color="#0072B2")
    axes.axvline(0, color="#888888", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="squared errors smaller than those of expecting nothing, by", title="Real candles, locked windows")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
