"""Whether features of one's own are what they must be: the same live and in batch, blind to the future, and right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from feature_store.candle import CandleBlock
from feature_store.errors import BadInputError
from feature_store.extensions.definition import ExtensionSet
from feature_store.extensions.engine import ExtensionEngine
from feature_store.features.definition import INPUT_BOUND, TAIL

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from feature_store.candle import Timeframe
    from feature_store.extensions.definition import ExtensionFeature

    Floats = npt.NDArray[np.float64]

_LARGEST_CHUNK = 90
_CUTS = 12
_LEAST_SPREAD = 1e-3
_SCALE = 8.0  # A power of two: what divides a price by a price gives the same bits.
_ROUNDING = 1e-6  # Of a value or of the spread: guards against dividing by 0 count as rounding.
_SAME = 1e-12
_MOST_AT_BOUND = 0.5


class Check(StrEnum):
    """What is looked at."""

    RUNS = "runs"
    REPEATS = "repeats"
    LIVE = "live = batch"
    PREFIX = "prefix = whole"
    ORACLE = "oracle"
    DEFINED = "has values"
    VARIES = "varies"
    WITHIN = "within bounds"
    UNITLESS = "has no unit"


_ANY_SAMPLE = {Check.DEFINED, Check.VARIES}
"""A market that stands still may leave a feature undefined or the same; any sample where it is not will do."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict of one check on one feature."""

    feature: str
    check: Check
    passed: bool
    detail: str


def check_extensions(
    extensions: ExtensionSet, samples: Sequence[tuple[Timeframe, CandleBlock]], *, seed: int = 1
) -> tuple[Finding, ...]:
    """
    Run every check on every sample and return one finding for each feature and check, the worst of all samples.

    Live means candle by candle, in chunks of any size, and with restarts from the candles that are remembered. Where a
    function fails, the others are checked without it.

    Raises:
        BadInputError: No sample has enough candles for the longest window.
    """
    needed = extensions.memory + 2
    usable = [one for one in samples if len(one[1]) > needed]
    if not usable:
        raise BadInputError(
            f"{extensions.name} looks back {extensions.memory} candles, but no sample has more than {needed}"
        )
    rng = np.random.default_rng(seed)
    found: dict[tuple[str, Check], Finding] = {}
    for timeframe, block in usable:
        for one in _checked(extensions, timeframe, block, rng):
            before = found.get((one.feature, one.check))
            better = one.passed if one.check in _ANY_SAMPLE else not one.passed
            if before is None or (before.passed != one.passed and better):
                found[one.feature, one.check] = one
    return tuple(found.values())


def _checked(
    extensions: ExtensionSet, timeframe: Timeframe, block: CandleBlock, rng: np.random.Generator
) -> list[Finding]:
    try:
        whole = ExtensionEngine(extensions, timeframe).advance(block)
        again = ExtensionEngine(extensions, timeframe).advance(block)
        single = np.concatenate([np.empty((0, whole.shape[1])), *_one_by_one(extensions, timeframe, block)])
        chunked = _in_chunks(extensions, timeframe, block, rng)
        cuts = sorted({*rng.integers(1, len(block), _CUTS).tolist(), extensions.memory, extensions.memory + 1} - {0})
        prefixes = [ExtensionEngine(extensions, timeframe).advance(block[:cut]) for cut in cuts]
        scaled = {
            what: ExtensionEngine(extensions, timeframe).advance(_scaled(block, columns))
            for what, columns in (("prices", slice(0, 4)), ("volumes", slice(4, 5)))
        }
    except BadInputError as error:
        return _one_after_the_other(extensions, timeframe, block, rng, error)
    findings = []
    for column, one in enumerate(extensions.features):
        values = whole[:, column]
        moved = sum(_differ(prefix[:, column], values[: len(prefix)]) for prefix in prefixes)
        live = _differ(single[:, column], values) + _differ(chunked[:, column], values)
        defined = int(np.isfinite(values[one.warm_up :]).sum())
        findings += [
            Finding(one.name, Check.RUNS, passed=True, detail=f"{len(block):,} candles"),
            _count(one, Check.REPEATS, _differ(again[:, column], values), "a second run gives other values"),
            _count(one, Check.LIVE, live, "live and batch differ"),
            _count(one, Check.PREFIX, moved, "what was known changes with later candles"),
            Finding(one.name, Check.DEFINED, defined > 0, f"{defined:,} finite after {one.warm_up} of warm-up"),
            *_usable(one, values),
            _unitless(one, values, {what: other[:, column] for what, other in scaled.items()}),
        ]
        if one.oracle is not None:
            findings.append(_against_oracle(one, timeframe, block, extensions))
    return findings


def _one_after_the_other(
    extensions: ExtensionSet,
    timeframe: Timeframe,
    block: CandleBlock,
    rng: np.random.Generator,
    error: BadInputError,
) -> list[Finding]:
    """Check each feature without the others: one that fails leaves the verdicts of the others as they are."""
    name = next((one for one in extensions.names if f"Feature {one} " in str(error)), extensions.names[0])
    failed = Finding(name, Check.RUNS, passed=False, detail=str(error))
    if len(extensions.features) == 1:
        return [failed]
    alone = [ExtensionSet(extensions.name, (one,), extensions.source_digest) for one in extensions.features]
    found = [finding for one in alone for finding in _checked(one, timeframe, block, rng)]
    if all(one.passed for one in found if one.check is Check.RUNS):
        # Only together do they fail: the one that did is named.
        found = [failed, *(one for one in found if (one.feature, one.check) != (name, Check.RUNS))]
    return found


def _scaled(block: CandleBlock, columns: slice) -> CandleBlock:
    """Return the candles as they would be in another currency, or in another unit of volume."""
    values = block.values.copy()
    values[:, columns] *= _SCALE
    return CandleBlock(block.open_time_ms, values)


