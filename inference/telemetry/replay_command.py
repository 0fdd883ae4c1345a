"""`qtctl replay`: every recorded decision made again, under the same policy or another one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from inference.domain.events import CandlesDecided
from inference.domain.policy import Policy
from inference.journal.codec import Entry
from inference.journal.reader import read_entries
from inference.journal.replay import Deviation, Difference, replay_decisions, replay_under
from inference.telemetry.audit_commands import require
from inference.telemetry.printed import print_json

_SHOWN = 20


def same(path: Path, *, as_json: bool) -> int:
    """Make every decision again as it was made; 1 where a byte differs."""
    require(path)
    count, deviations = replay_decisions(_watched(path, as_json=as_json))
    if as_json:
        print_json(
            {"decided": count, "identical": count - len(deviations), "deviations": [_told(one) for one in deviations]}
        )
        return 1 if deviations else 0
    console = Console(highlight=False, soft_wrap=True)
    for one in deviations[:_SHOWN]:
        console.print(f"Entry {one.seq} comes out differently: {_first_difference(one)}", markup=False)
    if len(deviations) > _SHOWN:
        console.print(f"… and {len(deviations) - _SHOWN} more; --json lists all")
    if count == 0:
        console.print("The journal holds no decision yet.")
        return 0
    console.print(f"{count - len(deviations)} of {count} candles decided again are identical to the byte.")
    if deviations:
        console.print("Another version of the code, or another kind of machine, made the others.")
    return 1 if deviations else 0


def under(path: Path, policy: Policy, *, lines: int, as_json: bool) -> int:
    """Say what another policy would have answered on each recorded state, and why."""
    require(path)
    answers, found = 0, list[Difference]()
    for count, differences in replay_under(_watched(path, as_json=as_json), policy):
        answers += count
        found += differences
    if as_json:
        print_json({"policy": policy.fingerprint, "answers": answers, "differences": found})
        return 0
    console = Console(highlight=False, soft_wrap=True)
    for one in found[: max(0, lines)]:
        console.print(_line(one), markup=False)
    if len(found) > lines:
        console.print(f"… and {len(found) - lines} more; --lines or --json shows them")
    for (before, after), times in Counter((one.before, one.after) for one in found).most_common():
        what = "sized or placed otherwise" if before == after else f"{before} → {after}"
        console.print(f"{times:>7}  {what}", markup=False)
    console.print(f"{len(found)} of {answers} answers differ under policy {policy.fingerprint[:12]}.")
    if found:
        console.print("Each stands alone on the state that was recorded; `qtctl backtest` plays a policy out.")
    return 0


def _watched(path: Path, *, as_json: bool) -> Iterator[Entry]:
    entries: Iterable[Entry] = read_entries(path)
    if as_json:
        yield from entries
        return
    from rich.progress import track  # noqa: PLC0415 - only who watches pays for it

    console = Console(stderr=True)
    yield from track(entries, description="Deciding again", console=console, disable=not console.is_terminal)


def _line(one: Difference) -> str:
    time = datetime.fromtimestamp(one.candle_close_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    return f"{time}  {one.symbol:<16} {_words(one.before, one.numbers_before)} → {_words(one.after, one.numbers_after)}"


def _words(outcome: str, numbers: dict[str, str] | Any) -> str:
    return f"{outcome} ({', '.join(f'{name} {value}' for name, value in numbers.items())})" if numbers else outcome


def _told(one: Deviation) -> dict[str, object]:
    return {
        "seq": one.seq,
        "recorded": msgspec.Raw(one.recorded),
        "replayed": msgspec.Raw(one.replayed),
    }


def _first_difference(one: Deviation) -> str:
    recorded: CandlesDecided = msgspec.json.decode(one.recorded, type=CandlesDecided)
    replayed: CandlesDecided = msgspec.json.decode(one.replayed, type=CandlesDecided)
    for kind in ("approved", "denied"):
        for before, after in zip_longest(getattr(recorded, kind), getattr(replayed, kind)):
            if before != after:
                return f"{kind} was {before}, is {after}"[:400]
    return "what is recorded of the snapshot or the policy is spelt otherwise"
