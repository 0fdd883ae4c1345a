"""The errors of the project: each says what was expected, what was found, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class QuantumError(Exception):
    """Root of every error that this project raises on purpose."""


class BadInputError(QuantumError):
    """What we were given cannot be used; the message says how it should look."""


class UnknownVenueError(BadInputError):
    """The venue's name is not one we can connect to."""

    def __init__(self, venue: str, known: Iterable[str]) -> None:
        super().__init__(f"Unknown venue {venue!r}; set QT_VENUE to one of: {', '.join(known)}")
        self.venue = venue


class UnknownSymbolError(BadInputError):
    """The venue, or the lake, has no such symbol."""

    def __init__(self, symbol: str, venue: str, examples: Iterable[str] = (), *, setting: str = "QT_SYMBOLS") -> None:
        shown = ", ".join(list(examples)[:5])
        hint = f", for example: {shown}" if shown else " (form: BTC/USDT:USDT)"
        super().__init__(f"Venue {venue!r} has no symbol {symbol!r}; set {setting} to unified names it lists{hint}")
        self.symbol = symbol


class UnknownTimeframeError(BadInputError):
    """The timeframe is not one of those that are stored."""

    def __init__(self, text: str, known: Iterable[str]) -> None:
        super().__init__(f"Unknown timeframe {text!r}; use one of: {', '.join(known)}")
        self.text = text


class CorruptFileError(QuantumError):
    """A file on disk cannot be read whole; nothing was changed."""

    def __init__(self, path: object, found: str, remedy: str) -> None:
        super().__init__(f"Cannot read {path}: {found}. {remedy}")
        self.path = path
        self.found = found


class NotAllowedError(QuantumError):
    """A file is there, and this user may not read it."""

    def __init__(self, path: object) -> None:
        super().__init__(f"Cannot read {path}: permission denied; let the user who runs this read and write the lake")
        self.path = path


class LakeUnavailableError(QuantumError):
    """The object store that holds the lake does not answer as it should; what is stored stays."""


class FingerprintMismatchError(QuantumError):
    """Something was made with another feature set than the one that runs."""

    def __init__(self, what: str, expected: str, found: str, remedy: str) -> None:
        super().__init__(
            f"{what} was made with feature set {found[:12]}, this program computes {expected[:12]}. {remedy}"
        )
        self.expected = expected
        self.found = found


class LakeNotWritableError(QuantumError):
    """The lake cannot be written, for want of room or of leave; what it holds stays."""

    def __init__(self, what: str, lake: object, error: OSError) -> None:
        super().__init__(
            f"Cannot write {what} to {lake}: {error.strerror or error}. "
            "What was stored stays, also of a file or series that is not yet whole; make room, and run the same "
            "command again to complete it"
        )


class VenueUnavailableError(QuantumError):
    """The venue does not answer as it should; what is stored and what is open stay as they are."""
