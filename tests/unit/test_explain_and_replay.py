"""One trade's whole story, and every decision made again: from the journal alone."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pytest

from feature_store.features.definition import fingerprint
from feature_store.features.live import LatestFeatures
from inference import decision_commands as commands
from inference.decision import decide
from inference.domain.decision import Denied
from inference.domain.errors import JournalError
from inference.domain.events import CandlesDecided, Event, OrderIntended, SignalExplained, TradePlanned
from inference.domain.order import OrderIntent, OrderType, Purpose, Side
from inference.domain.policy import EntryStyle, Policy
from inference.execution.planning import trade_plan
from inference.journal.codec import entry_of, event_of, line_of
from inference.journal.reader import read_entries
from inference.journal.writer import JournalWriter
from inference.models.bundle import load_bundle
from inference.models.contributions import contributions, largest
from inference.models.manifest import RETURNS_INPUT
from inference.supervision.explaining import Explainer, explained
from inference.supervision.model_watch import ActiveModel
from tests.worker_bundle import make_bundle
from tests.worker_values import T0, make_approved, make_candidate, make_snapshot

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"


@pytest.fixture
def recorded(tmp_path):
    """Return a journal with one candle's decisions, the trade that followed and why."""
    policy = Policy()
    snapshot = make_snapshot((make_candidate(BTC), make_candidate(ETH, probability=0.55)))
    decisions = decide(snapshot, policy, T0)
    approval = next(one for one in decisions if not isinstance(one, Denied))
    plan = trade_plan(
        approval, candle_close_ms=T0, now_ms=T0, style=EntryStyle.MARKET, patience_ms=0, arrival_price=None
    )
    intent = OrderIntent(
        client_order_id="order-1",
        trade_id=plan.trade_id,
        trace_id=plan.trace_id,
        symbol=BTC,
        side=Side.BUY,
        order_type=OrderType.MARKET,
        purpose=Purpose.ENTRY,
        quantity=approval.quantity,
    )
    told = SignalExplained(
        trace_id=plan.trace_id,
        symbol=BTC,
        inputs={"rsi_14": 71.5, "atr_14": 3.0},
        parts={"ensemble": {"rsi_14": 0.004}, "xgboost": {"atr_14": -0.001, "rsi_14": 0.005}},
    )
    path = tmp_path / "journal.jsonl"
    events: list[Event] = [
        CandlesDecided.of(snapshot, policy, T0, decisions),
        told,
        TradePlanned(plan=plan),
        OrderIntended(intent=intent),
    ]
    with JournalWriter.open(path) as journal:
        for event in events:
            trace = "" if isinstance(event, CandlesDecided) else plan.trace_id
            journal.record(event, timestamp_ms=T0, trace_id=trace)
    return SimpleNamespace(path=path, plan=plan, told=told)


@pytest.mark.parametrize("name", ["trade", "order", "trace", "symbol"])
def test_a_trade_is_told_whole(recorded, capsys, name):
    """By whatever name it is asked for: candle, guards with their numbers, what the inputs did, what was sent."""
    subject = {"trade": recorded.plan.trade_id, "order": "order-1", "trace": recorded.plan.trace_id, "symbol": BTC}[
        name
    ]

    assert commands.explain_trade(subject, journal=recorded.path) == 0
    said = capsys.readouterr().out

    places = [
        said.find(one) for one in ("candle that closed", "CONFIDENCE_BELOW_THRESHOLD", "+0.004000", "was planned")
    ]
    assert -1 not in places
    assert places == sorted(places)


def test_guards_tell_the_numbers(recorded, capsys):
    """As JSON: each guard in the chain's order, what was found and what was asked for."""
    assert commands.explain_trade(recorded.plan.trade_id, journal=recorded.path, json=True) == 0
    document = json.loads(capsys.readouterr().out)

    guards = {one["name"]: (one["found"], one["asked"]) for one in document["guards"]}
    assert list(guards)[:2] == ["TRADING_STATE", "DAILY_DRAWDOWN"]
    assert guards["CONFIDENCE_BELOW_THRESHOLD"] == ("0.8000", "at least 0.6000")
    assert guards["MAX_POSITIONS"] == ("0", "fewer than 20")
    assert guards["risk at the stop"][1] == "at most 100.0000"
    assert document["explained"]["parts"]["xgboost"] == {"atr_14": -0.001, "rsi_14": 0.005}
    assert [one["type"] for one in document["events"]] == ["signal.explained", "trade.planned", "trade.order_intended"]


def test_a_refusal_ends_the_guards(recorded, capsys):
    """What comes after the guard that refused was not asked, and is not told."""
    assert commands.explain_trade(ETH, journal=recorded.path, json=True) == 0
    document = json.loads(capsys.readouterr().out)

    assert document["outcome"] == "CONFIDENCE_BELOW_THRESHOLD"
    assert [one["name"] for one in document["guards"]][-2:] == ["STALE_DATA", "CONFIDENCE_BELOW_THRESHOLD"]
    assert "confidence 0.55" in document["guards"][-1]["found"]


def test_what_nobody_knows_is_an_error(recorded, tmp_path):
    """The message says where names are found; a journal that is not there is named."""
    with pytest.raises(JournalError, match="audit trades"):
        commands.explain_trade("no-such-trade", journal=recorded.path)
    with pytest.raises(JournalError, match=r"none\.jsonl"):
        commands.explain_trade(BTC, journal=tmp_path / "none.jsonl")


