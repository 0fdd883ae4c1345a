"""Plots of features under the price they were computed from, as SVG that takes its colours from the page."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape

import numpy as np
import numpy.typing as npt

from feature_store.candle import CLOSE, HIGH, LOW, OPEN, CandleBlock

Floats = npt.NDArray[np.float64]

_WIDTH, _LEFT, _RIGHT = 720, 66, 8
_PRICE, _BAND, _PLOT, _FOOT = (10, 74), 84, (92, 206), 226
_UP, _DOWN = "#2a9d6a", "#c8504b"
_OVERLAYS_ABOVE = 0.5
"""Share of values within the price's range above which a feature is drawn on the price's own scale."""


def plot(block: CandleBlock, values: Floats, *, name: str, colour: str) -> str:
    """
    Return one feature over candles: the close above, the feature below, on one time axis.

    A feature that lives among prices is drawn on the scale of the price, with the price behind it.
    """
    lives_among_prices = _is_price_like(block, values)
    parts = [_open(_FOOT, f"{name} on {len(block)} candles")]
    low, high = float(block.close.min()), float(block.close.max())
    parts += [_line(block.close, (low, high), _PRICE, "currentColor", 1.0, 0.55), _labels((low, high), _PRICE)]
    finite = values[np.isfinite(values)]
    if len(finite):
        span = (float(finite.min()), float(finite.max()))
        if lives_among_prices:
            span = (min(span[0], low), max(span[1], high))
            parts.append(_line(block.close, span, _PLOT, "currentColor", 0.8, 0.3))
        elif span[0] < 0 < span[1]:
            zero = _height(np.zeros(1), span, _PLOT)[0]
            parts.append(f'<path class="zero" d="M{_LEFT} {zero:.1f}H{_WIDTH - _RIGHT}"/>')
        parts += [_line(values, span, _PLOT, colour, 1.6, 1.0), _labels(span, _PLOT)]
    else:
        parts.append(f'<text x="{_LEFT + 8}" y="{_PLOT[0] + 30}">still warming up on these candles</text>')
    parts += [_times(block), "</svg>"]
    return "".join(parts)


def candlesticks(block: CandleBlock) -> str:
    """Return the candles themselves, the newest that fit."""
    shown = block[-120:]
    if len(shown) == 0:
        return ""
    box = (12, 206)
    span = (float(shown.values[:, LOW].min()), float(shown.values[:, HIGH].max()))
    middle = _places(len(shown))
    wide = max((_WIDTH - _LEFT - _RIGHT) / len(shown) * 0.62, 1.0)
    parts = [_open(_FOOT, f"the last {len(shown)} candles")]
    rows = {key: _height(shown.values[:, key], span, box) for key in (OPEN, HIGH, LOW, CLOSE)}
    for at, x in enumerate(middle.tolist()):
        opened, closed = float(rows[OPEN][at]), float(rows[CLOSE][at])
        colour = _UP if shown.values[at, CLOSE] >= shown.values[at, OPEN] else _DOWN
        top, tall = min(opened, closed), max(abs(opened - closed), 0.8)
        parts.append(
            f'<path stroke="{colour}" d="M{x:.1f} {rows[HIGH][at]:.1f}V{rows[LOW][at]:.1f}"/>'
            f'<rect fill="{colour}" x="{x - wide / 2:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{tall:.1f}"/>'
        )
    parts += [_labels(span, box), _times(shown), "</svg>"]
    return "".join(parts)


def _is_price_like(block: CandleBlock, values: Floats) -> bool:
    finite = values[np.isfinite(values)]
    low, high = block.values[:, LOW].min(), block.values[:, HIGH].max()
    return len(finite) > 0 and bool(((finite >= low) & (finite <= high)).mean() > _OVERLAYS_ABOVE and low > 0)


def _open(height: int, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'font-family="ui-sans-serif,system-ui,sans-serif" font-size="11" fill="currentColor" color="#444">'
        f"<title>{escape(title)}</title>"
    )


def _places(count: int) -> Floats:
    half = (_WIDTH - _LEFT - _RIGHT) / count / 2
    return np.linspace(_LEFT + half, _WIDTH - _RIGHT - half, count)


def _height(values: Floats, span: tuple[float, float], box: tuple[int, int]) -> Floats:
    low, high = span
    share = np.full(len(values), 0.5) if high == low else (values - low) / (high - low)
    return np.asarray(box[1] - share * (box[1] - box[0]))


def _line(
    values: Floats, span: tuple[float, float], box: tuple[int, int], colour: str, width: float, opacity: float
) -> str:
    x, y, known = _places(len(values)), _height(values, span, box), np.isfinite(values)
    steps, pen_down = [], False
    for at in range(len(values)):
        if known[at]:
            steps.append(f"{'L' if pen_down else 'M'}{x[at]:.1f} {y[at]:.1f}")
        pen_down = bool(known[at])
    # A single value between two unknown ones has no length; a round cap shows it nevertheless.
    return (
        f'<path fill="none" stroke="{colour}" stroke-width="{width}" stroke-opacity="{opacity}" '
        f'stroke-linejoin="round" stroke-linecap="round" d="{"".join(steps)}"/>'
    )


def _labels(span: tuple[float, float], box: tuple[int, int]) -> str:
    low, high = span
    parts = []
    for value in dict.fromkeys((high, (low + high) / 2, low)):
        y = _height(np.array([value]), span, box)[0]
        parts.append(
            f'<path stroke="currentColor" stroke-opacity="0.14" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value, high - low)}</text>'
        )
    return "".join(parts)


def _times(block: CandleBlock) -> str:
    x, parts = _places(len(block)), []
    for at in np.unique(np.linspace(len(block) * 0.08, len(block) * 0.92 - 1, 5).astype(int)).tolist():
        moment = datetime.fromtimestamp(int(block.open_time_ms[at]) / 1000, UTC)
        parts.append(f'<text x="{x[at]:.1f}" y="{_FOOT - 6}" text-anchor="middle">{moment:%d %b %H:%M}</text>')
    return "".join(parts)


def number(value: float, spread: float) -> str:
    """Write a number with as many digits as tell it apart from its neighbours on an axis."""
    if value != 0 and (abs(value) >= 1e6 or abs(value) < 1e-4):
        return f"{value:.2e}"
    digits = 2 if spread <= 0 else int(np.clip(2 - np.floor(np.log10(spread)), 0, 8))
    return f"{value:,.{digits}f}"
