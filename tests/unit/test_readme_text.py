"""Reading a README: which commands it shows, what they promise, and what it gets wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.prove.readme_text import ANYTHING, Step, broken_promises, read

BLOCK = "```console\n$ qtctl status\nservice … health\n…\n$ qtctl down\nStopped …\n```\n"


def test_commands_come_in_order_with_what_they_promise():
    """Each command carries its line number and its promised lines, `…` among them; prose is what is left."""
    found = read(f"# Title\n\nBefore.\n\n{BLOCK}\nAfter.\n")

    assert found.faults == ()
    assert found.steps == (
        Step("qtctl status", ("service … health", "…"), 6),
        Step("qtctl down", ("Stopped …",), 9),
    )
    assert "After." in found.prose
    assert "qtctl" not in found.prose


@pytest.mark.parametrize("continuation", ["  --days 2", "> --days 2"])
def test_a_command_may_go_on_in_the_next_line(continuation):
    """A backslash joins lines, with or without the shell's own mark."""
    found = read(f"```console\n$ qtctl ingest \\\n{continuation}\nIngested …\n```\n")

    assert found.steps == (Step("qtctl ingest --days 2", ("Ingested …",), 2),)
    assert found.faults == ()


@pytest.mark.parametrize("fence", ["````", "~~~", "~~~~~", "   ```"])
def test_every_fence_of_markdown_is_read(fence):
    """Longer fences, tildes and up to three spaces before them open blocks too."""
    found = read(f"{fence}console\n$ qtctl down\nStopped all\n{fence.strip()}\n")

    assert [step.command for step in found.steps] == ["qtctl down"]
    assert found.faults == ()


def test_a_shorter_fence_is_part_of_the_block():
    """What looks like a fence inside a longer one closes nothing."""
    found = read("````console\n$ cat notes\n```sh\nnotes of old\n````\n")

    assert found.steps[0].promised == ("```sh", "notes of old")
    assert found.faults == ()


def test_text_blocks_hold_no_commands():
    """A block marked `text` is neither run nor a fault."""
    found = read("```text\n$ rm -rf /\n```\n")

    assert (found.steps, found.faults) == ((), ())


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("```sh\nmake demo\n```\n", "a block `sh` is not run"),
        ("```bash\n$ make demo\n```\n", "a block `bash` is not run"),
        ("```\n$ make demo\n```\n", "a block without a language is not run"),
        ("``` Console\n$ make demo\nSummary\n```\n", "a block `Console` is not run"),
        ("~~~sh\nmake demo\n~~~\n", "a block `sh` is not run"),
        ("Try:\n\n    make demo\n", "a block without a fence is not run"),
        ("Try:\n\n\tmake demo\n", "a block without a fence is not run"),
        ("<pre>make demo</pre>\n", "a block without a fence is not run"),
        ("```console\n$ make demo\nSummary\n", "is never closed"),
        ("```console\n$ make demo\nSummary\n~~~\n", "is never closed"),
        ("```console\n$ make demo\nSummary\n``` console\n", "is never closed"),
        ("```console\n```\n", "a `console` block without a command"),
        ("```console\nmake demo\nSummary\n```\n", "output without a command"),
        ("```console\n$make demo\nSummary\n```\n", "output without a command"),
        ("```console\n$ make demo\n```\n", "promises nothing"),
        ("```console\n$ make demo\n\n```\n", "promises nothing"),
        ("```console\n$ make demo\n…\n```\n", "promises nothing"),
        ("```console\n$ make demo\n… … …\n│ … │\n────\n```\n", "promises nothing"),
        ("```console\n$ make demo\nSummary\n$ make clean\n```\n", "`make clean` promises nothing"),
        ("```console\n$ make demo \\\n```\n", "ends in the middle"),
    ],
)
def test_what_would_not_be_run_or_checked_is_a_fault(text, fault):
    """Whatever holds commands without running them, or runs them without checking them, is said with its line."""
    faults = read(text).faults

    assert any(fault in one for one in faults), faults
    assert all(one.startswith("line ") for one in faults)


