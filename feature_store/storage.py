"""Where the lake's files lie: a local folder or an object store, behind one port."""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from feature_store.files import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Write = Callable[[Any], None]
    """Writes a whole file to the path or stream that it is given."""
    Change = Callable[[Any], Write | None]
    """Told where the content can be read (None where there is none); returns what is to take its place, if anything."""


class Storage(Protocol):
    """Files that are read whole and replaced whole, by many processes at once."""

    def glob(self, folder: Any, pattern: str) -> list[Any]:
        """Return the places below a folder that match, in order; none where there is no folder."""

    def source(self, place: Any) -> Any:
        """
        Return what a reader of whole files takes: a path, or a stream in memory.

        Raises:
            FileNotFoundError: There is nothing.
        """

    def exchange(self, place: Any, change: Change) -> None:
        """
        Replace a file by what `change` makes of it, so that no other writer comes between reading and replacing.

        `change` may be asked again, of newer content.
        """

    def size(self, place: Any) -> int:
        """
        Return the bytes of a file.

        Raises:
            FileNotFoundError: There is nothing.
        """

    def remove(self, place: Any) -> None:
        """Remove a file, if it is there."""

    def rename(self, place: Any, name: str) -> Any:
        """Give a file another name in its folder; return its new place."""


@dataclass(frozen=True, slots=True, order=True)
class ObjectPlace:
    """A file or folder of an object store; it reads like a path."""

    key: PurePosixPath
    storage: Any

    def __str__(self) -> str:
        return f"s3://{self.key}"

    def __truediv__(self, name: str) -> ObjectPlace:
        return ObjectPlace(self.key / name, self.storage)

    @property
    def address(self) -> str:
        """Where it is among all stores: buckets and keys of two stores may have one name."""
        return f"{self} at {self.storage.address.endpoint or 'AWS'}"

    @property
    def name(self) -> str:
        """Last part of the key."""
        return self.key.name

    @property
    def stem(self) -> str:
        """Last part of the key, without its ending."""
        return self.key.stem

    @property
    def parts(self) -> tuple[str, ...]:
        """All parts of the key."""
        return self.key.parts

    @property
    def parent(self) -> ObjectPlace:
        """The folder."""
        return ObjectPlace(self.key.parent, self.storage)

    def with_name(self, name: str) -> ObjectPlace:
        """Return the place of that name in the same folder."""
        return ObjectPlace(self.key.with_name(name), self.storage)


Place = Path | ObjectPlace


class LocalStorage:
    """Files of this machine: writers hold a lock and rename into place, readers take no lock and see whole files."""

    def glob(self, folder: Path, pattern: str) -> list[Path]:
        """See Storage."""
        return sorted(folder.glob(pattern))

    def source(self, place: Path) -> Path:
        """See Storage; the reader finds out by itself whether there is a file."""
        return place

    def exchange(self, place: Path, change: Change) -> None:
        """See Storage; what a killed writer left half written is swept on the way."""
        with locked(place):
            sweep(place)
            write = change(place if place.exists() else None)
            if write is not None:
                with replacing(place) as temporary:
                    write(temporary)

    def size(self, place: Path) -> int:
        """See Storage."""
        return place.stat().st_size

    def remove(self, place: Path) -> None:
        """See Storage; who appends to the file meanwhile waits, and begins it anew."""
        with locked(place):
            sweep(place)
            place.unlink(missing_ok=True)

    def rename(self, place: Path, name: str) -> Path:
        """See Storage."""
        with locked(place):
            return place.rename(place.with_name(name))


_LOCAL = LocalStorage()


def storage_of(place: Place) -> Storage:
    """Return the storage that a place belongs to."""
    storage: Storage = _LOCAL if isinstance(place, Path) else place.storage
    return storage


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of one local file; the kernel lets go of it when the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def sweep(path: Path) -> int:
    """Remove what killed writers left of one file, whose lock is held; return how many that were."""
    left = leftovers(path)
    for temporary in left:
        temporary.unlink(missing_ok=True)
    return len(left)


def leftovers(path: Path) -> list[Path]:
    """Return the half-written files of one file; where a writer is at work, its own is among them."""
    prefix = f".{path.name}."
    return [one for one in path.parent.iterdir() if one.name.startswith(prefix) and one.name.endswith(".tmp")]


def is_being_written(path: Path) -> bool:
    """Tell whether somebody holds the lock of a local file."""
    try:
        handle = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
