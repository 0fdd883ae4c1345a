"""What decisions read against what the lake says now: which feature of which candle differs, and from what cause."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from feature_store.candle import CandleBlock, Series
from feature_store.features import native
from feature_store.features.definition import FEATURE_NAMES, fingerprint
from feature_store.features.digests import digested
from feature_store.features.engine import FeatureEngine, model_inputs
from feature_store.partitions import Rows

if TYPE_CHECKING:
    import numpy.typing as npt

    from feature_store.lake import CandleLake
    from feature_store.store import FeatureStore

    Times = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]
    Table = npt.NDArray[np.void]

Gaps = tuple[tuple[int, int], ...]
"""Stretches of open times, from the first one that is absent to the first one that is there again."""

INPUTS = "model inputs"
"""Stands for all that models read of a row, beside the names of the features."""
# So many moments at which candles were corrected are tried before a difference stays unexplained.
_MOMENTS = 64
# So many gaps are left out one after the other, beginning with the newest, before all are at once.
_GAPS = 8


class Cause(StrEnum):
    """Why what was read differs from what the lake's candles give."""

    NOT_YET = "not yet in the lake"
    MISSING = "missing in the lake"
    CORRECTED = "corrected after use"
    LATE = "included symbol late"
    OTHER_START = "began at another candle"
    GAP = "gap in what the worker saw"
    FINGERPRINT = "another feature set"
    CODE = "other code"
    UNEXPLAINED = "unexplained"

    @property
    def explains(self) -> bool:
        """Whether it excuses a difference; other code does not: features of one fingerprint are the same in all."""
        return self not in (Cause.CODE, Cause.UNEXPLAINED)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AddedRow:
    """What a decision read of one candle beside the inputs made of the 49, and what had arrived of others by then."""

    fingerprint: str
    names: tuple[str, ...]
    values: npt.NDArray[np.float32]
    peers: tuple[str, ...]
    facts: Table


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Used:
    """Rows of one series that decisions read, in the order they were read."""

    decided_ms: Times
    facts: Table
    digests: Table
    fingerprints: tuple[str, ...]
    codes: tuple[str, ...]
    added: tuple[AddedRow | None, ...] = ()
    earlier: Table | None = None
    """Facts of rows that were read before these, as far as they tell of gaps or of another start."""

    def __len__(self) -> int:
        return len(self.facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Features of one candle that were other than the lake says now, for one cause."""

    series: Series
    open_time_ms: int
    decided_ms: int
    cause: Cause
    features: tuple[str, ...]
    detail: str


@dataclass(frozen=True, slots=True)
class SkewReport:
    """What an audit compared, and what differed."""

    rows: int
    series: int
    differences: tuple[Difference, ...] = field(default=())

    @property
    def unexplained(self) -> tuple[Difference, ...]:
        """The differences that nothing excuses, those put down to other code among them."""
        return tuple(one for one in self.differences if not one.cause.explains)


def audit(lake: CandleLake, series: Series, used: Used, store: FeatureStore | None = None) -> tuple[Difference, ...]:
    """
    Recompute from the lake what decisions read of one series, and name the cause of each difference.

    A cause is found by bringing it about: features of the candles as they were known earlier, from the candle at which
    the worker began, or without those that it did not see, give again what was read. What nothing of this gives again
    is unexplained, however many candles either side lacks: a count is told, and excuses nothing. So is a candle that
    the worker saw with other prices than were ever stored. Where other code computed it, that is named instead.
    Where retention has removed the candles at which the worker began, the features in `store` say what they gave.
    Not compared is what cannot be: rows of another feature set, and of a candle that the lake does not hold.

    Raises:
        CorruptFileError: A partition of the lake is damaged.
    """
    end = int(used.facts["open_time_ms"].max(initial=0)) + series.timeframe.milliseconds
    rows = lake.read_rows(series, None, end)
    first = rows.block.first_open_time_ms
    kept = None
    if store is not None and first is not None and (used.facts["first_open_time_ms"] < first).any():
        kept = store.read(series)
    return tuple(_Audit(series, rows, used, kept).differences())


class _Audit:
    """The audit of one series; what is recomputed is kept, since many rows ask for the same."""

    def __init__(self, series: Series, rows: Rows, used: Used, kept: tuple[Times, Floats] | None) -> None:
        self._series, self._rows, self._used = series, rows, used
        self._latest = rows.latest().block
        self._computed: dict[tuple[int | None, int | None, Gaps], tuple[Times, Table]] = {}
        self._corrected_ms = np.unique(rows.available_at_ms[rows.revision > 0])
        self._kept = None if kept is None else self._digested(*kept)
        facts = used.facts if used.earlier is None else np.concatenate([used.earlier, used.facts])
        self._step = series.timeframe.milliseconds
        self._gaps = gaps_by_row(facts, self._step)[len(facts) - len(used) :]

    def differences(self) -> Iterator[Difference]:
        ours = fingerprint()
        for at in range(len(self._used)):
            if self._used.fingerprints[at] != ours:
                detail = f"it was read with {self._used.fingerprints[at][:12]}, this program computes {ours[:12]}"
                yield self._difference(at, Cause.FINGERPRINT, FEATURE_NAMES, detail)
                continue
            now = self._row(at, None, None)
            if now is None:
                yield self._difference(at, *self._why_absent(at))
                continue
            different = _different(self._used.digests[at], now)
            if different and not self._agrees_with_kept(at):
                yield from self._explained(at, different)

    def _why_absent(self, at: int) -> tuple[Cause, tuple[str, ...], str]:
        last = self._latest.last_open_time_ms
        if last is not None and last < self._used.facts["open_time_ms"][at]:
            return Cause.NOT_YET, FEATURE_NAMES, f"the lake ends at {moment_of(last)}; ingest, then audit again"
        return Cause.MISSING, FEATURE_NAMES, "the candle itself is not stored"

    def _explained(self, at: int, different: set[str]) -> Iterator[Difference]:
        """Yield what each cause explains; what is left over at the end is explained by none."""
        left = set(different)
        for cause, detail, recomputed in self._attempts(at):
            row = recomputed()
            if row is None:
                continue
            still = _different(self._used.digests[at], row)
            found = left - still
            # Sixteen bits agree by chance now and then, a whole row does not: a part is believed where it is large.
            if found and (not still or len(found) > len(still)):
                yield self._difference(at, cause, _ordered(found), detail)
                left -= found
            if not left:
                return
        cause, detail = self._unexplained(at, left)
        yield self._difference(at, cause, _ordered(left), detail)

    def _attempts(self, at: int) -> Iterator[tuple[Cause, str, Callable[[], Table | None]]]:
        first = int(self._used.facts["first_open_time_ms"][at])
        decided = int(self._used.decided_ms[at])
        gaps = self._gaps[at]
        begun = f"the worker's features begin at {moment_of(first)}"
        yield Cause.OTHER_START, begun, lambda: self._row(at, first, None)
        for moment in self._earlier_knowledge(decided):
            known = f"before the correction of {moment_of(moment)}, it was the same"
            for start in (None, first):
                yield Cause.CORRECTED, known, partial(self._row, at, start, moment - 1)
        for newest in tails(gaps):
            missed = f"without {_candles_in(newest, self._step)} that the worker did not see, it is the same"
            yield Cause.GAP, missed, partial(self._row, at, first, None, newest)
        for moment in self._earlier_knowledge(decided) if gaps else ():
            known = (
                f"before the correction of {moment_of(moment)}, and without what the worker did not see, it is the same"
            )
            yield Cause.GAP, known, partial(self._row, at, first, moment - 1, gaps)

    def _earlier_knowledge(self, decided: int) -> list[int]:
        """
        Return the corrections before which a worker may have read, the likeliest first.

        That is the first one after the decision; then all others, since a state may be older than its decision.
        """
        after = int(np.searchsorted(self._corrected_ms, decided, side="right"))
        newest_first = self._corrected_ms[::-1][:_MOMENTS].tolist()
        likely = self._corrected_ms[after : after + 1].tolist()
        return [*likely, *(one for one in newest_first if one not in likely)]

    def _agrees_with_kept(self, at: int) -> bool:
        """Tell whether a row is what was materialized before retention removed the candles that it began with."""
        facts = self._used.facts[at]
        if self._kept is None or facts["first_open_time_ms"] >= (self._latest.first_open_time_ms or 0):
            return False
        row = _row_at(self._kept, int(facts["open_time_ms"]))
        return row is not None and not _different(self._used.digests[at], row)

    def _unexplained(self, at: int, left: set[str]) -> tuple[Cause, str]:
        """Say what is known of a difference that no recomputation brings about; none of it excuses it."""
        facts = self._used.facts[at]
        first, last = int(facts["first_open_time_ms"]), int(facts["open_time_ms"])
        times = self._latest.open_time_ms
        stored = int(np.searchsorted(times, last, side="right") - np.searchsorted(times, first))
        seen = int(facts["candles"])
        raw = [name for name in FEATURE_NAMES[:5] if name in left]
        told = [f"the worker saw another candle than was ever stored ({', '.join(raw)})"] if raw else []
        if stored != seen:
            told.append(f"since {moment_of(first)} the worker saw {seen} candles, the lake holds {stored}")
            told += ["ingest with --repair, then audit again"] if stored < seen else []
        return uncaused(self._used.codes[at], told or ["the same candles give other features"])

    def _row(self, at: int, first: int | None, moment: int | None, gaps: Gaps = ()) -> Table | None:
        """Return the digests of one candle, recomputed from candles since `first`, as known then, without `gaps`."""
        key = (first, moment, gaps)
        if key not in self._computed:
            self._computed[key] = self._compute(*key)
        return _row_at(self._computed[key], int(self._used.facts["open_time_ms"][at]))

    def _compute(self, first: int | None, moment: int | None, gaps: Gaps) -> tuple[Times, Table]:
        block = self._latest if moment is None else known_at(self._rows, moment)
        block = without(block if first is None else block.since(first), gaps)
        return self._digested(block.open_time_ms, FeatureEngine(self._series.timeframe).advance(block))

    def _digested(self, times: Times, features: Floats) -> tuple[Times, Table]:
        used = np.isin(times, self._used.facts["open_time_ms"])
        chosen = np.ascontiguousarray(features[used])
        return times[used], digested(chosen, model_inputs(chosen))

    def _difference(self, at: int, cause: Cause, features: Iterable[str], detail: str) -> Difference:
        return Difference(
            series=self._series,
            open_time_ms=int(self._used.facts["open_time_ms"][at]),
            decided_ms=int(self._used.decided_ms[at]),
            cause=cause,
            features=tuple(features),
            detail=detail,
        )


def _different(used: Table, now: Table) -> set[str]:
    if used["row"] == now["row"] and used["inputs"] == now["inputs"]:
        return set()
    found = {FEATURE_NAMES[column] for column in np.flatnonzero(used["features"] != now["features"]).tolist()}
    if used["inputs"] != now["inputs"]:
        found.add(INPUTS)
    # One chance in 65,536: the row differs in a feature whose short digest is the same.
    return found or set(FEATURE_NAMES)


def _ordered(names: set[str]) -> tuple[str, ...]:
    return tuple(name for name in (*FEATURE_NAMES, INPUTS) if name in names)


def _row_at(computed: tuple[Times, Table], open_time_ms: int) -> Table | None:
    times, digests = computed
    place = int(np.searchsorted(times, open_time_ms))
    return digests[place] if place < len(times) and times[place] == open_time_ms else None


def known_at(rows: Rows, moment: int) -> CandleBlock:
    """Return each candle in the newest revision known at a moment, or in its first: a worker sees it as it closes."""
    times = rows.block.open_time_ms
    first = np.append([True], times[1:] != times[:-1]) if len(times) else np.empty(0, np.bool_)
    return rows.take(first | (rows.available_at_ms <= moment)).latest().block


def gaps_by_row(facts: Iterable[np.void], step: int) -> list[Gaps]:
    """
    Return for each row the stretches that its state saw no candle of, as far as facts of it and of those before say.

    A state that began anew, at another candle or afresh from stored ones, has seen what it was made from.
    """
    rows: list[Gaps] = []
    found: Gaps = ()
    missing, first = 0, None
    for one in facts:
        now = int(one["missing"])
        if one["first_open_time_ms"] != first or now < missing:
            missing, first, found = 0, one["first_open_time_ms"], ()
        if now > missing:
            end = int(one["open_time_ms"]) - (int(one["since_gap"]) - 1) * step
            found = (*found, (end - (now - missing) * step, end))
        missing = now
        rows.append(found)
    return rows


def tails(gaps: Gaps) -> list[Gaps]:
    """Return the newest of some gaps, the newest two, and so on, then all: the oldest may be in the lake as well."""
    most = min(len(gaps), _GAPS)
    return [gaps[-count:] for count in range(1, most + 1)] + ([gaps] if len(gaps) > most else [])


def without(block: CandleBlock, gaps: Gaps) -> CandleBlock:
    """Return a block without the candles of some stretches."""
    kept = np.ones(len(block), np.bool_)
    for begin, end in gaps:
        kept &= (block.open_time_ms < begin) | (block.open_time_ms >= end)
    return CandleBlock(block.open_time_ms[kept], block.values[kept])


def uncaused(code: str, told: Iterable[str]) -> tuple[Cause, str]:
    """Return the cause of what no recomputation brings about, with what is told of it; other code is named, too."""
    ours = native.made_from()[:16]
    if code == ours:
        return Cause.UNEXPLAINED, "; ".join(told)
    advice = f"code {code} computed it and {ours} computes it here; install one version for both, then audit again"
    return Cause.CODE, "; ".join((*told, advice))


def _candles_in(gaps: Gaps, step: int) -> str:
    count = sum(end - begin for begin, end in gaps) // step
    return f"the {count} candles" if count > 1 else "the candle"


def moment_of(time_ms: int) -> str:
    """Say when that is, to the minute."""
    return str(np.datetime64(time_ms, "ms")).replace("T", " ")[:16]
