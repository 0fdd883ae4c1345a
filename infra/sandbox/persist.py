"""The venue's state on disk: one JSON file, replaced whole."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import msgspec

from feature_store.json_text import UNREADABLE
from infra.sandbox.arrivals import Arrival
from infra.sandbox.audit import Interval
from infra.sandbox.engine.margin import initial_margin
from infra.sandbox.engine.spot_state import SpotState
from infra.sandbox.engine.state import SCHEMA, EngineState
from infra.sandbox.script import Ending

FILE = "venue.json"


class StateError(Exception):
    """The saved state cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a saved state belongs to; a venue started otherwise must not continue it."""

    market: str
    seed: int
    edge: float
    symbols: tuple[str, ...]
    first_ms: int


@dataclass(frozen=True, slots=True)
class Saved:
    """Identity, virtual time, accounts, audit, and the requests that had not arrived."""

    identity: Identity
    now_ms: int
    engine: EngineState
    # Stretches without protection so far; one that lasts begins anew after a restart.
    unprotected: list[Interval]
    in_flight: list[Arrival] = field(default_factory=list)
    # What a script began and has not ended.
    endings: list[Ending] = field(default_factory=list)
    # The last nonce of each key of the Bitfinex front: what was signed before a restart is void after it.
    nonces: dict[str, int] = field(default_factory=dict)
    # None in what was saved before there was a spot account.
    spot: SpotState | None = None


def save(folder: Path, saved: Saved) -> None:
    """Write the state so that a reader, or a crash, sees the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = msgspec.json.encode(saved)
    temporary = folder / f".{FILE}.{os.getpid()}"
    with temporary.open("wb") as handle:
        handle.write(raw)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(folder / FILE)


def load(folder: Path, identity: Identity) -> Saved | None:
    """
    Read the state that was saved for the same market, None when there is none.

    Raises:
        StateError: The file is damaged or belongs to another market.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        saved = msgspec.json.decode(path.read_bytes(), type=Saved)
    except (OSError, *UNREADABLE) as error:
        raise StateError(
            f"The saved state {path} cannot be read ({error}); move it away to start a new account."
        ) from error
    if saved.engine.schema != SCHEMA:
        raise StateError(f"The saved state {path} has schema {saved.engine.schema}, expected {SCHEMA}; move it away.")
    if saved.identity != identity:
        ours, theirs = asdict(identity), asdict(saved.identity)
        differing = ", ".join(key for key in ours if ours[key] != theirs[key])
        raise StateError(
            f"The saved state {path} belongs to another market ({differing} differ); "
            "start with the same options, or move it away."
        )
    _bind_isolated(saved.engine)
    return saved


def _bind_isolated(state: EngineState) -> None:
    """Give isolated positions their margin that were saved before the engine kept it apart."""
    for key, position in list(state.positions.items()):
        if position.symbol in state.isolated and position.quantity and not position.isolated_wallet:
            state.positions[key] = replace(position, isolated_wallet=initial_margin(state, position))
