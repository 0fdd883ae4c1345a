"""Series that failed while others went on: what is raised for them once all were tried."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from feature_store.errors import BadInputError, QuantumError
from feature_store.venue.errors import VenueDownError

FEW_SILENT = 3
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES})
_NAMED = 5


class SeriesFailedError(QuantumError):
    """Some series failed, and all others were brought up to date."""


class RunFailedError(QuantumError):
    """No series was brought up to date, or the venue fell silent before all were asked for."""


class StorageError(QuantumError):
    """A disk has no room, or a folder may not be written."""


class StaleError(QuantumError):
    """Nobody has held the champion against fresh candles for too long."""


class ShortfallError(QuantumError):
    """The venue gave fewer candles than were asked for, and has not confirmed that it has no others."""


@dataclass(slots=True)
class Failures:
    """
    What failed so far, and what was not asked for any more, by name.

    A series that fails stops no other, but a venue that answers nobody is not asked by all of them: it counts as silent
    once so many symbols in a row were asked for in vain, whatever is asked for at the same time among them, and stays
    so to the end of the run. An answer that cannot be used is an answer: it is the fault of one instrument.
    """

    at_once: int
    errors: dict[str, Exception] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    is_silent: bool = False
    """Whether the venue answers nobody any more."""
    _in_vain: set[str] = field(default_factory=set)
    _went_well: int = 0

    def note(self, name: str, error: QuantumError | TimeoutError, *, symbol: str | None = None) -> None:
        """Keep an error for the end; several things of one symbol count as one that is asked for in vain."""
        self.errors[name] = error
        if not isinstance(error, VenueDownError | TimeoutError):
            self._in_vain.clear()
            return
        self._in_vain.add(symbol or name)
        self.is_silent |= len(self._in_vain) >= max(FEW_SILENT, self.at_once)

    def went_well(self) -> None:
        """Note that something was brought up to date: the venue answers."""
        self._went_well += 1
        self._in_vain.clear()

    def leave(self, name: str) -> None:
        """Note what was not asked for, since the venue is silent."""
        self.left.append(name)

    def told(self, name: str, otherwise: str) -> str:
        """Say in a few words why something was not brought up to date, if that is known here."""
        if name in self.errors:
            return _said(self.errors[name])
        return "not asked for any more: the venue is silent" if name in self.left else otherwise

    def raise_first(self) -> None:
        """
        Raise the first error, with how many others there are; nothing where all went well.

        Raises:
            SeriesFailedError: Some failed, and all others are up to date.
            BadInputError: All failed, and all are bad usage.
            RunFailedError: All failed, or some were not asked for any more; a single error of a single series is
                raised as it is.
        """
        if not self.errors:
            return
        first = next(iter(self.errors.values()))
        is_alone = len(self.errors) == 1 and not self._went_well and not self.left
        if is_alone and isinstance(first, QuantumError):
            raise first
        raise self._type()(self._text()) from first

    def _type(self) -> type[QuantumError]:
        if self._went_well and not self.left:
            return SeriesFailedError
        are_unusable = all(isinstance(one, BadInputError) for one in self.errors.values())
        return BadInputError if are_unusable else RunFailedError

    def _text(self) -> str:
        (name, first), others = next(iter(self.errors.items())), list(self.errors)[1:]
        said = _said(first).rstrip(".")
        text = said if said.startswith(name) else f"{name}: {said}"
        also = []
        if others:
            also.append(f"{len(others)} other{'s' if len(others) > 1 else ''} failed ({_named(others)})")
        if self.left:
            also.append(f"{len(self.left)} were not asked for any more ({_named(self.left)})")
        if also:
            text = f"{text}. And {' and '.join(also)}"
        if self.left:
            return f"{text}; run it again once the venue answers"
        return f"{text}; the rest is stored" if self._went_well else text


def _said(error: Exception) -> str:
    return str(error) or "no answer came in time"


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")


@contextmanager
def storage_errors() -> Iterator[None]:
    """
    Say in a sentence that a disk gave out.

    Raises:
        StorageError: Instead of the system's own error.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise StorageError(
            f"A file could not be written: {error.strerror}{where}. Nothing was registered or promoted by that; make "
            "room in QUANTUM_HOME and in the folder of temporary files, then run the same command again"
        ) from error
