"""What is raised in the end for series that failed while others went on."""

from __future__ import annotations

import itertools
import string

import pytest

from feature_store.errors import BadInputError, CorruptFileError
from feature_store.venue.errors import RateLimitedError, RetryableError, VenueDownError
from flows.failures import FEW_SILENT, Failures, RunFailedError, SeriesFailedError

TORN = CorruptFileError("a.parquet", "torn", "Repair it.")


def failures(*errors: Exception, at_once: int = 1) -> Failures:
    """Return failures of series that are numbered from 0."""
    kept = Failures(at_once)
    for number, error in enumerate(errors):
        kept.note(f"S{number}", error)
    return kept


def test_one_failure_of_one_series_is_raised_as_it_is_and_none_not():
    """Its type decides the exit status."""
    failures().raise_first()
    with pytest.raises(CorruptFileError, match="torn"):
        failures(TORN).raise_first()


def test_one_failure_of_several_has_the_type_that_says_so():
    """Whoever can go on with the others tells them by the type, of one failure as of several."""
    for errors in ([TORN], [BadInputError("no")], [VenueDownError("down"), TimeoutError()]):
        kept = failures(*errors)
        kept.went_well()
        with pytest.raises(SeriesFailedError, match=r"^S0: .*; the rest is stored$"):
            kept.raise_first()


def test_of_several_the_first_is_told_with_how_many_others():
    """Where all failed nobody can go on; bad usage is what they are only where all are."""
    with pytest.raises(RunFailedError, match=r"^S0: .*torn.*And 2 others failed \(S1, S2\)$"):
        failures(TORN, BadInputError("no"), TORN).raise_first()
    with pytest.raises(BadInputError, match=r"^S0: no. And 1 other failed"):
        failures(BadInputError("no"), BadInputError("no")).raise_first()


def test_the_sentence_names_the_series_and_says_something():
    """An error without a text is told in words, and a name that the sentence begins with is not told twice."""
    with pytest.raises(RunFailedError, match=r"^S0: no answer came in time. And 1 other failed \(S1\)$"):
        failures(TimeoutError(), TimeoutError()).raise_first()
    with pytest.raises(RunFailedError, match=r"^S0: no answer came in time$"):
        failures(TimeoutError()).raise_first()
    with pytest.raises(BadInputError, match=r"^S0 is unusable. And 1 other"):
        failures(BadInputError("S0 is unusable."), BadInputError("no")).raise_first()


def test_a_venue_is_silent_when_nobody_is_answered():
    """One symbol that the venue does not serve stops nobody; so many in a row, and it is the venue."""
    down = VenueDownError("down")
    assert not failures(*[down] * (FEW_SILENT - 1)).is_silent
    assert failures(*[down, TimeoutError(), down]).is_silent
    assert not failures(*[down] * FEW_SILENT, at_once=8).is_silent
    assert not failures(*[down] * (FEW_SILENT - 1), TORN, down).is_silent
    answered = failures(*[down] * (FEW_SILENT - 1))
    answered.went_well()
    answered.note("another", down)
    assert not answered.is_silent


def test_a_venue_that_was_silent_stays_so_and_what_was_left_is_counted():
    """An answer that was under way changes nothing: the run left series out, and says which and how many."""
    kept = failures(*[VenueDownError("down")] * FEW_SILENT)
    for number in range(9):
        kept.leave(f"L{number}")
    kept.went_well()
    assert kept.is_silent
    assert (kept.told("S0", "?"), kept.told("other", "?")) == ("down", "?")
    assert kept.told("L3", "?") == "not asked for any more: the venue is silent"
    told = r"^S0: down. And 2 others failed \(S1, S2\) and 9 were not asked for any more \(L0, .*, …\); run it again"
    with pytest.raises(RunFailedError, match=told):
        kept.raise_first()


@pytest.mark.parametrize(
    "error", [RetryableError("sent unusable mark"), RateLimitedError("wait", retry_after_seconds=1), VenueDownError("")]
)
def test_one_symbol_that_fails_in_every_kind_stops_no_other(error):
    """Of twenty-six symbols in four kinds each, one fails in all of them: a hundred are asked for all the same."""
    kept, done = Failures(4), 0
    for symbol, kind in itertools.product(string.ascii_uppercase, ("funding", "mark", "index", "open interest")):
        name = f"{kind} of {symbol}"
        if kept.is_silent:
            kept.leave(name)
        elif symbol == "M":
            kept.note(name, error, symbol=symbol)
        else:
            done += 1
            kept.went_well()
    assert (done, len(kept.errors), kept.left) == (100, 4, [])
    with pytest.raises(SeriesFailedError, match=r"^funding of M: .*And 3 others failed.*; the rest is stored"):
        kept.raise_first()
    unusable = failures(*[RetryableError("sent unusable mark")] * 9)
    assert not unusable.is_silent, "What cannot be used is an answer"
