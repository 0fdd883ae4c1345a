"""Auditors of what training reads: some of it is made again from candles cut off at their decision, and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from feature_store.candle import Series, Timeframe
from feature_store.errors import BadInputError
from feature_store.lake import CandleLake
from feature_store.partitions import Rows
from feature_store.past_lake import PastLake, PromptLake
from feature_store.universe.archive import StoredUniverse, due_weeks
from feature_store.universe.building import chosen_at
from feature_store.universe.facts import Listing
from feature_store.universe.policy import Rules
from flows.frames import Judged, asked_stretch, frames_between, lake_as_of, recent_frames, stored_series
from flows.settings import FlowSettings
from flows.training.config import TrainingConfig
from flows.training.dataset import FrameSet, Inputs, TrainingFrame
from flows.training.tripwires import Trip, stop_on
from flows.universes import Members, members_of, rules_of
from flows.wording import moment

_SERIES = 2
_ROWS_EACH = 4
_MEMBERSHIPS_EACH = 200
_WEEKS = 2

Again = Callable[[CandleLake, Series, int], Inputs | None]
"""Makes the inputs of one candle again from a lake; None where that has no such candle."""


def audited_frames(
    settings: FlowSettings,
    config: TrainingConfig,
    tell: Callable[[str], None] = lambda _: None,
    show: Judged = lambda _: None,
) -> FrameSet:
    """
    Return the frames that a run learns from, once they were looked at.

    Raises:
        BadInputError: Nothing is stored, or nothing of it is good enough to learn from.
        TripwireError: Some of it was made of candles that nobody had.
    """
    frames = recent_frames(settings, config.horizon, tell, show, as_of_ms=config.as_of_ms, learns=config)
    if config.tripwires.audits:
        stop_on(audit_frames(settings, config, frames))
    return frames


def audit_frames(settings: FlowSettings, config: TrainingConfig, frames: FrameSet) -> list[Trip]:
    """
    Make some rows of a run's frames again as whoever decided then would have, and some universes as they were chosen.

    The same code reads a lake that is cut off: what differs was made of candles that nobody had. Universes are
    looked at where they are followed; symbols that a person chose are not, whatever they were chosen by.

    Raises:
        CorruptFileError: A stored file is damaged.
    """
    lake = lake_as_of(settings, config.as_of_ms)
    stored = stored_series(lake, settings)
    start_ms, end_ms = asked_stretch(lake, stored, settings)
    by_symbol = {one.symbol: one for one in stored}
    read = [(by_symbol[frame.symbol], frame) for frame in frames.frames if frame.symbol in by_symbol]

    def again(some: CandleLake, one: Series, open_ms: int) -> Inputs | None:
        step = one.timeframe.milliseconds
        try:
            made = frames_between(
                settings.features, some, [one], start_ms=start_ms, end_ms=open_ms + step, horizon=config.horizon
            )
        except BadInputError:
            return None
        (frame,) = made.frames
        return frame.inputs[-1] if int(frame.open_time_ms[-1]) == open_ms else None

    trips = audit_rows(lake, read[:_SERIES], frames.input_names, again)
    if settings.follows_universe:
        members = members_of(settings)
        trips += audit_memberships(lake, read, members)
        trips += audit_choices(lake, stored, rules_of(settings), (start_ms, end_ms), members.listings)
    return trips


def audit_rows(
    lake: CandleLake, read: Sequence[tuple[Series, TrainingFrame]], input_names: Sequence[str], again: Again
) -> list[Trip]:
    """
    Make some candles' inputs again, from a lake without all that opened later, and from what had arrived by then.

    Rows beside candles that came late or were corrected are looked at first: there as-of joins have something to do.
    """
    later: dict[str, set[str]] = {"resampling": set(), "future_input": set(), "as_of_join": set()}
    where = ""
    for one, frame in read:
        rows = lake.read_rows(one, int(frame.open_time_ms[0]), int(frame.open_time_ms[-1]) + 1)
        for place in _places(frame, rows):
            open_ms = int(frame.open_time_ms[place])
            decided_ms = int(rows.first_known(np.array([open_ms], np.int64))[0])
            told = frame.inputs[place]
            opened = _different(told, again(lake, one, open_ms), input_names)
            # Without later candles, what reads as if nothing came late may still find nothing that had not arrived.
            early = opened - _different(told, again(PromptLake(lake), one, open_ms), input_names) if opened else set()
            for name in opened - early:
                later["resampling" if _is_longer(name) else "future_input"].add(name)
            arrived = _different(told, again(PastLake(lake, decided_ms), one, open_ms), input_names)
            later["as_of_join"] |= early | (arrived - opened)
            if (opened or arrived) and not where:
                where = f"{one.symbol} at {moment(open_ms)}"
    said = {
        "resampling": "read longer candles before these had closed: the bars are stamped at their open",
        "future_input": "read candles that opened later",
        "as_of_join": "read candles or corrections that had not arrived: the join ignores when a row was available",
    }
    return [
        Trip(
            wire=wire,
            value=float(len(names)),
            bound=0.0,
            told=f"{_few(names)} of {where} {said[wire]}",
            remedy="look at what computes or joins it (feature_store); no candidate of it may trade",
        )
        for wire, names in later.items()
        if names
    ]


def _places(frame: TrainingFrame, rows: Rows) -> list[int]:
    """
    Return rows to look at: after candles that came late or were corrected, and some anywhere.

    All are rows that could be learned from: with all inputs, and decided on in time.
    """
    sound = np.isfinite(frame.inputs).all(axis=1)
    whole = np.flatnonzero(sound if frame.late is None else sound & ~frame.late)
    if not len(whole):
        return []
    times = rows.block.open_time_ms
    corrected = times[(rows.revision > 0) | (rows.available_at_ms > np.append(rows.available_at_ms[1:], 1 << 62))]
    beside = np.searchsorted(frame.open_time_ms[whole], np.unique(corrected)[: 1 << 16], side="right")
    beside = np.unique(beside[beside < len(whole)])
    unsettled = whole[beside[np.linspace(0, len(beside) - 1, min(_ROWS_EACH, len(beside))).astype(np.int64)]]
    # Off the hour, where a longer candle is under way.
    anywhere = whole[(np.linspace(0.31, 1, _ROWS_EACH, endpoint=False) * len(whole)).astype(np.int64)]
    return sorted({*unsettled.tolist(), *anywhere.tolist()})


def _different(told: Inputs, made: Inputs | None, names: Sequence[str]) -> set[str]:
    """Return the inputs of which the whole said something else; what it did not tell at all is no look-ahead."""
    if made is None:
        return set(names)
    differs = (told != made) & ~np.isnan(told)
    return {names[column] for column in np.flatnonzero(differs).tolist()}


def _is_longer(name: str) -> bool:
    return name.rsplit("@", 1)[-1] in {str(one) for one in Timeframe}


def _few(names: set[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} other inputs" if len(ordered) > 3 else "")


def audit_memberships(lake: CandleLake, read: Sequence[tuple[Series, TrainingFrame]], members: Members) -> list[Trip]:
    """Look up for some candles that count whether the universe that was known at their decision had the symbol in."""
    wrong = []
    for one, frame in read:
        marks = np.flatnonzero(np.ones(len(frame.close), np.bool_) if frame.eligible is None else frame.eligible)
        if not len(marks):
            continue
        sample = marks[np.unique(np.linspace(0, len(marks) - 1, _MEMBERSHIPS_EACH).astype(np.int64))]
        rows = lake.read_rows(one, int(frame.open_time_ms[0]), int(frame.open_time_ms[-1]) + 1)
        decided = rows.first_known(frame.open_time_ms[sample])
        wrong += [
            f"{one.symbol} at {moment(at)}" for at in decided.tolist() if not _was_in(members.universes, one.symbol, at)
        ]
    if not wrong:
        return []
    return [
        _hindsight(len(wrong), f"{len(wrong)} candles count whose symbol was in no universe known then ({wrong[0]})")
    ]


def _was_in(universes: Sequence[StoredUniverse], symbol: str, at_ms: int) -> bool:
    known = [one for one in universes if one.available_at_ms <= at_ms]
    newest = max(known, key=lambda one: (one.universe.at_ms, one.available_at_ms, one.revision), default=None)
    return newest is not None and symbol in newest.universe.symbols


def audit_choices(
    lake: CandleLake,
    stored: Sequence[Series],
    rules: Rules,
    stretch: tuple[int, int],
    listings: Sequence[Listing] = (),
) -> list[Trip]:
    """Choose the universe of some weeks again, from the whole lake and from what of it was known then."""
    weeks = due_weeks(*stretch)
    for at_ms in weeks[:: max(len(weeks) // _WEEKS, 1)][:_WEEKS]:
        known = [one for one in listings if one.available_at_ms <= at_ms]
        ours = [*chosen_at(lake, stored, [at_ms], rules, listings)]
        theirs = [*chosen_at(PastLake(lake, at_ms), stored, [at_ms], rules, known)]
        if [one.symbols for one in ours] != [one.symbols for one in theirs]:
            told = f"the universe of {moment(at_ms)} is chosen otherwise without the candles that came after it"
            return [_hindsight(1, told)]
    return []


def _hindsight(count: int, told: str) -> Trip:
    return Trip(
        wire="universe",
        value=float(count),
        bound=0.0,
        told=told,
        remedy="make universes anew with 'qtctl universe build', and look at what chooses them",
    )
