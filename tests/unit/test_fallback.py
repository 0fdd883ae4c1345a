"""What is done about a model whose live opinions are poor: by how much evidence, once, and never more loosely."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from inference.domain.fallback import Fallback, FallbackMode
from inference.domain.governance import ALL, Resolution, Role, Stance, Vote
from inference.settings import Mode, Settings
from inference.supervision.fallback import SHRINK_AT, STOP_AT, FallbackWatch, fallback_of
from inference.supervision.prediction_quality import MaturedCandle
from inference.supervision.quality_evidence import FEWEST_OUTCOMES, LIMIT, Bets, Measure, QualityEvidence

MODEL = "2:bbbbbbbbbbbb"
STEPS = list(Fallback)


def evidence(owned: float, outcomes: int = 100, **changed: object) -> QualityEvidence:
    """Return evidence of so much, after so many outcomes."""
    bets = Bets(outcomes=outcomes, at_stake=owned - 1 / (outcomes + 1))
    return QualityEvidence(hit_bets=bets, brier_bets=bets, **changed)  # type: ignore[arg-type]


class Told:
    """A watch, and what it has told and left."""

    def __init__(
        self, mode: FallbackMode = FallbackMode.ENFORCE, *, to: str | None = "1" * 64, left: tuple[str, ...] = ()
    ):
        self.events: list[tuple[str, dict[str, str]]] = []
        self.asked_to_leave = 0
        self.aside: set[str] = set()
        self.to = to
        self.watch = FallbackWatch(
            mode,
            note=lambda kind, detail: self.events.append((kind, dict(detail))),
            leave=self._leave,
            is_aside=lambda model: model in self.aside,
            left=left,
        )

    def _leave(self, model: str) -> str | None:
        self.asked_to_leave += 1
        if self.to is not None:
            self.aside.add(model)
        return self.to

    @property
    def kinds(self) -> list[str]:
        """What was told, in order; of steps which."""
        return [detail["step"] if kind == "model.fallback" else kind for kind, detail in self.events]


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        (None, Fallback.NONE),
        (evidence(SHRINK_AT - 0.1), Fallback.NONE),
        (evidence(SHRINK_AT), Fallback.SHRINK),
        (evidence(STOP_AT - 0.1), Fallback.SHRINK),
        (evidence(STOP_AT), Fallback.STOP),
        (evidence(LIMIT, outcomes=FEWEST_OUTCOMES - 1), Fallback.NONE),
        (evidence(LIMIT, poor_by=Measure.BRIER), Fallback.BACK),
    ],
)
def test_each_step_has_its_evidence(known, asked):
    """Ten, thirty, a hundred times the money; below twenty outcomes nothing, whatever they were."""
    assert fallback_of(known) is asked


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.5, 1), st.floats(0, 1)), max_size=80))
def test_whoever_is_left_was_asked_to_stop_before_or_at_once(drawn):
    """Whatever comes, a stricter step is asked for by more evidence, and none by fewer than twenty outcomes."""
    known = QualityEvidence()
    for place, (right, stated, rose) in enumerate(drawn):
        candle = MaturedCandle(
            model_version=MODEL, said_ms=place, due_ms=place + 1, right=right, stated=stated,
            brier=right * (1 - stated) ** 2 + (1 - right) * stated**2, rose=rose,
        )  # fmt: skip
        known = known.after(candle)
        asked = fallback_of(known)
        assert asked is Fallback.NONE or known.outcomes >= FEWEST_OUTCOMES
        assert (asked is Fallback.BACK) == (known.poor_by is not None)
        if asked is Fallback.SHRINK:
            assert SHRINK_AT <= known.evidence < STOP_AT


def test_each_step_is_told_once_and_the_model_left_once():
    """A model that gets worse is shrunk, stopped and left; each is one entry of the journal, however long it lasts."""
    told = Told()
    for owned in (1.0, 11.0, 12.0, 40.0, 41.0):
        told.watch.look(MODEL, evidence(owned))
    poor = evidence(120.0, poor_by=Measure.HIT_RATE)
    told.watch.look(MODEL, poor)
    told.watch.look(MODEL, poor)

    assert told.kinds == ["shrink", "stop", "back", "model.fell_back"]
    assert told.asked_to_leave == 1
    assert told.events[-1][1] == {"model": MODEL, "to": "1" * 64, "evidence": "120.0", "outcomes": "100"}


def test_whoever_lets_it_trade_again_is_not_overruled_until_it_has_recovered():
    """After a start the journal's word counts; a model that recovered and is poor again is left again."""
    poor = evidence(120.0, poor_by=Measure.BRIER)
    told = Told(left=(MODEL,))
    told.watch.look(MODEL, poor)
    assert told.watch.done is Fallback.NONE
    assert told.asked_to_leave == 0

    told.watch.look(MODEL, evidence(1.0))
    told.watch.look(MODEL, poor)
    assert told.watch.done is Fallback.BACK
    assert told.asked_to_leave == 1


