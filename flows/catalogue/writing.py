"""From candles at hand to the files of the catalogue."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feature_store.candle import CandleBlock, Series, Timeframe, validate
from feature_store.errors import BadInputError
from feature_store.extensions.engine import ExtensionEngine
from feature_store.extensions.view import FeatureView
from feature_store.features.definition import FEATURE_NAMES, FEATURES
from feature_store.features.engine import FeatureEngine
from feature_store.files import replacing
from feature_store.lake import CandleLake
from feature_store.sources.recorded import read_file
from flows.catalogue.content import FAMILY_COLOURS, OTHER_COLOUR, catalogue
from flows.catalogue.markdown import PLOTS, markdown
from flows.catalogue.page import page
from flows.catalogue.pictures import candlesticks, plot
from flows.training.config import TrainingConfig

HTML, MARKDOWN = "features.html", "features.md"
SHOWN = 400
_READ = 1_200
_FAVOURITE = "BTC/"


@dataclass(frozen=True, slots=True)
class Shown:
    """Candles to draw features on, and where they come from."""

    block: CandleBlock
    timeframe: Timeframe
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was written, as `qtctl features catalogue --json` prints it."""

    html: str
    markdown: str
    features: int
    model_inputs: int
    candles: str


def candles_to_show(lake: CandleLake, recording: Path | None, timeframe: Timeframe) -> Shown:
    """
    Return candles of a recording if one is named, else of the lake, else of a market made up here.

    Raises:
        BadInputError: The recording holds no candles.
        CorruptFileError: The recording, or a file of the lake, cannot be read.
    """
    if recording is not None:
        return _recorded(recording)
    stored = [one for one in lake.series() if one.timeframe == timeframe]
    if stored:
        series = min(stored, key=lambda one: (not one.symbol.startswith(_FAVOURITE), one))
        return _shown(series, lake.read(series), "of the lake")
    series = Series("synthetic", "a made-up market", timeframe)
    return _shown(series, made_up(timeframe), "as no candles are stored yet")


def write_catalogue(out: Path, config: TrainingConfig, shown: Shown, *, view: FeatureView | None = None) -> Written:
    """Write page, Markdown and plots into a folder; what a view adds to the 49 is shown beside them."""
    content = catalogue(config, view)
    extensions = None if view is None else view.extensions
    tail = shown.block[-SHOWN:]
    values = FeatureEngine(shown.timeframe).advance(shown.block)[-SHOWN:]
    columns = {name: values[:, column] for column, name in enumerate(FEATURE_NAMES)}
    colours = {one.name: FAMILY_COLOURS[one.family] for one in FEATURES}
    if extensions is not None:
        computed = ExtensionEngine(extensions, shown.timeframe).advance(shown.block)[-SHOWN:]
        for column, one in enumerate(extensions.features):
            columns[one.name] = computed[:, column]
            colours[one.name] = FAMILY_COLOURS.get(one.family, OTHER_COLOUR)
    plots = {name: plot(tail, column, name=name, colour=colours[name]) for name, column in columns.items()}
    html = page(content, plots, market=candlesticks(tail), candles=shown.words)
    _write(out / HTML, html)
    _write(out / MARKDOWN, markdown(content, candles=shown.words))
    for name, picture in plots.items():
        _write(out / PLOTS / f"{name}.svg", picture)
    return Written(
        html=str(out / HTML),
        markdown=str(out / MARKDOWN),
        features=len(columns),
        model_inputs=len(content.inputs),
        candles=shown.words,
    )


def made_up(timeframe: Timeframe, candles: int = _READ) -> CandleBlock:
    """Return a seeded market with quiet and lively stretches, always the same."""
    rng = np.random.default_rng(49)
    heat = np.zeros(candles)
    shocks = rng.standard_normal((3, candles))
    for at in range(1, candles):
        heat[at] = 0.97 * heat[at - 1] + 0.24 * shocks[0, at]
    moves = 0.0016 * np.exp(0.5 * heat) * shocks[1] + 0.0009 * np.sin(np.arange(candles) / 60)
    close = 60_000 * np.exp(np.cumsum(moves))
    opened = np.concatenate([close[:1], close[:-1]])
    wick = np.abs(rng.standard_normal((2, candles))) * 0.0008 * np.exp(0.5 * heat)
    high, low = np.maximum(opened, close) * (1 + wick[0]), np.minimum(opened, close) * (1 - wick[1])
    volume = 120 * np.exp(0.7 * heat + 0.4 * shocks[2])
    times = timeframe.floor_ms(1_767_225_600_000) + timeframe.milliseconds * np.arange(candles, dtype=np.int64)
    return CandleBlock(times, np.column_stack([opened, high, low, close, volume]))


def _recorded(path: Path) -> Shown:
    for series, block in read_file(path):
        if len(block) >= SHOWN:
            return _shown(series, block, f"of {path.name}")
    raise BadInputError(f"{path} holds no series of {SHOWN} candles or more; name another recording")


def _shown(series: Series, block: CandleBlock, where: str) -> Shown:
    kept = validate(block[-_READ:], series.timeframe)
    words = f"{min(len(kept), SHOWN)} candles of {series.symbol}, {series.venue}, {series.timeframe}, {where}"
    return Shown(kept, series.timeframe, words)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
