"""A worker that was started again says and enforces of its model what one says that ran through."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from feature_store.candle import Timeframe
from inference.bootstrap.past import Past
from inference.bootstrap.recollection import Recollection
from inference.domain.bias import CANDLES_KEPT, BiasMode, BiasRules
from inference.domain.decision import Candidate
from inference.domain.events import CandlesDecided, Noted
from inference.domain.policy import Policy
from inference.domain.signal import Direction
from inference.execution.book import Book
from inference.journal.reader import newest_lines, whole_lines
from inference.journal.writer import JournalWriter
from inference.settings import Settings
from inference.supervision.model_supervisor import ModelSupervisor
from inference.supervision.quality_evidence import QualityEvidence
from tests.worker_values import T0, make_signal, make_snapshot

STEP = Timeframe.M5.milliseconds
NAMES = [f"S{number}/USDT:USDT" for number in range(4)]
DIGEST = "d" * 64
HORIZONS = {"1": 3, "2": 1}
PROMISED = {"1": {"promised": "0.58"}, "2": {}}
POLICY = Policy()
RULES = BiasRules(mode=BiasMode.ENFORCE, window=5)
SANDBOX = Settings(venue_url="http://127.0.0.1:9100")
OTHER = SANDBOX.model_copy(update={"venue": "binanceusdm"})

opinion = st.tuples(
    st.sampled_from(list(Direction)),
    st.sampled_from([0.5, 0.55, 0.7, 0.9]),
    st.sampled_from([99.0, 100.0, 101.0]),
    st.sampled_from(["trending_calm", "ranging_wild"]),
)
candle = st.tuples(
    st.sampled_from(["1", "1", "1", "2"]), st.dictionaries(st.sampled_from(NAMES), opinion), st.integers(1, 2)
)


class Life:
    """One worker's supervisor, with the part of its journal that tells of it; what was found is kept in `events`."""

    def __init__(self, folder: Path, *, now_ms: int, chosen: Settings = SANDBOX) -> None:
        past = Past(Book())
        self.journal = JournalWriter.open(folder / "journal.jsonl", visit=past.visit)
        self.events: list[tuple[str, str]] = []
        self.now_ms = now_ms
        self.model = ""
        self._note("health.started", {"venue": chosen.venue, "mode": chosen.mode.value})
        self.supervisor = ModelSupervisor(
            RULES,
            POLICY,
            timeframe=Timeframe.M5,
            on_event=self._found,
            on_fact=self._note,
            remembered=past.opinions.remembered(self.journal.path, chosen, now_ms=now_ms),
        )

    def decide(self, scored: tuple, close_ms: int) -> None:
        """Take a candle through the supervisor and into the journal, as the worker does."""
        version, said, _ = scored
        self.now_ms = close_ms
        if version != self.model:
            self.model = version
            horizon = {"horizon": str(HORIZONS[version])}
            promised = PROMISED[version]
            self._note("model.loaded", {"version": version, "digest": DIGEST, **horizon, **promised})
            name = f"{version}:{DIGEST[:12]}"
            self.supervisor.hold_to(name, float(promised["promised"]) if promised else None)
        candidates = candidates_of(version, said)
        self.supervisor.watch(candidates, close_ms=close_ms, horizon=HORIZONS[version])
        snapshot = replace(make_snapshot(candidates, bias=self.supervisor.enforced), candle_close_ms=close_ms)
        self.journal.record(CandlesDecided.of(snapshot, POLICY, close_ms, ()), timestamp_ms=close_ms)

    @property
    def said(self) -> tuple:
        """All that others learn of the model from the supervisor."""
        seen = self.supervisor
        return seen.bias, seen.enforced, seen.quality, seen.evidence

    def _found(self, kind: str, detail: dict[str, str]) -> None:
        self.events.append((kind, str(sorted(detail.items()))))
        self._note(kind, detail)

    def _note(self, kind: str, detail: dict[str, str]) -> None:
        self.journal.record(Noted(event_type=kind, detail=detail), timestamp_ms=self.now_ms)


def candidates_of(version: str, said: dict) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(
            signal=make_signal(
                symbol,
                direction=side,
                probability=probability,
                regime=regime,
                model_version=f"{version}:{DIGEST[:12]}",
            ),
            atr=1.0,
            close=close,
            threshold=0.6,
        )
        for symbol, (side, probability, close, regime) in said.items()
    )


