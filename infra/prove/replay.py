"""Every decision of a journal made again, and damage to it found: changed, removed, swapped, cut off, written anew."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from inference.journal.codec import GENESIS, chained, entry_of, event_of, line_of
from inference.journal.head import Head, read_head
from inference.journal.reader import read_entries, whole_lines
from inference.journal.replay import replay_decisions
from inference.journal.verify import BrokenChainError, Damage, verified
from inference.journal.writer import JournalWriter
from infra.prove.proof import Proof, Size
from infra.prove.recorded_decisions import MANY, write_journal
from infra.prove.replayed_elsewhere import HASH_SEEDS, begin, result_of

DECIDED = {Size.FULL: 10_000, Size.CI: 2_000}
DAMAGED = {Size.FULL: 1_000, Size.CI: 200}
TORN = {Size.FULL: 50, Size.CI: 10}
_SEED = 61
# Of 41 codes: what a snapshot cannot be refused for in a journal of one market's hours is missing.
_KINDS = 30

Lines = list[bytes]


def prove(size: Size) -> Proof:
    """Record, decide again from what was recorded, damage a copy in five ways, and cut last lines short."""
    rng = np.random.default_rng(_SEED)
    with tempfile.TemporaryDirectory(prefix="replay-") as folder:
        path = Path(folder) / "journal.jsonl"
        recorded = write_journal(path, DECIDED[size], _SEED)
        others = [begin(path, hash_seed) for hash_seed in HASH_SEEDS]
        decided, deviations = replay_decisions(read_entries(path))
        elsewhere = [result_of(process) for process in others]
        lines, head = list(whole_lines(path)), read_head(path.with_suffix(".head"))
        if head is None:
            raise ValueError("The journal has no anchor")
        found, missed = Counter[str](), list[str]()
        for number in range(DAMAGED[size]):
            name, damage = _DAMAGES[number % len(_DAMAGES)]
            noticed = _noticed(damage(list(lines), rng), head)
            if noticed is None:
                missed.append(f"{name}, number {number}, was not noticed")
            else:
                found[f"{name} {noticed.value}"] += 1
        torn = sum(_recovers(path, Path(folder) / f"torn-{number}", rng) for number in range(TORN[size]))

    differing = {one.seq for one in deviations}.union(*(found for _, found in elsewhere))
    identical = min([decided, *(count for count, _ in elsewhere)]) - len(differing)
    kinds = len(recorded.codes) - 1
    damaged = DAMAGED[size] - len(missed)
    return Proof(
        name="replay",
        figure=(
            f"{identical:,} of {decided:,} recorded candles ({recorded.answers:,} answers, {kinds} kinds of refusal, "
            f"{recorded.crowded:,} beside {MANY} positions or more) decided again to the byte by {1 + len(others)} "
            f"processes, and {recorded.candles - len(recorded.reordered):,} with every mapping in another order; "
            f"{damaged} of {DAMAGED[size]} damages found; {torn} of {TORN[size]} torn last lines recovered and told"
        ),
        bar=f"all of each; >= {_KINDS} kinds of refusal",
        holds=identical == decided == DECIDED[size]
        and not recorded.reordered
        and kinds >= _KINDS
        and not missed
        and torn == TORN[size],
        details=(
            *(f"entry {seq} comes out differently" for seq in sorted(differing)[:5]),
            *(f"candle {number} depends on the order of mappings" for number in recorded.reordered[:5]),
            ", ".join(f"{name} {count:,}" for name, count in recorded.codes.most_common()),
            *missed[:10],
            *(f"{name}: {times}" for name, times in sorted(found.items())),
        ),
    )


def _flipped(lines: Lines, rng: np.random.Generator) -> Lines:
    """One bit of one byte, line ends among them."""
    row = int(rng.integers(len(lines)))
    content = bytearray(lines[row])
    content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    return _as_read([*lines[:row], bytes(content), *lines[row + 1 :]])


def _deleted(lines: Lines, rng: np.random.Generator) -> Lines:
    del lines[int(rng.integers(len(lines)))]
    return lines


def _swapped(lines: Lines, rng: np.random.Generator) -> Lines:
    one, other = (int(row) for row in rng.choice(len(lines), 2, replace=False))
    lines[one], lines[other] = lines[other], lines[one]
    return lines


def _cut(lines: Lines, rng: np.random.Generator) -> Lines:
    return lines[: int(rng.integers(len(lines)))]


def _written_anew(lines: Lines, rng: np.random.Generator) -> Lines:
    """One entry taken out and all that follow chained again, as somebody would who knows how."""
    row = int(rng.integers(len(lines) - 1))
    entries = [entry_of(line) for line in lines[row + 1 :]]
    seq, previous = row + 1, entry_of(lines[row - 1]).digest if row else GENESIS
    again: Lines = []
    for place, entry in enumerate(entries):
        made = chained(
            event_of(entry),
            seq=seq + place,
            timestamp_ms=entry.timestamp_ms,
            trace_id=entry.trace_id,
            previous=previous,
        )
        again.append(line_of(made))
        previous = made.digest
    # One more, so that the anchor's number is there as well.
    last = entries[-1]
    again.append(
        line_of(
            chained(
                event_of(last),
                seq=seq + len(entries),
                timestamp_ms=last.timestamp_ms,
                trace_id=last.trace_id,
                previous=previous,
            )
        )
    )
    return [*lines[:row], *again]


_DAMAGES: tuple[tuple[str, Callable[[Lines, np.random.Generator], Lines]], ...] = (
    ("a bit flipped:", _flipped),
    ("an entry deleted:", _deleted),
    ("two entries swapped:", _swapped),
    ("cut off below the anchor:", _cut),
    ("written anew without an entry:", _written_anew),
)


def _as_read(lines: Lines) -> Lines:
    """Return lines as they are read from a file: a broken line end joins two, or leaves the last one torn."""
    content = b"".join(lines)
    return [line + b"\n" for line in content.split(b"\n")[:-1]]


def _noticed(lines: Lines, head: Head) -> Damage | None:
    try:
        for _ in verified(lines, head):
            pass
    except BrokenChainError as error:
        return error.finding.damage
    return None


def _recovers(path: Path, copy: Path, rng: np.random.Generator) -> bool:
    """Write an entry that no anchor vouches for yet, cut it short as a crash would, and open the journal again."""
    content = path.read_bytes()
    copy.mkdir()
    journal = copy / "journal.jsonl"
    journal.write_bytes(content)
    journal.with_suffix(".head").write_bytes(path.with_suffix(".head").read_bytes())
    last = content[content.rindex(b"\n", 0, len(content) - 1) + 1 :]
    length = int(rng.integers(1, len(last)))
    with journal.open("ab") as file:
        file.write(last[:length])
    with JournalWriter.open(journal) as opened:
        torn = opened.recovered
        whole = opened.seq == entry_of(last).seq
    kept = journal.with_suffix(f".torn-{len(content)}")
    told = torn is not None and (torn.offset, torn.length) == (len(content), length)
    return told and whole and kept.read_bytes() == last[:length] and journal.read_bytes() == content
