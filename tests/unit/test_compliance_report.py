"""What the journal says to whoever supervises: every approval, rule, refusal, stop and correction, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest

from inference.bootstrap.policy_parts import read_charter
from inference.cli import run
from inference.domain.decision import Denied, DenyCode
from inference.domain.errors import PolicyError
from inference.domain.events import CandlesDecided, Noted
from inference.domain.policy import Policy
from inference.domain.supervised import SECTIONS
from inference.governance.charter import Charter, charter_of, stated
from inference.governance.roles import audit
from inference.journal.reader import read_entries
from inference.journal.writer import JournalWriter
from inference.supervision.committee_watch import briefing_of
from inference.telemetry.compliance_command import report_of
from tests.worker_values import T0, make_snapshot

NOTED = {
    "model.verdict": {"version": "3", "verdict": "passed"},
    "model.approved": {"version": "3", "by": "ada"},
    "policy.updated": {"version": "2", "author": "ada", "reason": "less", "changes": "leverage: 3 -> 2"},
    "risk.limit_exceeded": {"limit": "max_daily_drawdown"},
    "risk.emergency": {"key": "k", "evaluator": "manual", "reason": "a test", "by": "ada"},
    "risk.emergency_reset": {"stops": "k", "reason": "over"},
    "risk.corrected": {"symbol": "BTC/USDT:USDT", "action": "position_adopted"},
    "health.anchor_failed": {"file": "/mnt/a", "reason": "gone"},
    "market.candles_late": {"symbols": "ETH"},
}


@pytest.fixture
def journal(tmp_path):
    """Return the path of a journal with one entry of each kind, a minute apart."""
    path = tmp_path / "journal" / "journal.jsonl"
    path.parent.mkdir()
    denied = [
        Denied(symbol="BTC/USDT:USDT", code=DenyCode.SYMBOL_NOT_ALLOWED, context={"list": "denied"}),
        Denied(symbol="ETH/USDT:USDT", code=DenyCode.MAX_POSITIONS, context={}),
        Denied(symbol="ETH/USDT:USDT", code=DenyCode.CONFIDENCE_BELOW_THRESHOLD, context={}),
    ]
    with JournalWriter.open(path) as writer:
        for place, (kind, detail) in enumerate(NOTED.items()):
            writer.record(Noted(event_type=kind, detail=detail), timestamp_ms=T0 + place * 60_000)
        for place in range(2):
            decided = CandlesDecided.of(make_snapshot(()), Policy(), T0, denied)
            writer.record(decided, timestamp_ms=T0 + (20 + place) * 60_000)
    return path


def test_the_report_has_every_entry_that_supervision_asks_for(journal, capsys):
    """Each in its part with its words, refusals counted by rule, and nothing of signals or of the market."""
    assert run(["audit", "compliance", "--journal", str(journal), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    parts = {part: [one["type"] for one in listed] for part, listed in told["parts"].items()}

    assert told["is_whole"]
    assert (told["entries"], told["decisions"]) == (11, 2)
    assert set(parts) == set(SECTIONS)
    assert sorted(one for kinds in parts.values() for one in kinds) == sorted(set(NOTED) - {"market.candles_late"})
    assert told["parts"]["policy"][0]["detail"]["author"] == "ada"
    assert [(one["code"], one["by"], one["count"], one["symbols"]) for one in told["refusals"]] == [
        ("MAX_POSITIONS", "limit", 2, 1),
        ("SYMBOL_NOT_ALLOWED", "list", 2, 1),
    ]


def test_the_report_for_people_says_the_same(journal, capsys):
    """Every part has its line, also one that is empty."""
    assert run(["audit", "compliance", "--journal", str(journal), "--since", "2100-01-01T00:00"]) == 0
    empty = capsys.readouterr().out
    assert run(["audit", "compliance", "--journal", str(journal)]) == 0
    whole = capsys.readouterr().out

    assert all(f"{part}: none" in empty for part in SECTIONS)
    assert all(f"{part}: none" not in whole for part in SECTIONS)
    assert "author=ada, changes=leverage: 3 -> 2, reason=less" in whole


def test_a_stretch_begins_where_it_is_asked_to(journal):
    """Entries of before are not counted; the whole is the sum of its stretches."""
    entries = list(read_entries(journal))
    late = report_of(entries, since_ms=T0 + 4 * 60_000)
    early = report_of([one for one in entries if one.timestamp_ms < T0 + 4 * 60_000])

    assert late.entries + early.entries == report_of(entries).entries
    assert [one.type for one in late.parts["approvals"]] == []
    assert [one.type for one in late.parts["stops"]] == ["risk.emergency", "risk.emergency_reset"]


def test_a_damaged_journal_and_no_moment_are_said(journal, capsys):
    """A changed byte is in the report, with status 1; what is no moment has status 2."""
    damaged = journal.read_bytes().replace(b'"author":"ada"', b'"author":"eve"')
    journal.write_bytes(damaged)

    assert run(["audit", "compliance", "--journal", str(journal), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["damage"].startswith("entry 3: ")
    assert run(["audit", "compliance", "--journal", str(journal), "--since", "soon"]) == 2
    assert "2026-03-01T12:00" in capsys.readouterr().err


def test_a_charter_file_says_by_which_numbers_is_voted(tmp_path):
    """What it names is set, exactly; the rest stays; the journal tells all of it."""
    file = tmp_path / "charter.toml"
    file.write_text("careful_loss = 0.3\nspread = 2\nunsynced = 5\n")
    charter = read_charter(file)

    assert charter == replace(Charter(), careful_loss=Decimal("0.3"), spread=Decimal(2), unsynced=5)
    assert read_charter(None) == Charter()
    assert stated(charter)["careful_loss"] == "0.3"
    assert set(stated(charter)) == set(Charter.__dataclass_fields__)


@pytest.mark.parametrize(
    "text",
    [
        "carefull_loss = 0.3",
        "careful_loss = 'much'",
        "careful_loss = 3",
        "unsynced = 1.5",
        "spread = true",
        "spread = nan",
        "majority = inf",
        "= 1",
    ],
)
def test_a_charter_that_is_none_is_refused(text):
    """A name that no charter has, what is no number, and what is out of bounds: each with the reason."""
    with pytest.raises(PolicyError, match=r"[Cc]harter"):
        charter_of(text)


def test_a_charter_that_is_not_there_is_refused(tmp_path):
    """The error names the file and the setting."""
    with pytest.raises(PolicyError, match="QT_CHARTER"):
        read_charter(tmp_path / "none.toml")


def test_audit_hears_of_a_journal_that_is_broken():
    """A writer that was closed by a failure makes audit veto every entry; a sound one does not."""

    class NoBook:
        def positions(self):
            return {}

        def in_flight(self):
            return {}

    votes = {
        is_whole: audit(
            briefing_of(
                Policy(), account=make_snapshot(()).account, book=NoBook(), candidates=(), real_money=False,
                is_whole=is_whole, unsynced=0, reproduced=True, model=None, others=None,
            ),
            Charter(),
        )
        for is_whole in (True, False)
    }  # fmt: skip

    assert votes[True].vetoes == {}
    assert votes[False].because == ("the journal is not whole",)
