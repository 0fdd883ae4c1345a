"""Everything that the catalogue says, from the definition alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

from feature_store.extensions.definition import ExtensionSet
from feature_store.extensions.view import FeatureView
from feature_store.features.definition import (
    FEATURE_NAMES,
    FEATURES,
    INPUT_BOUND,
    KERNEL_VERSION,
    MODEL_INPUTS,
    WINDOW,
    Family,
    ModelInput,
    fingerprint,
)
from feature_store.features.explained import EXPLAINED
from flows.training.config import TrainingConfig

# As the formulas of two inputs shorten it.
_SHORT = {"hv_20": "historical_volatility_20", "hv_60": "historical_volatility_60"}
_WORD = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Entry:
    """One feature, as the page shows it."""

    name: str
    family: str
    tells: str
    formula: str
    parameters: str
    source: str
    lookback: str
    warm_up: str
    nan_policy: str
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InputEntry:
    """One model input: where it comes from, and which models read it."""

    name: str
    formula: str
    reads: tuple[str, ...]
    consumers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Consumer:
    """What one model reads."""

    model: str
    reads: str


@dataclass(frozen=True, slots=True)
class Chapter:
    """One feature set: the 49, or what somebody has added."""

    title: str
    about: str
    fingerprint: str
    entries: tuple[Entry, ...]

    @property
    def families(self) -> tuple[str, ...]:
        """Families in order of appearance."""
        return tuple(dict.fromkeys(one.family for one in self.entries))


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The whole page."""

    chapters: tuple[Chapter, ...]
    inputs: tuple[InputEntry, ...]
    consumers: tuple[Consumer, ...]
    input_note: str


def features_read(formula: str) -> tuple[str, ...]:
    """Return the features that a model input's formula names, in the order of the 49."""
    words = {_SHORT.get(word, word) for word in _WORD.findall(formula)}
    return tuple(name for name in FEATURE_NAMES if name in words)


def the_49() -> Chapter:
    """Return the chapter of the frozen set."""
    entries = tuple(
        Entry(
            name=one.name,
            family=str(one.family),
            tells=EXPLAINED[one.name].tells,
            formula=one.formula,
            parameters=EXPLAINED[one.name].parameters,
            source=one.source,
            lookback="every candle since the series began" if one.lookback is None else candles(one.lookback),
            warm_up="none" if one.warm_up == 0 else candles(one.warm_up),
            nan_policy=". ".join(filter(None, (one.nan_policy, EXPLAINED[one.name].still))),
            inputs=tuple(given.name for given in MODEL_INPUTS if one.name in features_read(given.formula)),
        )
        for one in FEATURES
    )
    about = (
        f"Frozen and ordered; kernel version {KERNEL_VERSION}. One compiled definition serves batch and live, equal to "
        f"the bit. In formulas x[k] is the value k candles ago; sma, ema, std, sum, min and max run over that many "
        f"candles, the newest included. A source FE-nnn is a row of the specification."
    )
    return Chapter(f"The {len(entries)} features", about, fingerprint(), entries)


def chapter_of(extensions: ExtensionSet) -> Chapter:
    """Return the chapter of features of one's own."""
    entries = tuple(
        Entry(
            name=one.name,
            family=one.family,
            tells=one.tells,
            formula=f"{one.formula}, in {one.unit}" if one.unit else one.formula,
            parameters=one.parameters,
            source=one.source if one.oracle is None else f"{one.source}; checked against an oracle",
            lookback=candles(one.lookback),
            warm_up="none" if one.warm_up == 0 else candles(one.warm_up),
            nan_policy=one.nan_policy,
            inputs=(one.name,),
        )
        for one in extensions.features
    )
    about = (
        f"{len(entries)} of one's own, beside the 49, from {extensions.name}: the same function on the same windows "
        f"in batch and live."
    )
    return Chapter(f"Extension {extensions.name}", about, extensions.fingerprint(), entries)


def catalogue(config: TrainingConfig, view: FeatureView | None = None) -> Catalogue:
    """Return all that there is to show; `config` says what each model reads, and the view what is added to the 49."""
    view = view or FeatureView()
    names = view.input_names
    lengths = ", ".join(map(str, config.summary_lengths))
    tree = f"the newest value of all {len(names)} inputs; means over {lengths} candles of those marked"
    window = f"the last {WINDOW} candles"
    all_readers = {
        "XGBoost": (names, tree),
        "LightGBM": (names, tree),
        "N-HiTS": (config.nhits_inputs, f"{window} of log returns and of {len(config.nhits_inputs)} inputs"),
        "PatchTST": ((), f"{window} of log returns, and nothing else: it is a model of one series"),
    }
    chosen = {"XGBoost": "xgboost", "LightGBM": "lightgbm", "N-HiTS": "nhits", "PatchTST": "patchtst"}
    readers = {model: read for model, read in all_readers.items() if chosen[model] in config.members}
    own_names = () if view.extensions is None else view.extensions.names
    formulas = {one.name: one.formula for one in MODEL_INPUTS}
    inputs = tuple(
        InputEntry(
            one.name,
            one.formula,
            (one.name,) if one.name in own_names else features_read(formulas.get(one.name.partition("@")[0], "")),
            tuple(
                f"{model} (means too)" if "GB" in model and one.name in config.summarised_inputs else model
                for model, (read, _) in readers.items()
                if one.name in read
            ),
        )
        for one in (*MODEL_INPUTS, *_added(view))
    )
    note = (
        f"Raw prices are poor inputs across symbols, so models read these instead: multiplying all prices or all "
        f"volumes of a series by a constant changes none of them. Cut off at ±{INPUT_BOUND:g}; NaN where a feature "
        f"that is read is NaN. A market that stands still is no 0 to them: where a feature is 0 for want of a "
        f"denominator, rsi, stochastic_k, stochastic_d, adx and mfi are -1, and williams_r is 1; their cards say from "
        f"when on. volume, volume_sma_20, obv and vpt have no input of their own: the first two are read "
        f"as their ratio, volume_ratio_20, and the level of the others depends on where the series began."
    )
    consumers = tuple(Consumer(model, words) for model, (_, words) in readers.items())
    more = () if view.extensions is None else (chapter_of(view.extensions),)
    return Catalogue((the_49(), *more), inputs, consumers, note)


def _added(view: FeatureView) -> tuple[ModelInput, ...]:
    own = () if view.extensions is None else view.extensions.features
    mine = tuple(ModelInput(one.name, one.formula) for one in own)
    if view.expansion is None:
        return mine
    others = (
        ModelInput(
            f"{name}{origin.suffix}",
            f"{name} of {origin.symbol or 'the series'}, {origin.timeframe or 'its own'} candles",
        )
        for origin in view.expansion.origins
        for name in view.expansion.names
    )
    return (*mine, *others)


def candles(count: int) -> str:
    """Say a number of candles."""
    return f"{count} candle{'s' if count != 1 else ''}"


FAMILY_COLOURS: dict[str, str] = {
    Family.PRICE: "#0072B2",
    Family.TECHNICAL: "#D55E00",
    Family.MOVING_AVERAGE: "#009E73",
    Family.VOLUME: "#CC79A7",
    Family.VOLATILITY: "#E69F00",
    Family.TREND: "#56B4E9",
    Family.MOMENTUM: "#8C6BB1",
}
OTHER_COLOUR = "#777777"
