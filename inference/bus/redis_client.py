"""The one door to Redis's library for the bus: how it is reached, what its keys are called, what its errors mean."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from inference.bus.port import BusError, Cursor
from inference.domain.errors import SettingsError

_ANSWERS_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Keys:
    """Names of the keys, all in one slot of a cluster."""

    prefix: str

    @property
    def log(self) -> str:
        """The stream of all events."""
        return f"{self.prefix}:events"

    @property
    def ids(self) -> str:
        """Ids of the events in the log."""
        return f"{self.prefix}:ids"

    @property
    def counter(self) -> str:
        """The newest offset."""
        return f"{self.prefix}:offset"

    @property
    def cursors(self) -> str:
        """How far journals are published."""
        return f"{self.prefix}:cursors"

    @property
    def groups(self) -> str:
        """What groups subscribed to."""
        return f"{self.prefix}:groups"

    def retries(self, group: str) -> str:
        """A group's dead letters that are delivered again."""
        return f"{self.prefix}:retries:{group}"

    def dead(self, group: str) -> str:
        """A group's dead letters."""
        return f"{self.prefix}:dead:{group}"

    def reasons(self, group: str) -> str:
        """Why deliveries of a group failed last."""
        return f"{self.prefix}:reasons:{group}"

    def counts(self, group: str) -> str:
        """What a group was given and has acknowledged."""
        return f"{self.prefix}:counts:{group}"


@dataclass(frozen=True, slots=True)
class Client:
    """A client with the errors of its library."""

    redis: Any
    any_error: tuple[type[Exception], ...]
    answer_error: type[Exception]

    def check_memory(self) -> None:
        """
        Refuse a server that forgets keys of its own accord.

        Raises:
            BusError: What it forgets could be a part of the log, or how far it reaches.
        """
        told = self.redis.info("memory")
        policy = str(told.get("maxmemory_policy", "noeviction"))
        if int(told.get("maxmemory", 0)) > 0 and policy != "noeviction":
            raise BusError(
                f"Redis forgets keys when its memory is full (maxmemory-policy {policy}), and events with them;"
                " set maxmemory-policy noeviction, or name another server in QT_BUS"
            )


def connect(url: str) -> Client:
    """
    Return a client that asks nothing yet; no answer is waited for longer than two seconds, none is asked for twice.

    Raises:
        SettingsError: The library is not installed, or the address cannot be one.
    """
    try:
        library = importlib.import_module("redis")
        retry = importlib.import_module("redis.retry")
        backoff = importlib.import_module("redis.backoff")
    except ModuleNotFoundError:
        raise SettingsError(
            "QT_BUS names Redis, and its client is not installed: pip install 'quantum-trader[redis]'"
        ) from None
    try:
        redis = library.Redis.from_url(
            url,
            socket_timeout=_ANSWERS_WITHIN_S,
            socket_connect_timeout=_ANSWERS_WITHIN_S,
            retry=retry.Retry(backoff.NoBackoff(), 0),
            protocol=2,
        )
    except (ValueError, TypeError) as error:
        # The address may carry a password: only its scheme is told.
        raise SettingsError(
            f"QT_BUS must look like redis://host:6379/0, with scheme {urlsplit(url).scheme!r} it cannot be read:"
            f" {type(error).__name__}"
        ) from None
    return Client(redis=redis, any_error=(library.RedisError, OSError), answer_error=library.ResponseError)


def is_unknown_group(error: Exception) -> bool:
    """Whether an answer says that a group, or the stream with it, is gone."""
    return "NOGROUP" in str(error) or "no such key" in str(error)


def wire(cursor: Cursor | None) -> str:
    """Return a cursor as the text that is compared, empty for none."""
    return "" if cursor is None else json.dumps(asdict(cursor), sort_keys=True)
