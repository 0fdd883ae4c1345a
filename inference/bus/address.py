"""Which bus an address names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from inference.bus.local import LocalBus
from inference.bus.port import EventBus
from inference.bus.redis_bus import RedisBus
from inference.domain.errors import SettingsError

_REDIS = ("redis", "rediss", "unix")


def local_file(home: Path) -> Path:
    """Return where the local bus of a home lies."""
    return home / "worker" / "bus.db"


def open_bus(address: str | None, home: Path) -> EventBus:
    """
    Return the bus that an address names, by default a SQLite file in the home folder; nothing is asked of it yet.

    Raises:
        SettingsError: The address names no bus that this install knows.
    """
    if not address:
        return LocalBus(local_file(home))
    parts = urlsplit(address)
    if parts.scheme in _REDIS:
        return RedisBus(address)
    if parts.scheme == "sqlite" and not parts.netloc and parts.path.startswith("/") and len(parts.path) > 1:
        # As SQLAlchemy writes it: three slashes for a relative path, four for an absolute one.
        return LocalBus(Path(parts.path[1:]))
    raise SettingsError(
        "QT_BUS must look like redis://host:6379/0 or sqlite:////shared/bus.db, or be unset for a file in the home"
        f" folder; its scheme was {parts.scheme!r}"
    )
