"""`qtctl` offers what runs here, reads the journal in words, and says what is wrong in a sentence."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from inference import cli
from inference.decision import decide
from inference.domain.decision import Approved, Denied
from inference.domain.events import (
    CandlesDecided,
    Event,
    FillBooked,
    Noted,
    OrderIntended,
    OrderReported,
    TradeClosed,
    TradePlanned,
)
from inference.domain.order import Fill, OrderIntent, OrderReport, OrderStatus, OrderType, Purpose, Side
from inference.domain.policy import Policy
from inference.domain.trade import ExitReason, TradePlan, TradeResult
from inference.journal.writer import JournalWriter
from tests.worker_bundle import make_bundle
from tests.worker_values import T0, make_candidate, make_snapshot

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
TRACE = f"trace-{BTC}"


@pytest.fixture
def home(tmp_path):
    """Return a home whose journal holds one decision, one trade and its end."""
    path = tmp_path / "journal" / "journal.jsonl"
    policy = Policy()
    snapshot = make_snapshot((make_candidate(BTC), make_candidate(ETH, probability=0.55)))
    decisions = decide(snapshot, policy, T0)
    approved = tuple(one for one in decisions if isinstance(one, Approved))
    denied = tuple(one for one in decisions if isinstance(one, Denied))
    assert [one.symbol for one in approved] == [BTC]
    with JournalWriter.open(path) as journal:
        journal.record(Noted(event_type="health.started", detail={"mode": "sandbox"}), timestamp_ms=T0)
        decided = CandlesDecided(now_ms=T0, policy=policy, snapshot=snapshot, approved=approved, denied=denied)
        journal.record(decided, timestamp_ms=T0)
        for event in _trade(approved[0]):
            journal.record(event, timestamp_ms=T0 + 10, trace_id=TRACE)
    return tmp_path


def _trade(approved: Approved) -> list[Event]:
    plan = TradePlan(
        trade_id="t1",
        trace_id=TRACE,
        symbol=BTC,
        direction=approved.direction,
        quantity=approved.quantity,
        reference_price=approved.reference_price,
        stop_price=approved.stop_price,
        target_price=approved.target_price,
        risk=approved.risk,
        confidence=0.8,
        model_version="1",
        candle_close_ms=T0,
        planned_at_ms=T0,
    )
    intent = OrderIntent(
        client_order_id="qt-t1-E1",
        trade_id="t1",
        trace_id=TRACE,
        symbol=BTC,
        side=Side.BUY,
        order_type=OrderType.MARKET,
        purpose=Purpose.ENTRY,
        quantity=approved.quantity,
    )
    report = OrderReport(
        client_order_id="qt-t1-E1",
        venue_order_id="1",
        symbol=BTC,
        status=OrderStatus.FILLED,
        filled=approved.quantity,
        average_price=Decimal(50_005),
        event_time_ms=T0,
    )
    fill = Fill(
        fill_id="9",
        client_order_id="qt-t1-E1",
        venue_order_id="1",
        symbol=BTC,
        side=Side.BUY,
        quantity=approved.quantity,
        price=Decimal(50_005),
        fee=Decimal("0.5"),
        is_maker=False,
        event_time_ms=T0,
    )
    result = TradeResult(
        symbol=BTC,
        direction=approved.direction,
        reason=ExitReason.TARGET,
        quantity=approved.quantity,
        entry_price=Decimal(50_005),
        exit_price=Decimal(50_400),
        pnl=Decimal("12.5"),
        fees=Decimal("1.5"),
        opened_at_ms=T0,
        closed_at_ms=T0 + 10,
        fills_complete=True,
    )
    return [
        TradePlanned(plan=plan),
        OrderIntended(intent=intent),
        OrderReported(report=report),
        FillBooked(fill=fill),
        TradeClosed(trade_id="t1", result=result),
    ]


def qtctl(capsys, *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process and return its status and what it wrote."""
    status = cli.run(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_help_lists_the_commands_of_this_part(capsys):
    """`qtctl --help` names the worker's commands, each with a line."""
    status, out, _ = qtctl(capsys, "--help")

    assert status == 0
    assert all(name in out for name in ("worker", "audit", "models"))


@pytest.mark.parametrize("command", ["worker", "audit", "models"])
def test_help_teaches_by_example(capsys, command):
    """Each command's help shows how it is called."""
    status, out, _ = qtctl(capsys, command, "--help")

    assert status == 0
    assert f"qtctl {command}" in out


def test_bad_usage_is_status_two(capsys):
    """A command or an option that does not exist is bad usage."""
    assert qtctl(capsys, "nonsense")[0] == 2
    assert qtctl(capsys, "audit", "tail", "--nonsense")[0] == 2


def test_command_whose_packages_are_missing_is_not_offered(capsys, monkeypatch):
    """A light install offers what it can run, and says what the rest would need."""
    paths = {"worker": "inference.commands:worker", "train": "no_such_package.commands:train"}
    monkeypatch.setattr(cli, "command_paths", lambda: dict(paths))

    status, out, _ = qtctl(capsys, "--help")
    assert status == 0
    assert "│ train" not in out

    status, _, error = qtctl(capsys, "train")
    assert status == 2
    assert "not offered" in error


def test_verify_tells_whole_from_damaged(capsys, home):
    """A whole journal is status 0; one changed character is status 1 and names the entry."""
    status, out, _ = qtctl(capsys, "audit", "verify", "--home", str(home))
    assert status == 0
    assert out.startswith("Whole: 7 entries")

    path = home / "journal" / "journal.jsonl"
    path.write_text(path.read_text().replace('"pnl":"12.5"', '"pnl":"99.5"'))
    status, out, _ = qtctl(capsys, "audit", "verify", "--home", str(home), "--json")

    assert status == 1
    assert json.loads(out)["finding"]["seq"] == 7


def test_missing_journal_is_one_sentence(capsys, tmp_path):
    """Without a journal every question fails with the path that was looked at."""
    status, _, error = qtctl(capsys, "audit", "trades", "--home", str(tmp_path))

    assert status == 1
    assert str(tmp_path) in error


def test_trades_sum_up(capsys, home):
    """Every closed trade is listed with its money, and the sums agree."""
    status, out, _ = qtctl(capsys, "audit", "trades", "--home", str(home), "--json")
    document = json.loads(out)

    assert status == 0
    assert document["count"] == 1
    assert (document["pnl"], document["fees"]) == ("12.5", "1.5")
    assert document["trades"][0]["result"]["reason"] == "TARGET"
    assert "12.5" in qtctl(capsys, "audit", "trades", "--home", str(home))[1]


def test_tail_shows_the_newest_entries(capsys, home):
    """The newest entries come last, as many as were asked for."""
    _, out, _ = qtctl(capsys, "audit", "tail", "--lines", "2", "--home", str(home))

    lines = out.strip().splitlines()
    assert len(lines) == 2
    assert "trade.closed" in lines[-1]


@pytest.mark.parametrize("subject", [BTC, TRACE], ids=["symbol", "trace"])
def test_why_tells_the_story_of_an_approval(capsys, home, subject):
    """From the candle over the model's words and the venue's to the money, in order."""
    status, out, _ = qtctl(capsys, "audit", "why", subject, "--home", str(home))

    assert status == 0
    expected = ["candle that closed", "confidence 0.8", "Approved: LONG", "was intended", "FILLED", "12.5 after fees"]
    positions = [out.find(words) for words in expected]
    assert -1 not in positions
    assert positions == sorted(positions)


def test_why_names_the_refusal_with_its_numbers(capsys, home):
    """A denied candidate has its code and what was compared."""
    status, out, _ = qtctl(capsys, "audit", "why", ETH, "--home", str(home))

    assert status == 0
    assert "CONFIDENCE_BELOW_THRESHOLD" in out
    assert "0.55" in out


def test_why_of_the_unknown_is_status_one(capsys, home):
    """What the journal never decided on is said so."""
    status, _, error = qtctl(capsys, "audit", "why", "NOPE/USDT:USDT", "--home", str(home))

    assert status == 1
    assert "NOPE/USDT:USDT" in error


def test_models_lists_shows_and_verifies(capsys, tmp_path):
    """Kept bundles are listed, shown by the first digits of their digest, and checked as the worker checks them."""
    made = make_bundle(tmp_path / "made")
    status, out, _ = qtctl(capsys, "models", "verify", str(made), "--json")
    digest = json.loads(out)["digest"]
    made.rename(_folder(tmp_path / "bundles") / digest)

    assert status == 0
    assert digest in qtctl(capsys, "models", "ls", "--home", str(tmp_path), "--json")[1]
    assert "xgboost" in qtctl(capsys, "models", "show", digest[:8], "--home", str(tmp_path))[1]
    assert qtctl(capsys, "models", "show", "ffff", "--home", str(tmp_path))[0] == 2


def test_models_verify_refuses_a_flipped_byte(capsys, tmp_path):
    """A bundle with one wrong byte is an error that names the file."""
    made = make_bundle(tmp_path / "made")
    content = bytearray((made / "xgboost.ubj").read_bytes())
    content[-1] ^= 1
    (made / "xgboost.ubj").write_bytes(content)

    status, _, error = qtctl(capsys, "models", "verify", str(made))

    assert status == 1
    assert "xgboost.ubj" in error


def _folder(path):
    path.mkdir()
    return path