@pytest.mark.parametrize(
    ("promised", "printed"),
    [
        (("one", "two"), "one\ntwo\n"),
        (("one", "two"), "\n  one\n\n\ntwo   \n"),
        (("a b",), "a        b"),
        (("held …",), "\x1b[1;32mheld\x1b[0m all\x1b[K"),
        ((ANYTHING, "end"), "end"),
        ((ANYTHING, "end"), "much\nbefore\nthe\nend"),
        (("start", ANYTHING), "start\nand\nmore"),
        (("start", ANYTHING, "end"), "start\nend"),
        (("start", ANYTHING, "end"), "start\nend\nend"),
        (("start", ANYTHING, "in", "order", ANYTHING, "end"), "start\nin\nin\norder\nend"),
        ((ANYTHING, ANYTHING, "end"), "end"),
        ((ANYTHING,), ""),
        (("p99 … ms, p50 … ms",), "p99 7.1 ms, p50 5.2 ms"),
        (("(a|b)* [c] $",), "(a|b)* [c] $"),
        (("cut …",), "cut short…"),
    ],
)
def test_kept_promises(promised, printed):
    """Lines stand side by side unless `…` stands between; blanks, colours and gaps do not count."""
    assert broken_promises(promised, printed) == []


@pytest.mark.parametrize(
    ("promised", "printed", "problem"),
    [
        (("one",), "", "did not print: one"),
        (("one",), "one more", "did not print: one (but: one more)"),
        (("one",), "one\ntwo", "printed more than the README says: two"),
        (("one", "two"), "one\nthree\ntwo", "did not print: two (but: three)"),
        (("one", "two"), "two\none", "did not print: one (but: two)"),
        (("digest …",), "digest", "did not print: digest … (but: digest)"),
        (("… trades",), "trades", "did not print: … trades (but: trades)"),
        (("p99 … ms",), "p99 7\nms", "did not print: p99 … ms (but: p99 7)"),
        ((ANYTHING, "end"), "end\nand more", "did not print: end (but: and more)"),
        ((ANYTHING, "end"), "", "did not print: end"),
        (("start", ANYTHING, "end"), "start", "did not print: end"),
        # One line cannot keep two promises.
        (("same", ANYTHING, "same"), "same", "did not print: same"),
        ((ANYTHING, "same", ANYTHING, "same"), "same", "did not print: same"),
        ((ANYTHING, "in", "order", ANYTHING), "in\nno\norder", "did not print side by side: in / order"),
        ((ANYTHING, "in", "order", ANYTHING), "in\nno", "did not print: order"),
        (("a.c",), "abc", "did not print: a.c (but: abc)"),
    ],
)
def test_broken_promises_are_named(promised, printed, problem):
    """What is missing, changed, out of order or added is said, with what was printed in its place."""
    assert broken_promises(promised, printed) == [problem]


LINES = st.lists(st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1).filter(str.strip))


@given(LINES)
def test_an_output_keeps_its_own_promise(lines):
    """Whatever was printed, a README that shows just that is right; one line more, and it is wrong."""
    printed = "\n".join(lines)

    assert broken_promises(tuple(lines), printed) == []
    assert broken_promises((*lines, "and one more"), printed) != []


@given(LINES, st.data())
def test_leaving_lines_out_needs_a_wildcard(lines, data):
    """Any run of lines may be left out where `…` stands in its place."""
    start = data.draw(st.integers(0, len(lines)))
    stop = data.draw(st.integers(start, len(lines)))

    assert broken_promises((*lines[:start], ANYTHING, *lines[stop:]), "\n".join(lines)) == []


@given(st.text())
def test_any_text_can_be_read(text):
    """No text makes the reader fail; what it finds are commands with a line in the text."""
    found = read(text)

    assert all(1 <= step.line <= len(text.splitlines()) for step in found.steps)