def test_replay_is_identical_and_says_so(recorded, capsys):
    """Every candle decided again comes out as it was recorded."""
    assert commands.replay_journal(journal=recorded.path) == 0
    assert "1 of 1 candles decided again are identical" in capsys.readouterr().out


def test_a_forged_answer_is_shown(tmp_path, capsys):
    """An answer that today's code does not give is status 1, with what was and what is."""
    snapshot, policy = make_snapshot(), Policy()
    with JournalWriter.open(tmp_path / "j.jsonl") as journal:
        journal.record(CandlesDecided.of(snapshot, policy, T0, ()), timestamp_ms=T0)

    assert commands.replay_journal(journal=tmp_path / "j.jsonl") == 1
    assert "Entry 1 comes out differently: approved was None" in capsys.readouterr().out
    assert commands.replay_journal(journal=tmp_path / "j.jsonl", json=True) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["decided"], document["identical"]) == (1, 0)
    assert document["deviations"][0]["replayed"]["approved"]


def test_another_policy_shows_what_would_differ(recorded, tmp_path, capsys):
    """With other rules: what each symbol would have got instead, by which numbers, and how many of all."""
    stricter = tmp_path / "stricter.toml"
    stricter.write_text("confidence_threshold = 0.9\n")

    assert commands.replay_journal(journal=recorded.path, policy=stricter) == 0
    said = capsys.readouterr().out
    assert f"{BTC}    APPROVED (direction LONG" in said
    assert "CONFIDENCE_BELOW_THRESHOLD (direction LONG, confidence 0.8, threshold 0.9)" in said
    assert "2 of 2 answers differ" in said
    assert commands.replay_journal(journal=recorded.path, policy=stricter, json=True) == 0
    differences = json.loads(capsys.readouterr().out)["differences"]
    assert [(one["symbol"], one["before"], one["after"]) for one in differences] == [
        (BTC, "APPROVED", "CONFIDENCE_BELOW_THRESHOLD"),
        (ETH, "CONFIDENCE_BELOW_THRESHOLD", "CONFIDENCE_BELOW_THRESHOLD"),
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return a bundle's model with rows that it can be asked with."""
    bundle = load_bundle(make_bundle(tmp_path_factory.mktemp("made") / "b"), expected_fingerprint=fingerprint())
    rng = np.random.default_rng(3)
    width = len(bundle.manifest.model_inputs)
    windows = rng.normal(size=(1, 64, width)).astype(np.float32)
    latest = LatestFeatures(
        symbols=(BTC,),
        open_time_ms=np.array([T0], np.int64),
        model_inputs=windows[:, -1].copy(),
        windows=windows,
        returns=rng.normal(0, 0.001, (1, 64)),
        ready=np.array([True]),
    )
    return ActiveModel(bundle=bundle, version="1", gated=False, source="test"), latest


def test_parts_are_differences_of_answers(model):
    """An input's part is the answer less the one with that input at its mean; inputs that nobody reads have none."""
    active, latest = model
    bundle = active.bundle
    parts = contributions(bundle, latest.model_inputs, latest.windows, latest.returns)
    answer = bundle.score(latest.model_inputs, latest.windows, latest.returns.astype(np.float32))

    assert set(parts) == {*answer.members, "ensemble"}
    for member, found in parts.items():
        values = answer.expected_return if member == "ensemble" else answer.members[member]
        for name, part in found.items():
            rows, windows = latest.model_inputs.copy(), latest.windows.copy()
            returns = latest.returns.astype(np.float32)
            if name == RETURNS_INPUT:
                returns = np.zeros_like(returns)
            else:
                column = bundle.manifest.model_inputs.index(name)
                rows[0, column] = windows[0, :, column].astype(np.float64).mean()
                windows[0, :, column] = rows[0, column]
            other = bundle.score(rows, windows, returns)
            other_values = other.expected_return if member == "ensemble" else other.members[member]
            assert part == pytest.approx(float(values[0] - other_values[0]), abs=1e-9)
    assert any(parts.values())


def test_the_largest_come_first():
    """By size, whatever the sign; equal ones by name."""
    assert list(largest({"a": 0.1, "b": -0.3, "c": 0.1, "d": 0.0}, 3)) == ["b", "a", "c"]


def test_approvals_are_explained_beside_the_trading(model):
    """Events survive the journal's text; one that fails is left out, and no candle waits for the one before."""
    active, latest = model
    told: list[SignalExplained] = []

    async def run() -> None:
        explainer = Explainer(told.append)
        explainer.explain(active, latest, [make_approved(ETH), make_approved(BTC)])
        explainer.explain(active, latest, [make_approved(BTC)])
        await explainer.stop()

    asyncio.run(run())

    # ETH has no row, and what came while BTC was explained is not.
    assert [one.symbol for one in told] == [BTC]
    assert told[0].trace_id == f"trace-{BTC}"
    assert set(told[0].inputs) == set(active.bundle.manifest.model_inputs)


def test_an_explanation_is_read_back(model, tmp_path):
    """What is journaled of it is what was told."""
    active, latest = model
    event = explained(active, latest, make_approved(BTC, quantity=str(Decimal("0.04"))))
    with JournalWriter.open(tmp_path / "j.jsonl") as journal:
        entry = journal.record(event, timestamp_ms=T0, trace_id=event.trace_id)

    assert event_of(entry_of(line_of(entry))) == event
    assert [one.type for one in read_entries(tmp_path / "j.jsonl")] == ["signal.explained"]
