"""Workers of one desk hear each other through files, and whoever is not heard counts as silent."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import ValidationError

from inference.domain.governance import Stance
from inference.governance.federation import View, write_view
from inference.settings import Settings
from inference.supervision.federation_watch import Desk, FederationWatch

NOW = 1_800_000_000_000
HUGE = b'{"worker":"c","said_ms":1,"stance":"NORMAL","equity":"9E+999999","notional":{}}'


class Member:
    """One worker of a desk of three."""

    def __init__(self, folder: Path, own: str, *, fresh_seconds: float = 60) -> None:
        self.noted: list[dict[str, str]] = []
        self.now_ms = NOW
        self.stance: Stance | None = Stance.NORMAL
        self.watch = FederationWatch(
            Desk(folder=folder, own=own, members=("a", "b", "c"), fresh_seconds=fresh_seconds),
            view=lambda: None if self.stance is None else view(own, self.stance, self.now_ms),
            note=lambda _, detail: self.noted.append(dict(detail)),
            wall_ms=lambda: self.now_ms,
        )


def view(worker: str, stance: Stance, said_ms: int) -> View:
    return View(worker=worker, said_ms=said_ms, stance=stance, equity=Decimal(100), notional={"BTC": Decimal(7)})


async def test_workers_hear_what_the_others_do(tmp_path):
    """Stances, accounts and what is carried by the others; oneself is not counted, and each change told once."""
    one, two = Member(tmp_path, "a"), Member(tmp_path, "b")
    two.stance = Stance.EXITS_ONLY

    await two.watch.exchange()
    await one.watch.exchange()
    await one.watch.exchange()

    found = one.watch.others
    assert (found.expected, found.heard, found.exits_only, found.equity) == (2, 1, 1, Decimal(100))
    assert found.notional == {"BTC": Decimal(7)}
    assert one.noted == [{"heard": "1", "expected": "2", "trouble": ""}]
    assert two.noted == [{"heard": "0", "expected": "2", "trouble": ""}]


async def test_who_falls_silent_is_not_heard_any_more(tmp_path):
    """An old view says nothing, nor does one from the future; the journal has it when it changes."""
    one = Member(tmp_path, "a")
    write_view(tmp_path, view("b", Stance.NORMAL, NOW))
    write_view(tmp_path, view("c", Stance.NORMAL, NOW + 3_600_000))
    await one.watch.exchange()
    assert one.watch.others.heard == 1

    one.now_ms += 61_000
    # Though nothing was read again: a folder that hangs keeps nobody's word fresh.
    assert one.watch.others.heard == 0
    await one.watch.exchange()
    assert [detail["heard"] for detail in one.noted] == ["1", "0"]


async def test_nobody_is_heard_before_anything_was_read(tmp_path):
    """A worker that does not know its account yet says nothing of itself."""
    one = Member(tmp_path / "later", "a")
    one.stance = None
    assert (one.watch.others.expected, one.watch.others.heard) == (2, 0)

    await one.watch.exchange()
    assert not (tmp_path / "later").exists()
    assert one.watch.others.heard == 0


@pytest.mark.parametrize("content", [b"{", b"null", b'{"worker":"c"}', b"\xff\xfe", b"9" * 3_000_000])
async def test_files_that_hold_no_view_are_named(tmp_path, content):
    """Whoever wrote it, it is no member's word; the others are heard all the same."""
    one = Member(tmp_path, "a")
    write_view(tmp_path, view("b", Stance.CAREFUL, NOW))
    (tmp_path / "c.json").write_bytes(content)

    await one.watch.exchange()

    assert (one.watch.others.heard, one.watch.others.careful) == (1, 1)
    assert "c.json" in one.noted[-1]["trouble"]


async def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    """The worker goes on; nobody hears it, and it says so."""
    (tmp_path / "desk").write_text("a file")
    one = Member(tmp_path / "desk", "a")

    await one.watch.exchange()

    assert one.watch.others.heard == 0
    assert "cannot be written" in one.noted[-1]["trouble"]


@pytest.mark.parametrize(("name", "members"), [("", "a,b"), ("c", "a,b"), ("a", ""), ("../a", "../a,b"), ("A", "A,b")])
def test_a_desk_without_this_worker_is_refused(tmp_path, name, members):
    """A name that is none, or that is not among the members, is a sentence at the start."""
    with pytest.raises(ValidationError, match=r"QT_FEDERATION|pattern"):
        Settings(venue_url="http://127.0.0.1:1", federation=tmp_path, federation_name=name, federation_members=members)


def test_a_desk_is_read_from_settings(tmp_path):
    """Names are separated by commas; twice the same is once."""
    chosen = Settings(
        venue_url="http://127.0.0.1:1", federation=tmp_path, federation_name="a", federation_members="a, b,a"
    )

    assert chosen.federation_members == ("a", "b")