def _usable(one: ExtensionFeature, values: Floats) -> list[Finding]:
    """Tell whether a model can learn from the values: they differ, and few are cut off."""
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return []
    varies = float(finite.max() - finite.min()) > _SAME * float(np.abs(finite).max())
    said = f"from {finite.min():.4g} to {finite.max():.4g}" if varies else f"always {finite[0]:.4g}: it tells nothing"
    cut_off = float((np.abs(finite) >= INPUT_BOUND).mean())
    advice = "; models read it cut off there: scale it, or take its logarithm" if cut_off > _MOST_AT_BOUND else ""
    detail = f"{cut_off:.1%} of the values lie at or beyond +-{INPUT_BOUND:g}{advice}"
    return [
        Finding(one.name, Check.VARIES, varies, said),
        Finding(one.name, Check.WITHIN, cut_off <= _MOST_AT_BOUND, detail),
    ]


def _unitless(one: ExtensionFeature, values: Floats, scaled: Mapping[str, Floats]) -> Finding:
    if one.unit:
        return Finding(one.name, Check.UNITLESS, passed=True, detail=f"it has one, as declared: {one.unit}")
    spread = float(np.nanstd(values)) if np.isfinite(values).any() else 0.0
    bound = _ROUNDING * np.maximum(np.abs(values), spread)
    changed = {}
    for what, other in scaled.items():
        both = np.isnan(values) & np.isnan(other)
        # A value that is defined on one side only has changed.
        changed[what] = int((~both & ~(np.abs(other - values) <= bound)).sum())
    worst = max(changed, key=lambda what: changed[what])
    if not changed[worst]:
        return Finding(one.name, Check.UNITLESS, passed=True, detail=f"prices or volumes x {_SCALE:g} change nothing")
    advice = "relate it to the price or the volume of its window, or declare unit='…' if that is meant"
    detail = f"{worst} x {_SCALE:g} change {changed[worst]:,} values: {advice}"
    return Finding(one.name, Check.UNITLESS, passed=False, detail=detail)


def _one_by_one(extensions: ExtensionSet, timeframe: Timeframe, block: CandleBlock) -> list[Floats]:
    engine = ExtensionEngine(extensions, timeframe)
    return [engine.advance(block[place : place + 1]) for place in range(len(block))]


def _in_chunks(extensions: ExtensionSet, timeframe: Timeframe, block: CandleBlock, rng: np.random.Generator) -> Floats:
    engine, parts, place = ExtensionEngine(extensions, timeframe), [], 0
    while place < len(block):
        end = place + int(rng.integers(1, _LARGEST_CHUNK))
        # Candles that came before are handed over again, as a feed does after a reconnect; they change nothing.
        parts.append(engine.advance(block[max(place - 2, 0) : end]))
        place = end
        if rng.random() < 0.5:
            restarted = ExtensionEngine(extensions, timeframe)
            restarted.resume(engine.tail if rng.random() < 0.5 else block[:place])
            engine = restarted
    return np.concatenate(parts)


def _differ(left: Floats, right: Floats) -> int:
    bits = np.ascontiguousarray(left).view(np.uint64) != np.ascontiguousarray(right).view(np.uint64)
    return int((bits & ~(np.isnan(left) & np.isnan(right))).sum())


def _count(one: ExtensionFeature, check: Check, wrong: int, problem: str) -> Finding:
    return Finding(one.name, check, wrong == 0, "equal to the bit" if wrong == 0 else f"{problem}: {wrong:,} values")


def _against_oracle(
    one: ExtensionFeature, timeframe: Timeframe, block: CandleBlock, extensions: ExtensionSet
) -> Finding:
    gaps = np.flatnonzero(np.diff(block.open_time_ms) > (TAIL + 1) * timeframe.milliseconds) + 1
    edges = [0, *gaps.tolist(), len(block)]
    begin, end = max(pairwise(edges), key=lambda pair: pair[1] - pair[0])
    unbroken = block[begin:end]
    column = extensions.names.index(one.name)
    values = ExtensionEngine(extensions, timeframe).advance(unbroken)[:, column]
    assert one.oracle is not None
    try:
        reference = np.asarray(one.oracle(unbroken), np.float64)
    except Exception as error:  # noqa: BLE001 - somebody else's function may raise anything
        return Finding(one.name, Check.ORACLE, passed=False, detail=f"it raised {type(error).__name__}: {error}")
    if reference.shape != values.shape:
        return Finding(
            one.name, Check.ORACLE, passed=False, detail=f"it gave shape {reference.shape}, should be {values.shape}"
        )
    values, reference = values[one.warm_up :], reference[one.warm_up :]
    both = np.isfinite(values) & np.isfinite(reference)
    one_sided = int((np.isfinite(values) != np.isfinite(reference)).sum())
    if one_sided or not both.any():
        detail = f"{one_sided:,} values are defined in one of the two only" if one_sided else "nothing to compare"
        return Finding(one.name, Check.ORACLE, passed=False, detail=detail)
    spread = float(reference[both].std())
    bound = one.tolerance * np.maximum(np.abs(reference[both]), _LEAST_SPREAD * spread)
    apart = np.abs(values[both] - reference[both])
    # A reference of nothing but zeros has no spread: then only zeros will do.
    worst = float((apart / np.where(bound > 0, bound, 1.0)).max()) if (bound > 0).any() else float(apart.max())
    passed = bool((apart <= bound).all())
    detail = f"{both.sum():,} values, the worst error {worst * one.tolerance:.1e}, allowed {one.tolerance:.0e}"
    return Finding(one.name, Check.ORACLE, passed, detail)
