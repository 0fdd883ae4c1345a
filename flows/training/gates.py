"""The gates: figures that a candidate must hold before it may trade, each a number with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from feature_store.errors import BadInputError
from flows.training.report import ShadowReport, TrainingReport

_MISSING = float("nan")


class GateBound(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A gate's number and why it is that number; without a number the gate is unset and refuses."""

    reason: str
    bound: float | None = None


class Gates(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All gates by name, as written in mlflow/gates.yaml."""

    gates: dict[str, GateBound]


class GateCheck(msgspec.Struct, frozen=True, kw_only=True):
    """How one gate was held: the figure, the bound it was held against, and a sentence. None is a missing number."""

    name: str
    passed: bool
    value: float | None
    bound: float | None
    reason: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a candidate may trade, and every check behind it."""

    passed: bool
    checks: tuple[GateCheck, ...]

    @property
    def refusals(self) -> tuple[GateCheck, ...]:
        """The gates that were not held."""
        return tuple(check for check in self.checks if not check.passed)


@dataclass(frozen=True, slots=True)
class _Evidence:
    training: TrainingReport
    shadow: ShadowReport

    @property
    def metrics(self) -> dict[str, float]:
        return {**self.training.metrics, **self.shadow.metrics}

    def figure(self, name: str) -> float:
        return self.metrics.get(name, _MISSING)

    def largest(self, statistic: str) -> float:
        """Return the largest of a statistic over all members, the ensemble, and all windows."""
        whose = [*(member.name for member in self.training.members), "ensemble"]
        windows = ("validation", "calibration", "shadow")
        return _worst(max, (self.figure(f"{window}/{who}/{statistic}") for window in windows for who in whose))


def _worst(choose: Callable[[list[float]], float], figures: Iterable[float]) -> float:
    """Return the worst of some figures; where one is missing, all of them are."""
    found = list(figures)
    return choose(found) if found and not any(map(math.isnan, found)) else _MISSING


@dataclass(frozen=True, slots=True)
class _Gate:
    """What a gate looks at, and on which side of the bound it must lie."""

    value: Callable[[_Evidence], float]
    at_least: bool
    strictly: bool = False

    def holds(self, value: float, bound: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.strictly:
            return value > bound if self.at_least else value < bound
        return value >= bound if self.at_least else value <= bound


def _shadow(name: str) -> Callable[[_Evidence], float]:
    return lambda evidence: evidence.figure(f"shadow/{name}")


_GATES: dict[str, _Gate] = {
    # Is there enough to judge by?
    "coverage": _Gate(
        lambda e: _worst(min, (e.figure(f"{w}/coverage") for w in ("fit", "validation", "calibration", "shadow"))), True
    ),
    "shadow_days": _Gate(_shadow("days"), at_least=True),
    "independent_outcomes": _Gate(_shadow("independent_outcomes"), at_least=True),
    "shadow_trades": _Gate(_shadow("ensemble/trades"), at_least=True),
    "abstained_share": _Gate(_shadow("abstained_share"), at_least=False),
    # Is it too good to be true?
    "plausible_ic": _Gate(lambda e: e.largest("ic"), at_least=False),
    "plausible_r2": _Gate(lambda e: e.largest("r2"), at_least=False),
    "plausible_hit_rate": _Gate(lambda e: e.largest("hit_rate"), at_least=False),
    "shuffled_labels": _Gate(lambda e: e.figure("leakage/shuffled_label_z"), at_least=False),
    # Is it good?
    "rmse_skill_low": _Gate(_shadow("ensemble/rmse_skill_low"), at_least=True, strictly=True),
    "ic_low": _Gate(_shadow("ensemble/ic_low"), at_least=True, strictly=True),
    "net_per_trade_low": _Gate(_shadow("ensemble/net_per_trade_bps_low"), at_least=True, strictly=True),
    "net_over_flat_low": _Gate(_shadow("ensemble_minus_flat/net_per_slot_bps_low"), at_least=True, strictly=True),
    "calibration_error": _Gate(_shadow("ensemble/calibration_error"), at_least=False),
    # Is it better than what anybody could have done?
    "net_over_persistence_low": _Gate(
        _shadow("ensemble_minus_persistence/net_per_slot_bps_low"), at_least=True, strictly=True
    ),
    "net_over_half_ridge_low": _Gate(
        _shadow("ensemble_minus_half_ridge/net_per_slot_bps_low"), at_least=True, strictly=True
    ),
    "net_over_ridge_high": _Gate(_shadow("ensemble_minus_ridge/net_per_slot_bps_high"), at_least=True),
}
_AGAINST_CHAMPION: dict[str, _Gate] = {
    "net_over_champion_low": _Gate(_shadow("ensemble_minus_champion/net_per_slot_bps_low"), at_least=True),
}
GATE_NAMES = (*_GATES, *_AGAINST_CHAMPION)


def load_gates(path: Path) -> Gates:
    """
    Read the gates.

    A gate that is left out or has no bound is unset; it does not fail here, it refuses every candidate.

    Raises:
        BadInputError: The file cannot be read, is no YAML of this form, or names a gate that does not exist.
    """
    try:
        gates = msgspec.yaml.decode(path.read_bytes(), type=Gates)
    except OSError as error:
        raise BadInputError(
            f"Cannot read the gates at {path}: {error.strerror}. Restore it, or name another"
        ) from error
    except msgspec.DecodeError as error:
        raise BadInputError(
            f"Cannot use the gates at {path}: {error}. Each gate is a name with `bound`, a number, and `reason`, a text"
        ) from error
    unknown = sorted(set(gates.gates) - set(GATE_NAMES))
    if unknown:
        raise BadInputError(f"{path} names gates {unknown} that do not exist; choose from {', '.join(GATE_NAMES)}")
    infinite = sorted(
        name for name, gate in gates.gates.items() if gate.bound is not None and not math.isfinite(gate.bound)
    )
    if infinite:
        raise BadInputError(f"{path} gives gates {infinite} a bound that is not finite; every bound is a number")
    return gates


def judge(
    training: TrainingReport, shadow: ShadowReport, gates: Gates, *, champion_digest: str | None = None
) -> Verdict:
    """
    Hold a candidate against every gate.

    A gate whose bound is unset refuses, and so does one whose figure is missing. The gate against the champion is
    held only where a champion was compared; which must be the one of `champion_digest`, where one trades now.
    """
    evidence = _Evidence(training, shadow)
    wanted = _GATES | (_AGAINST_CHAMPION if shadow.champion_digest is not None else {})
    checks = [_same_bundle(training, shadow)]
    if champion_digest not in (None, training.bundle_digest):
        checks.append(_same_champion(shadow, champion_digest))
    checks += [_check(name, gate, gates.gates.get(name), evidence) for name, gate in wanted.items()]
    return Verdict(passed=all(check.passed for check in checks), checks=tuple(checks))


def _same_bundle(training: TrainingReport, shadow: ShadowReport) -> GateCheck:
    same = training.bundle_digest == shadow.bundle_digest and training.windows.shadow == shadow.window
    return GateCheck(
        name="same_bundle",
        passed=same,
        value=float(same),
        bound=1.0,
        reason="Both reports are about the same bundle and its own locked window."
        if same
        else "The reports are about different bundles or another window; run the shadow again.",
    )


def _same_champion(shadow: ShadowReport, champion_digest: str | None) -> GateCheck:
    # A champion that could not be loaded in shadow cannot trade either: there is nothing to be better than.
    same = shadow.champion_digest == champion_digest or "shadow/champion_unusable" in shadow.metrics
    return GateCheck(
        name="same_champion",
        passed=same,
        value=float(same),
        bound=1.0,
        reason="The shadow compared it with the champion of today."
        if same
        else "The champion has changed since the shadow, or was not compared; run the shadow again.",
    )


def _check(name: str, gate: _Gate, bound: GateBound | None, evidence: _Evidence) -> GateCheck:
    value = gate.value(evidence)
    shown = float(value) if math.isfinite(value) else None
    if bound is None or bound.bound is None:
        reason = "This gate has no bound in mlflow/gates.yaml; an unset gate refuses."
        return GateCheck(name=name, passed=False, value=shown, bound=None, reason=reason)
    reason = bound.reason if shown is not None else f"This figure could not be computed. {bound.reason}"
    return GateCheck(name=name, passed=gate.holds(value, bound.bound), value=shown, bound=bound.bound, reason=reason)