def test_who_lets_it_trade_again_in_the_same_life_is_not_overruled_either():
    """While it is set aside nothing is entered by it; once a person has let it again, it is not left twice."""
    poor = evidence(120.0, poor_by=Measure.BRIER)
    told = Told()
    told.watch.look(MODEL, poor)
    told.watch.look(MODEL, poor)
    assert told.watch.done is Fallback.BACK

    told.aside.clear()
    told.watch.look("1:aaaaaaaaaaaa", evidence(1.0))
    told.watch.look(MODEL, poor)
    assert told.watch.done is Fallback.NONE
    assert told.asked_to_leave == 1


def test_what_could_not_be_set_aside_is_asked_for_again_and_not_remembered_as_done():
    """A full disk: nothing is entered, each candle asks again, and the journal says it once it is so."""
    poor = evidence(120.0, poor_by=Measure.BRIER)
    told = Told(to=None)
    for _ in range(3):
        told.watch.look(MODEL, poor)
        assert told.watch.done is Fallback.BACK
    assert told.kinds == ["back"]

    told.to = ""
    told.watch.look(MODEL, poor)
    assert told.kinds == ["back", "model.fell_back"]
    assert told.asked_to_leave == 4


def test_observing_tells_and_does_nothing():
    """Every step is told; entries, sizes and the model stay as they are."""
    told = Told(FallbackMode.OBSERVE)
    for known in (evidence(15.0), evidence(120.0, poor_by=Measure.BRIER)):
        told.watch.look(MODEL, known)
        assert told.watch.heeded(UNSET, "p") is UNSET

    assert told.kinds == ["shrink", "back"]
    assert told.watch.asked is Fallback.BACK
    assert told.asked_to_leave == 0


def test_a_step_is_a_budget_or_a_veto():
    """Shrunk: half the risk. Stopped, and left until another has taken over: no entry, with the figures in words."""
    told = Told()
    told.watch.look(MODEL, evidence(15.0))
    shrunk = told.watch.heeded(UNSET, "p")
    told.watch.look(MODEL, evidence(40.0))
    stopped = told.watch.heeded(UNSET, "p")
    told.watch.look("1:aaaaaaaaaaaa", evidence(1.0))

    assert (shrunk.budget, shrunk.veto_of("BTC"), shrunk.enforced) == (Decimal("0.5"), None, True)
    assert stopped.stance is Stance.EXITS_ONLY
    assert stopped.veto_of("BTC") == f"fallback stop: evidence 40.0 against {MODEL} after 100 outcomes"
    assert told.watch.heeded(UNSET, "p") is UNSET


@given(
    owned=st.floats(1, 90), poor=st.booleans(), budget=st.decimals(0, 1, places=2),
    stance=st.sampled_from(Stance), vetoes=st.dictionaries(st.sampled_from([ALL, "BTC", "ETH"]), st.just("why")),
    caps=st.dictionaries(st.sampled_from(["BTC", "ETH"]), st.decimals(0, 100, places=1)),
)  # fmt: skip
def test_nothing_the_committee_enforces_is_loosened(owned, poor, budget, stance, vetoes, caps):
    """Both are heeded: no budget grows, no veto and no cap goes, no stance gets bolder."""
    vote = Vote(role=Role.AUDIT, policy="p", stance=stance, budget=budget, caps=caps, vetoes=vetoes)
    given_one = Resolution(stance=stance, budget=budget, caps=caps, vetoes=vetoes, votes=(vote,), enforced=True)
    told = Told()
    told.watch.look(MODEL, replace(evidence(owned), poor_by=Measure.BRIER if poor else None))

    heeded = told.watch.heeded(given_one, "p")

    assert heeded.budget <= budget
    assert heeded.stance.strictness >= stance.strictness
    assert heeded.caps == caps
    assert set(heeded.vetoes) >= set(vetoes)
    assert heeded.votes[:1] == (vote,)
    if told.watch.done is Fallback.NONE:
        assert heeded is given_one


def test_it_is_done_by_default_but_in_the_sandbox():
    """Money, even a test network's, is guarded without being asked; a setting says otherwise."""
    sandbox = {"mode": Mode.SANDBOX, "venue": "sandbox", "venue_url": "http://127.0.0.1:1"}

    assert Settings(**sandbox).fallback is FallbackMode.OBSERVE
    assert Settings(**sandbox, fallback_mode="enforce").fallback is FallbackMode.ENFORCE
    assert Settings.model_construct(mode=Mode.LIVE, fallback_mode=None).fallback is FallbackMode.ENFORCE
