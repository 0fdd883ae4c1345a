"""What a README shows: the commands of its console blocks, what they promise to print, and its own faults."""

from __future__ import annotations

import re
from dataclasses import dataclass

CONSOLE = "console"
# Blocks that hold no commands; every other language is one that a reader would type in and that nobody ran.
NOT_COMMANDS = frozenset({"text"})
ANYTHING = "…"

_FENCE = re.compile(r"^ {0,3}(?P<fence>`{3,}|~{3,})(?P<info>.*)$")
_INDENTED = re.compile(r"^(?: {4}|\t)\s*\S")
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# Less than this says nothing: `…` and rules would be kept by any output.
_LEAST_LETTERS = 3


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the README and the lines it promises, `…` among them, with the line it stands on."""

    command: str
    promised: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Readme:
    """What a README's text holds: prose without its blocks, commands in order, and faults of the text itself."""

    prose: str
    steps: tuple[Step, ...]
    faults: tuple[str, ...]


@dataclass(slots=True)
class _Block:
    language: str
    line: int
    lines: list[str]


def read(text: str) -> Readme:
    """Take a README apart; whatever holds commands and would not be run is a fault."""
    prose, blocks, faults = _split(text)
    steps: list[Step] = []
    for block in blocks:
        if block.language == CONSOLE:
            found, wrong = _steps(block)
            steps += found
            faults += wrong
        elif block.language not in NOT_COMMANDS:
            called = f"`{block.language}`" if block.language else "without a language"
            faults.append(f"line {block.line}: a block {called} is not run; make it `{CONSOLE}`, with its output")
    faults += [
        f"line {step.line}: `{step.command}` promises nothing that only it would print"
        for step in steps
        if not any(_says_something(line) for line in step.promised)
    ]
    return Readme("\n".join(prose), tuple(steps), tuple(faults))


def _split(text: str) -> tuple[list[str], list[_Block], list[str]]:
    """Separate prose from fenced blocks, as CommonMark does."""
    prose: list[str] = []
    blocks: list[_Block] = []
    faults: list[str] = []
    closing = ""
    for number, line in enumerate(text.splitlines(), start=1):
        found = _FENCE.match(line)
        if closing:
            if found and found["fence"].startswith(closing) and not found["info"].strip():
                closing = ""
            else:
                blocks[-1].lines.append(line)
        elif found and not (found["fence"][0] == "`" and "`" in found["info"]):
            closing = found["fence"]
            blocks.append(_Block((found["info"].split() or [""])[0], number, []))
        else:
            if _INDENTED.match(line) or "<pre" in line.lower():
                faults.append(f"line {number}: a block without a fence is not run; fence it as `{CONSOLE}`")
            prose.append(line)
    if closing:
        faults.append(f"line {blocks[-1].line}: the block that opens here is never closed")
    return prose, blocks, faults


def _steps(block: _Block) -> tuple[list[Step], list[str]]:
    steps: list[Step] = []
    faults: list[str] = []
    command: str | None = None
    promised: list[str] = []
    began = block.line

    def close() -> None:
        if command is not None:
            steps.append(Step(command, tuple(promised), began))

    for number, line in enumerate(block.lines, start=block.line + 1):
        if command is not None and command.endswith("\\"):
            command = f"{command[:-1].rstrip()} {line.removeprefix('>').strip()}"
        elif line.startswith("$ "):
            close()
            command, promised, began = line[2:].strip(), [], number
        elif command is not None:
            promised.append(line)
        elif line.strip():
            faults.append(f"line {number}: output without a command; commands begin with `$ `")
    close()
    if not steps:
        faults.append(f"line {block.line}: a `{CONSOLE}` block without a command")
    if command is not None and command.endswith("\\"):
        faults.append(f"line {began}: `{command}` ends in the middle")
    return steps, faults


def _says_something(line: str) -> bool:
    return sum(letter.isalnum() for letter in line) >= _LEAST_LETTERS


def broken_promises(promised: tuple[str, ...], printed: str) -> list[str]:
    """
    Return what was promised and not printed, a sentence each.

    A line `…` stands for any lines, or none; `…` within a line for at least one character. All else is to be printed
    as promised: the same lines, side by side, from the first to the last. Blank lines, colours and the width of gaps
    do not count.
    """
    lines = [cleaned for line in printed.splitlines() if (cleaned := _plain(line))]
    runs: list[list[str]] = [[]]
    for line in map(_plain, promised):
        if line == ANYTHING:
            runs.append([])
        elif line:
            runs[-1].append(line)
    if len(runs) == 1:
        return _difference(runs[0], lines, whole=True)

    first, *middle, last = runs
    if not _fits(first, lines[: len(first)]):
        return _difference(first, lines[: len(first)])
    at = len(first)
    for run in middle:
        found = next((start for start in range(at, len(lines) - len(run) + 1) if _fits(run, lines[start:])), None)
        if found is None:
            return _absent(run, lines[at:])
        at = found + len(run)
    end = lines[max(at, len(lines) - len(last)) :]
    return [] if _fits(last, end) else _difference(last, end)


def _plain(line: str) -> str:
    return " ".join(_COLOUR.sub("", line).split())


def _matches(promise: str, line: str) -> bool:
    return re.fullmatch(".+".join(re.escape(piece) for piece in promise.split(ANYTHING)), line) is not None


def _fits(run: list[str], lines: list[str]) -> bool:
    """Whether lines begin with a run of promised ones."""
    return len(lines) >= len(run) and all(map(_matches, run, lines))


def _difference(run: list[str], lines: list[str], *, whole: bool = False) -> list[str]:
    for number, promise in enumerate(run):
        if number >= len(lines):
            return [f"did not print: {promise}"]
        if not _matches(promise, lines[number]):
            return [f"did not print: {promise} (but: {lines[number]})"]
    return [f"printed more than the README says: {lines[len(run)]}"] if whole and len(lines) > len(run) else []


def _absent(run: list[str], lines: list[str]) -> list[str]:
    lone = next((promise for promise in run if not any(_matches(promise, line) for line in lines)), None)
    return [f"did not print: {lone}"] if lone else [f"did not print side by side: {' / '.join(run)}"]
