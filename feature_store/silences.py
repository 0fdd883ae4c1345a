"""Gaps that the venue was asked about again: when it was asked, when it is believed, and what to ask next."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from feature_store.absences import Span, joined

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BELIEVED_AFTER = 3
"""So many answers without a candle, and a gap is taken for the venue's own: it is not asked for again."""
ASKED_APART_MS = 3_600_000
"""Venues fill gaps after hours, not seconds: two answers closer than this count as one."""


@dataclass(frozen=True, slots=True, order=True)
class Silence:
    """A stretch of which the venue had no candle each time it was asked; the times are the venue's."""

    start_ms: int
    end_ms: int
    asked_at_ms: tuple[int, ...]

    @property
    def is_believed(self) -> bool:
        """Whether the venue was asked often enough."""
        return len(self.asked_at_ms) >= BELIEVED_AFTER


def to_ask(gaps: Sequence[Span], silences: Sequence[Silence], now_ms: int) -> tuple[Span, ...]:
    """Return the parts of gaps that the venue should be asked for now: it is not believed on them yet."""
    return joined(
        [
            Span(part.start_ms, part.end_ms)
            for part in _parts(gaps, silences)
            if not part.is_believed and _is_long_ago(part, now_ms)
        ]
    )


def after_asking(
    gaps: Sequence[Span], silences: Sequence[Silence], asked: Sequence[Span], now_ms: int
) -> tuple[Silence, ...]:
    """
    Return what is known of the gaps that are left once the venue was asked for some stretches of time.

    What is no gap any more is forgotten, and what was never asked for is not a silence.
    """
    result: list[Silence] = []
    for part in _parts(gaps, silences):
        for piece in _cut(part, asked, now_ms):
            if not piece.asked_at_ms:
                continue
            if result and (result[-1].end_ms, result[-1].asked_at_ms) == (piece.start_ms, piece.asked_at_ms):
                piece = Silence(result.pop().start_ms, piece.end_ms, piece.asked_at_ms)  # noqa: PLW2901 - grown
            result.append(piece)
    return tuple(result)


def together(spans: Sequence[Span], longest_ms: int) -> tuple[Span, ...]:
    """Join stretches that lie near each other, so that one request asks for several; none grows beyond a length."""
    result: list[Span] = []
    for span in joined(spans):
        if result and span.end_ms - result[-1].start_ms <= longest_ms:
            result[-1] = Span(result[-1].start_ms, span.end_ms)
        else:
            result.append(span)
    return tuple(result)


def shortened(silences: Sequence[Silence]) -> tuple[Silence, ...]:
    """Make those that are believed and touch one, with the newest answers: lasting silence does not fill the note."""
    result: list[Silence] = []
    for one in silences:
        last = result[-1] if result else None
        if last is not None and last.is_believed and one.is_believed and last.end_ms == one.start_ms:
            result[-1] = Silence(last.start_ms, one.end_ms, max(last.asked_at_ms, one.asked_at_ms))
        else:
            result.append(one)
    return tuple(result)


def _is_long_ago(part: Silence, now_ms: int) -> bool:
    return not part.asked_at_ms or part.asked_at_ms[-1] + ASKED_APART_MS <= now_ms


def _parts(gaps: Sequence[Span], silences: Sequence[Silence]) -> Iterable[Silence]:
    """Cut gaps where what is known of them changes; what nothing is known of was never asked for."""
    known = sorted(silences)
    ends = [one.end_ms for one in known]
    for gap in joined(gaps):
        at = gap.start_ms
        for one in known[bisect_right(ends, at) :]:
            if one.start_ms >= gap.end_ms:
                break
            if at < one.start_ms:
                yield Silence(at, one.start_ms, ())
            end = min(one.end_ms, gap.end_ms)
            yield Silence(max(at, one.start_ms), end, one.asked_at_ms)
            at = end
        if at < gap.end_ms:
            yield Silence(at, gap.end_ms, ())


def _cut(part: Silence, asked: Sequence[Span], now_ms: int) -> Iterable[Silence]:
    """Cut a part at the ends of what was asked for, and note the asking where it was."""
    when = part.asked_at_ms
    # Asked twice within a short time, the venue says nothing new.
    counted = (*when, now_ms) if _is_long_ago(part, now_ms) else when
    at = part.start_ms
    for span in joined(asked):
        begin, end = max(at, span.start_ms), min(part.end_ms, span.end_ms)
        if begin >= end:
            continue
        if at < begin:
            yield Silence(at, begin, when)
        yield Silence(begin, end, counted)
        at = end
    if at < part.end_ms:
        yield Silence(at, part.end_ms, when)
