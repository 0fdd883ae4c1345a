"""The gates: figures that a candidate must hold before it may trade, each a number with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from feature_store.errors import BadInputError
from flows.training.gate_facts import approval, fact, of_the_past, rolled_back, same_bundle, same_champion
from flows.training.live_evidence import LiveShadow, Market, facts_of, not_too_early
from flows.training.report import CANDLE_WINDOWS, MOST_CYCLES, ShadowReport, TrainingReport
from flows.training.selection import ReturnMoments, Trials, deflated_sharpe
from flows.training.verdict import Finding, GateCheck, ModeName, Verdict

_MISSING = float("nan")
CPCV_REFITS = ("ridge", "trees")
"""The cheap models that are fitted again on every fold; the better of them speaks for what can be learned."""
CRITICAL_DRIFT = "critical_drift"
"""The gate that counts cycles: its `over` says how many of the newest."""


class GateBound(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    A gate's number and why it is that number; without a number the gate is unset and refuses.

    `over` is of how many of the newest cycles a gate that counts cycles looks at; without it such a gate is unset too.
    """

    reason: str
    bound: float | None = None
    over: int | None = None


class Gates(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All gates by name, as written in mlflow/gates.yaml."""

    gates: dict[str, GateBound]


@dataclass(frozen=True, slots=True, kw_only=True)
class Champion:
    """
    The version that trades now.

    `judged_until_ms` is the end of the locked window that it was judged on, None where no report tells; a champion
    that `degraded` earns no protection.
    """

    digest: str
    judged_until_ms: int | None = None
    degraded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """
    What a verdict depends on beside the candidate's own reports.

    `mode` and `venue` say where it would trade, `trained_venue` where it was trained. `live` is its shadow on live
    candles, `looks` how often its locked window was looked at, `approved_digest` the bundle that a person approved,
    `as_of` the past moment that it was trained as of, if it was, and `set_aside` whether a rollback took its place.
    """

    mode: ModeName = "sandbox"
    venue: str = "sandbox"
    trained_venue: str | None = None
    champion: Champion | None = None
    trials: Trials = field(default_factory=Trials)
    looks: int = 1
    live: LiveShadow | None = None
    approved_digest: str | None = None
    as_of: str | None = None
    set_aside: bool = False

    @property
    def market(self) -> Market:
        """Where it would trade."""
        return Market(venue=self.venue, mode=self.mode)


@dataclass(frozen=True, slots=True)
class _Evidence:
    training: TrainingReport
    shadow: ShadowReport
    around: Circumstances
    # Of how many of the newest cycles drift is counted.
    cycles: int | None = None

    @property
    def metrics(self) -> dict[str, float]:
        return {**self.training.metrics, **self.shadow.metrics}

    @property
    def live(self) -> dict[str, float]:
        """What counts of its live shadow: nothing that its other reports say by the same names."""
        live = self.around.live
        return live.counted(self.training.bundle_digest, self.around.market, self.rival) if live is not None else {}

    @property
    def rival(self) -> str | None:
        """The champion's bundle, where that is another than its own."""
        champion = self.around.champion
        return champion.digest if champion is not None and champion.digest != self.training.bundle_digest else None

    @property
    def live_days(self) -> float:
        """Days on live candles; those beside the champion of today where there is one: an hour proves no lead."""
        wanted = ("live_shadow/days", *(("live_shadow/paired_days",) if self.rival is not None else ()))
        return _worst(min, (self.live.get(name, _MISSING) for name in wanted))

    def figure(self, name: str) -> float:
        return self.metrics.get(name, _MISSING)

    @property
    def deflated_sharpe(self) -> float:
        moments = moments_of_report(self.shadow)
        return _MISSING if moments is None else deflated_sharpe(moments, self.around.trials)

    @property
    def tenure_days(self) -> float:
        """How much younger its evidence is than that of the champion, in days of the venue's time."""
        champion = self.around.champion
        if champion is None or champion.judged_until_ms is None:
            return _MISSING
        return (self.shadow.window.end_ms - champion.judged_until_ms) / 86_400_000

    @property
    def drifted_cycles(self) -> float:
        """In how many of the newest cycles what it reads lay beyond what chance explains, missing if one is unknown."""
        shares = [self.figure(f"shadow/input_drift/cycle_{place}") for place in range(1, (self.cycles or 0) + 1)]
        known = shares and all(map(math.isfinite, shares))
        return float(sum(share > 1 for share in shares)) if known else _MISSING

    def of_windows(self, choose: Callable[[list[float]], float], name: str) -> float:
        """Return the worst of what each window, the locked one among them, says of its candles."""
        return _worst(choose, (self.figure(f"{window}/{name}") for window in CANDLE_WINDOWS))

    def largest(self, statistic: str) -> float:
        """Return the largest of a statistic over all members, the ensemble, and all windows."""
        whose = [*(member.name for member in self.training.members), "ensemble"]
        judged = CANDLE_WINDOWS[1:]
        return _worst(max, (self.figure(f"{window}/{who}/{statistic}") for window in judged for who in whose))


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
    # What only time can give: short of the bound, nothing speaks against the candidate yet.
    takes_time: bool = False

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
    "coverage": _Gate(lambda e: e.of_windows(min, "coverage"), at_least=True),
    "unexplained_candles": _Gate(lambda e: e.of_windows(max, "unexplained_share"), at_least=False),
    "suspect_candles": _Gate(lambda e: e.of_windows(max, "suspect_share"), at_least=False),
    "shadow_days": _Gate(_shadow("days"), at_least=True, takes_time=True),
    "independent_outcomes": _Gate(_shadow("independent_outcomes"), at_least=True, takes_time=True),
    "shadow_trades": _Gate(_shadow("ensemble/trades"), at_least=True),
    "abstained_share": _Gate(_shadow("abstained_share"), at_least=False),
    # Is it judged on the market that it learned from, and on candles that nobody chose by?
    CRITICAL_DRIFT: _Gate(lambda e: e.drifted_cycles, at_least=False),
    "locked_looks": _Gate(lambda e: float(e.around.looks), at_least=False),
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
    # Is it more than luck, and could one live with it?
    "cpcv_losing_share": _Gate(
        lambda e: _worst(min, (e.figure(f"cpcv/{refit}/sharpe_negative_share") for refit in CPCV_REFITS)),
        at_least=False,
    ),
    "deflated_sharpe": _Gate(lambda e: e.deflated_sharpe, at_least=True),
    "sortino_low": _Gate(_shadow("ensemble/sortino_per_day_low"), at_least=True),
    "drawdown": _Gate(_shadow("ensemble/drawdown_of_capital"), at_least=False),
    "concentration": _Gate(_shadow("ensemble/concentration"), at_least=False),
    # What would the worker have made of it, by its own decisions?
    "worker_net_low": _Gate(_shadow("worker/net_per_day_bps_low"), at_least=True, strictly=True),
    "worker_drawdown": _Gate(_shadow("worker/max_drawdown"), at_least=False),
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
# What a champion in good health is owed.
_AGAINST_CHANGE: dict[str, _Gate] = {
    "tenure_days": _Gate(lambda e: e.tenure_days, at_least=True, takes_time=True),
    "lead_over_champion": _Gate(_shadow("ensemble_minus_champion/net_per_slot_bps"), at_least=True, takes_time=True),
}
# Where money or a venue's own test system is at stake, replayed candles do not suffice.
_LIVE: dict[str, _Gate] = {
    "live_shadow_days": _Gate(lambda e: e.live_days, at_least=True, takes_time=True),
    "live_independent_outcomes": _Gate(
        lambda e: e.live.get("live_shadow/independent_outcomes", _MISSING), at_least=True, takes_time=True
    ),
    "live_net_over_flat_low": _Gate(
        lambda e: e.live.get("live_shadow/ensemble_minus_flat/net_per_slot_bps_low", _MISSING), True, strictly=True
    ),
}
_LIVE_AGAINST_CHAMPION: dict[str, _Gate] = {
    "live_net_over_champion_low": _Gate(
        lambda e: e.live.get("live_shadow/ensemble_minus_champion/net_per_slot_bps_low", _MISSING), at_least=True
    ),
}
ALWAYS_ASKED = tuple(_GATES)
"""The gates that every candidate meets, whatever the mode and whether there is a champion."""
GATE_NAMES = (*_GATES, *_AGAINST_CHAMPION, *_AGAINST_CHANGE, *_LIVE, *_LIVE_AGAINST_CHAMPION)


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
    _check_cycles(path, gates)
    infinite = sorted(
        name for name, gate in gates.gates.items() if gate.bound is not None and not math.isfinite(gate.bound)
    )
    if infinite:
        raise BadInputError(f"{path} gives gates {infinite} a bound that is not finite; every bound is a number")
    return gates


def _check_cycles(path: Path, gates: Gates) -> None:
    """Refuse a number of cycles that cannot be counted, or that belongs to a gate that counts none."""
    for name, gate in gates.gates.items():
        if name != CRITICAL_DRIFT and gate.over is not None:
            raise BadInputError(f"{path} gives gate {name} `over`, but it counts no cycles; remove it")
        if name == CRITICAL_DRIFT and (gate.over is None or not 1 <= gate.over <= MOST_CYCLES):
            raise BadInputError(
                f"{path} gives gate {name} `over` {gate.over}; it is of how many of the newest days, 1 to {MOST_CYCLES}"
            )


def judge(training: TrainingReport, shadow: ShadowReport, gates: Gates, around: Circumstances | None = None) -> Verdict:
    """
    Hold a candidate against every gate.

    A gate whose bound is unset fails. One whose figure is missing is not decided, and so is one that asks for more
    time than there was: then nothing is promoted, and nothing is held against the candidate. Gates against a champion
    are asked where one was compared, which must be the one that trades now; its tenure, and the lead it is owed, count
    only while it did not degrade. In `testnet` and `live` it must have been trained on the venue that it would trade,
    and its shadow must have run on live candles of that very market, beside the champion of today; what it earned there
    is judged once there were enough of them. `live` needs a person's approval. A candidate that was trained as of a
    past moment fails: it was judged on candles that are history, of which one could choose those that please. So does
    one that a rollback set aside.
    """
    around = around or Circumstances()
    counted = gates.gates.get(CRITICAL_DRIFT)
    evidence = _Evidence(training, shadow, around, counted.over if counted is not None else None)
    champion = around.champion
    if champion is not None and champion.digest == training.bundle_digest:
        champion = None  # A bundle is not held against itself.
    checks = [same_bundle(training, shadow)]
    if around.as_of is not None:
        checks.append(of_the_past(around.as_of))
    if around.set_aside:
        checks.append(rolled_back())
    if champion is not None:
        checks.append(same_champion(shadow, champion.digest))
    wanted = dict(_GATES)
    if shadow.champion_digest is not None:
        wanted |= _AGAINST_CHAMPION
    if champion is not None and shadow.champion_digest == champion.digest and not degraded(champion, shadow):
        # Whoever has no report of its own was put there by hand: there is no judgement to be younger than.
        known = champion.judged_until_ms is not None
        wanted |= _AGAINST_CHANGE if known else {"lead_over_champion": _AGAINST_CHANGE["lead_over_champion"]}
    if around.mode in ("testnet", "live"):
        wanted |= _LIVE | (_LIVE_AGAINST_CHAMPION if champion is not None else {})
        facts = facts_of(around.live, training.bundle_digest, around.trained_venue, around.market, evidence.rival)
        checks += [fact(*one) for one in facts]
    checks += not_too_early([_check(name, gate, gates.gates.get(name), evidence) for name, gate in wanted.items()])
    if around.mode == "live":
        checks.append(approval(training, around.approved_digest))
    return Verdict(checks=tuple(checks))


def degraded(champion: Champion, shadow: ShadowReport) -> bool:
    """Tell whether the champion is known to have degraded, or was shown to lose money on the candidate's candles."""
    return champion.degraded or shadow.metrics.get("shadow/champion_minus_flat/net_per_slot_bps_high", 0.0) < 0


def moments_of_report(shadow: ShadowReport) -> ReturnMoments | None:
    """Return what a candidate's Sharpe ratio was computed from; None where it never traded or was not measured."""
    names = ("sharpe_per_period", "periods", "skewness", "kurtosis")
    found = [shadow.metrics.get(f"shadow/ensemble/{name}", _MISSING) for name in names]
    if not all(map(math.isfinite, found)):
        return None
    return ReturnMoments(sharpe=found[0], periods=found[1], skewness=found[2], kurtosis=found[3])


def _check(name: str, gate: _Gate, bound: GateBound | None, evidence: _Evidence) -> GateCheck:
    value = gate.value(evidence)
    is_counted = name != CRITICAL_DRIFT or evidence.cycles is not None
    shown = float(value) if math.isfinite(value) else None
    if bound is None or bound.bound is None or not is_counted:
        reason = "This gate has no bound in mlflow/gates.yaml; an unset gate refuses."
        return GateCheck(name=name, finding=Finding.FAILED, value=shown, bound=None, reason=reason)
    if shown is None:
        finding, reason = Finding.MISSING, f"This figure could not be computed. {bound.reason}"
    elif gate.holds(value, bound.bound):
        finding, reason = Finding.HELD, bound.reason
    else:
        finding, reason = (Finding.MISSING if gate.takes_time else Finding.FAILED), bound.reason
    return GateCheck(name=name, finding=finding, value=shown, bound=bound.bound, reason=reason)
