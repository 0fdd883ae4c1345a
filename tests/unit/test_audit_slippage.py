from __future__ import annotations

import json
from decimal import Decimal

import pytest

from inference.cli import run
from inference.domain.errors import PolicyError
from inference.domain.events import FillBooked
from inference.domain.order import Fill, OrderType, Side
from inference.domain.policy import EntryStyle, Policy
from inference.journal.writer import JournalWriter
from inference.policy.policy_file import policy_text, read_policy
from inference.telemetry.slippage_command import slippage_rows


def booked(number: int, client_order_id: str, *, price: str, maker: bool = False, **named) -> FillBooked:
    fill = Fill(
        fill_id=str(number),
        client_order_id=client_order_id,
        venue_order_id="1",
        symbol="BTC/USDT:USDT",
        side=Side.BUY,
        quantity=Decimal(1),
        price=Decimal(price),
        fee=Decimal(0),
        is_maker=maker,
        event_time_ms=1,
    )
    return FillBooked(fill=fill, **named)


@pytest.fixture
def journal(tmp_path):
    """Return the path of a journal with executions of several kinds."""
    path = tmp_path / "journal" / "journal.jsonl"
    path.parent.mkdir()
    events = [
        booked(1, "qt-a-E1", price="100", order_type=OrderType.MARKET, slippage=Decimal("0.0002")),
        booked(2, "qt-a-E1", price="300", order_type=OrderType.MARKET, slippage=Decimal("0.0006")),
        booked(2, "qt-a-E1", price="300", order_type=OrderType.MARKET, slippage=Decimal("0.0006")),
        booked(3, "qt-b-E1", price="100", maker=True, order_type=OrderType.LIMIT, slippage=Decimal("-0.0001")),
        booked(4, "qt-a-X1", price="100", order_type=OrderType.MARKET),
        booked(5, "qt-c-S1", price="100"),
    ]
    with JournalWriter.open(path) as writer:
        for event in events:
            writer.record(event, timestamp_ms=1)
    return path


def test_slippage_is_told_by_purpose_and_type(journal, capsys):
    """Weighed by what was traded, each execution once, and what is not known said."""
    assert run(["audit", "slippage", "--journal", str(journal), "--json"]) == 0
    rows = {(one["purpose"], one["order_type"]): one for one in json.loads(capsys.readouterr().out)["rows"]}

    market = rows["ENTRY", "MARKET"]
    assert (market["fills"], market["known"]) == (2, 2)
    assert market["mean_bp"] == pytest.approx(5.0)
    assert market["worst_bp"] == pytest.approx(6.0)
    assert rows["ENTRY", "LIMIT"]["maker_share"] == 1.0
    assert rows["ENTRY", "LIMIT"]["mean_bp"] == pytest.approx(-1.0)
    assert rows["EXIT", "MARKET"]["mean_bp"] is None
    # A journal of an earlier version tells no type.
    assert rows["STOP", "not noted"]["known"] == 0


def test_slippage_is_a_table_for_people(journal, capsys):
    """The same, to be read."""
    assert run(["audit", "slippage", "--journal", str(journal)]) == 0
    out = capsys.readouterr().out
    assert "+5.00" in out
    assert "unknown" in out


def test_slippage_of_no_journal_is_an_error(tmp_path, capsys):
    """What is not there is said; an empty journal has no rows."""
    assert run(["audit", "slippage", "--journal", str(tmp_path / "none.jsonl")]) == 1
    assert "no journal" in capsys.readouterr().err
    assert slippage_rows([]) == []


@pytest.mark.parametrize("style", list(EntryStyle))
def test_a_style_survives_its_file(tmp_path, style):
    """A policy with a style is read back as it was written."""
    policy = Policy(entry_style=style, entry_patience_seconds=7)
    path = tmp_path / "policy.toml"
    path.write_text(policy_text(policy))

    assert read_policy(path) == policy


@pytest.mark.parametrize(
    "line", ['entry_style = "iceberg"', "entry_style = 3", "entry_style = true", "entry_patience_seconds = 0"]
)
def test_a_style_that_there_is_not_is_refused(tmp_path, line):
    """An unknown style names those that there are."""
    path = tmp_path / "policy.toml"
    path.write_text(line)

    with pytest.raises(PolicyError, match="entry_"):
        read_policy(path)


def test_the_default_style_changes_no_fingerprint():
    """What was decided under a policy of before is decided under the same one now."""
    assert Policy(entry_patience_seconds=5).fingerprint == Policy().fingerprint
    assert Policy(entry_style=EntryStyle.LIMIT).fingerprint != Policy().fingerprint
    resting = [Policy(entry_style=EntryStyle.LIMIT, entry_patience_seconds=one).fingerprint for one in (5, 6)]
    assert len(set(resting)) == 2