def closes_of(candles: list) -> list[int]:
    """Return when candles close: one after the other, now and then one is missing."""
    closes, at = [], T0
    for _, _, steps in candles:
        at += steps * STEP
        closes.append(at)
    return closes


@settings(deadline=None)
@given(st.lists(candle, min_size=1, max_size=40), st.data())
def test_a_restarted_supervisor_says_what_the_uninterrupted_one_says(candles, data):
    """Bias, what is enforced, quality and evidence are the same after every candle, and so is each event."""
    cuts = data.draw(st.sets(st.integers(0, len(candles)), max_size=3))
    closes = closes_of(candles)
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as cut:
        through, life = Life(Path(whole), now_ms=T0), Life(Path(cut), now_ms=T0)
        events = life.events
        for place, (scored, close_ms) in enumerate(zip(candles, closes, strict=True)):
            if place in cuts:
                life.journal.close()
                life = Life(Path(cut), now_ms=close_ms - 1)
                life.events = events
                assert life.said == through.said
            through.decide(scored, close_ms)
            life.decide(scored, close_ms)
            assert life.said == through.said

        assert events == through.events
        through.journal.close()
        life.journal.close()


def test_more_than_is_remembered_changes_nothing(tmp_path):
    """Of a journal that is longer than the memory the newest part is read, and it says the same."""
    sides = [Direction.LONG, Direction.LONG, Direction.SHORT]
    candles = [
        ("1", {NAMES[place % 3]: (sides[place // 3 % 3], 0.7, 100.0 + place % 7, "ranging_calm")}, 1)
        for place in range(CANDLES_KEPT + 40)
    ]
    through = Life(tmp_path, now_ms=T0)
    for scored, close_ms in zip(candles, closes_of(candles), strict=True):
        through.decide(scored, close_ms)
    through.journal.close()
    again = Life(tmp_path, now_ms=through.now_ms)

    assert again.said == through.said
    assert again.supervisor.quality.candles > 20
    again.journal.close()


@pytest.mark.parametrize("what", ["another venue", "time set back", "no horizon"])
def test_what_was_said_elsewhere_is_not_remembered(tmp_path, what):
    """A bias of another market, or of a time that is yet to come, is nobody's; and old journals know no horizon."""
    life = Life(tmp_path, now_ms=T0)
    if what == "no horizon":
        life.model = "1"
    closes = [T0 + place * STEP for place in range(1, 9)]
    for close_ms in closes:
        life.decide(("1", {NAMES[0]: (Direction.LONG, 0.7, 100.0 + close_ms % 7, "ranging_calm")}, 1), close_ms)
    life.journal.close()
    chosen = OTHER if what == "another venue" else SANDBOX
    again = Life(tmp_path, now_ms=T0 if what == "time set back" else closes[-1], chosen=chosen)

    assert life.supervisor.bias.is_bias
    if what == "no horizon":
        assert again.said == life.said
    else:
        assert (again.supervisor.bias, again.supervisor.quality, again.supervisor.evidence) == (None, None, None)
    again.journal.close()


def test_a_decision_of_another_version_keeps_nobody_from_starting(tmp_path):
    """What cannot be read is left out, and the watch goes on from what can."""
    life = Life(tmp_path, now_ms=T0)
    life.decide(("1", {NAMES[0]: (Direction.LONG, 0.7, 100.0, "wild")}, 1), T0)
    life.journal.close()
    path, strange = tmp_path / "journal.jsonl", tmp_path / "strange.jsonl"
    strange.write_bytes(path.read_bytes().replace(b'"direction":"LONG"', b'"direction":"UPWARD"'))
    known = Recollection().remembered(strange, SANDBOX, now_ms=T0)

    assert len(list(Recollection().remembered(path, SANDBOX, now_ms=T0).decided)) == 1
    assert list(known.decided) == []


def test_who_comes_back_to_a_venue_begins_afresh_there(tmp_path):
    """What was said before another venue was traded lies too far back, in the journal's decisions too."""
    lives = []
    for chosen in (SANDBOX, OTHER, SANDBOX):
        lives.append(Life(tmp_path, now_ms=T0 + 40 * STEP, chosen=chosen))
        if chosen is SANDBOX and len(lives) == 1:
            for place in range(8):
                lives[0].decide(("1", {NAMES[0]: (Direction.LONG, 0.7, 100.0 + place, "wild")}, 1), T0 + place * STEP)
        lives[-1].journal.close()

    assert lives[0].supervisor.bias.is_bias
    assert lives[2].said == lives[1].said == (None, UNSET, None, None)


def test_what_is_known_of_a_model_outlives_another(tmp_path):
    """Evidence against a version stays with it, whoever traded since."""
    life = Life(tmp_path, now_ms=T0)
    prices = [100.0, 101.0]
    for place in range(20):
        wrong = Direction.LONG if prices[place % 2] > 100 else Direction.SHORT
        said = {NAMES[0]: (wrong, 0.7, prices[place % 2], "ranging_calm")}
        life.decide(("2", said, 1), T0 + (place + 1) * STEP)
    before = life.supervisor.evidence
    life.decide(("1", {NAMES[0]: (Direction.LONG, 0.7, 100.0, "ranging_calm")}, 1), T0 + 21 * STEP)
    between = life.supervisor.evidence
    life.journal.close()
    again = Life(tmp_path, now_ms=life.now_ms)
    again.decide(("2", {NAMES[0]: (Direction.LONG, 0.7, 101.0, "ranging_calm")}, 1), T0 + 22 * STEP)

    assert before.evidence > 10
    assert between == QualityEvidence(promised=0.58)
    assert again.supervisor.evidence.outcomes == before.outcomes + 1
    again.journal.close()


@settings(deadline=None)
@given(st.lists(st.binary(max_size=12).map(lambda raw: raw.replace(b"\n", b"")), max_size=12), st.booleans())
def test_lines_read_backwards_are_those_read_forwards(lines, torn):
    """Whatever the lines are, and where blocks end, each whole line is found at the place where it begins."""
    content = b"".join(line + b"\n" for line in lines) + (b"torn" if torn else b"")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lines"
        path.write_bytes(content)
        found = list(newest_lines(path, at_once=5))

        assert [line for _, line in found] == list(whole_lines(path))[::-1]
        assert all(content[place : place + len(line)] == line for place, line in found)
        assert list(newest_lines(path.with_name("missing"))) == []


def test_what_was_left_for_being_poor_is_known_after_a_start(tmp_path):
    """It is not left twice, unless it recovered meanwhile; another venue's or mode's word does not count."""

    def left_after(*noted: tuple[str, dict[str, str]]) -> frozenset[str]:
        with tempfile.TemporaryDirectory() as folder:
            life = Life(Path(folder), now_ms=T0)
            for kind, detail in noted:
                life._note(kind, detail)
            life.journal.close()
            past = Past(Book())
            JournalWriter.open(life.journal.path, visit=past.visit).close()
            return past.opinions.remembered(life.journal.path, SANDBOX, now_ms=T0).left

    fell = ("model.fell_back", {"model": "2:bbbbbbbbbbbb", "to": ""})
    recovered = ("model.quality_recovered", {"model_version": "2:bbbbbbbbbbbb"})
    moved = ("health.started", {"venue": "elsewhere", "mode": "live"})

    assert left_after(fell) == {"2:bbbbbbbbbbbb"}
    assert left_after(fell, recovered) == frozenset()
    assert left_after(fell, recovered, fell) == {"2:bbbbbbbbbbbb"}
    assert left_after(fell, moved) == frozenset()


def test_a_journal_from_before_promises_is_held_to_one_from_its_next_start():
    """What was counted of a model stays as it was; its promise is bet on from where it is first told."""
    later = {"version": "1", "digest": DIGEST, "horizon": "3", "promised": "0.7"}
    name = f"1:{DIGEST[:12]}"
    seen = Recollection()
    for place in range(30):
        matured = {
            "model_version": name, "said_ms": str(place), "due_ms": str(place + 1), "right": "0.55",
            "stated": "0.55", "brier": "0.25", "rose": "0.5",
        }  # fmt: skip
        seen.visit(Noted(event_type="model.opinions_matured", detail=matured), place)
    before = seen.evidence[name]
    for _ in range(2):
        seen.visit(Noted(event_type="model.loaded", detail=later), 31)

    assert before.promised is None
    assert seen.evidence[name].promised == 0.7
    assert seen.evidence[name].evidence == pytest.approx(before.evidence)
    assert seen.evidence[name].hit_bets == before.hit_bets
