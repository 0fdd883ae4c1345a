"""What the lake holds of each series and what is wrong with it: as rows, as a map of signs, and as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from feature_store.absences import Cause, Span
from feature_store.candle import CandleBlock, Series
from feature_store.standard import SeriesQuality, present_shares
from flows.wording import markdown_table, moment

_MAP_PARTS = 24
_SHADES = ((1.0, "█"), (0.99, "▓"), (0.8, "▒"), (1e-9, "░"))
_PICTURE_PARTS = 180
_MOST_ROWS = 300
# From nothing to everything; colours that stay apart for most colour-blind readers, and in grey.
_CLASSES = (
    ("no candle", "#440154"),
    ("fewer than 80 %", "#31688e"),
    ("from 80 %", "#35b779"),
    ("from 99 %", "#b5de2b"),
    ("absent in an outage of the venue", "#bbbbbb"),
    ("all candles", "#fde725"),
)
_NONE, _FEW, _MOST, _NEARLY_ALL, _OUTAGE, _ALL = range(len(_CLASSES))


def quality_rows(found: Mapping[Series, SeriesQuality]) -> list[dict[str, Any]]:
    """Return a row for each series: what is absent, why, what is suspect, and whether training uses it."""
    return [
        {
            "symbol": one.symbol,
            "candles": quality.found,
            "expected": quality.expected,
            "absent in outages": quality.outage,
            "no trade or unknown": quality.unexplained,
            "not covered": quality.uncovered.before + quality.uncovered.after,
            "suspect prices": len(quality.suspects),
            "verdict": "; ".join(quality.faults) or "sound",
            "remarks": "; ".join(quality.remarks) or "-",
        }
        for one, quality in found.items()
    ]


def heat_map(blocks: Mapping[Series, CandleBlock], span: Span) -> str:
    """Draw as a markdown table how much of each series is stored in each part of a span."""
    rows = [
        (one.symbol, "".join(_shade(share) for share in present_shares(one, block, span, _MAP_PARTS)))
        for one, block in blocks.items()
    ]
    hours = (span.end_ms - span.start_ms) / _MAP_PARTS / 3_600_000
    legend = f"A sign stands for {hours:.1f} h: █ all candles, ▓ from 99 %, ▒ from 80 %, ░ fewer, · none."
    return f"{legend}\n\n{markdown_table(('symbol', 'oldest to newest'), rows)}"


def heat_picture(found: Mapping[Series, SeriesQuality], blocks: Mapping[Series, CandleBlock], span: Span) -> bytes:
    """
    Draw the same as a PNG picture, with outages told apart and suspect prices marked.

    Of more series than fit, those of which the least is stored are drawn.
    """
    length = span.end_ms - span.start_ms
    parts = min([_PICTURE_PARTS, *(max(length // one.timeframe.milliseconds, 1) for one in found)])
    classes = {one: part_classes(found[one], block, span, parts) for one, block in blocks.items()}
    least_first = sorted(classes, key=lambda one: (float(classes[one].mean()), one))
    shown = sorted(least_first[:_MOST_ROWS])
    figure = Figure(figsize=(11, 1.6 + 0.16 * max(len(shown), 1)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = ListedColormap([colour for _, colour in _CLASSES])
    axes.imshow(
        np.stack([classes[one] for one in shown]) if shown else np.zeros((1, parts), np.int64),
        aspect="auto",
        interpolation="nearest",
        cmap=colours,
        norm=BoundaryNorm(np.arange(len(_CLASSES) + 1) - 0.5, len(_CLASSES)),
    )
    for row, one in enumerate(shown):
        at = np.array([tick.open_time_ms for tick in found[one].suspects], np.float64)
        place = (at - span.start_ms) / length * parts - 0.5
        axes.plot(place, np.full(len(at), row), "x", color="#d55e00", markersize=4)
    axes.set_yticks(range(len(shown)), [one.symbol for one in shown], fontsize=6)
    marks = np.linspace(0, parts, 7)
    moments = [moment(round(span.start_ms + mark * length / parts)) for mark in marks]
    axes.set_xticks(marks - 0.5, moments, fontsize=7)
    left_out = f", the {len(shown)} of {len(classes)} series with the least" if len(shown) < len(classes) else ""
    axes.set_title(f"Which candles are stored{left_out}; crosses are suspect prices", fontsize=9)
    figure.legend(
        handles=[Patch(color=colour, label=label) for label, colour in _CLASSES],
        loc="outside lower center",
        ncols=len(_CLASSES),
        fontsize=7,
    )
    picture = io.BytesIO()
    figure.savefig(picture, format="png")

    return picture.getvalue()


def part_classes(quality: SeriesQuality, block: CandleBlock, span: Span, parts: int) -> npt.NDArray[np.int64]:
    """Return for each of equal parts of a span how much is there, as a place in the legend."""
    edges = np.linspace(span.start_ms, span.end_ms, parts + 1)
    expected = np.diff(np.ceil(edges / quality.series.timeframe.milliseconds))
    present = np.diff(np.searchsorted(block.open_time_ms, edges))
    outage = np.diff(np.searchsorted(_outage_times(quality), edges))
    share = present / np.maximum(expected, 1)
    kinds = [present >= expected, present + outage >= expected, share >= 0.99, share >= 0.8, present > 0]
    return np.select(kinds, [_ALL, _OUTAGE, _NEARLY_ALL, _MOST, _FEW], _NONE)


def _outage_times(quality: SeriesQuality) -> npt.NDArray[np.int64]:
    runs = [
        np.arange(one.start_ms, one.end_ms, quality.series.timeframe.milliseconds)
        for one in quality.absent
        if one.cause is Cause.OUTAGE
    ]
    return np.concatenate([np.empty(0, np.int64), *runs])


def _shade(share: float) -> str:
    return next((sign for least, sign in _SHADES if share >= least), "·")
