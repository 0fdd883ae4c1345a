"""A worker's place among others of its desk, put together from its settings."""

from __future__ import annotations

from collections.abc import Mapping

from feature_store.clock import utc_now_ms
from inference.domain.fallback import Fallback
from inference.domain.governance import Stance
from inference.governance.federation import View
from inference.settings import Settings
from inference.supervision.federation_watch import Desk, FederationWatch
from inference.worker import Worker

_OF_FALLBACK: Mapping[Fallback, Stance] = {
    Fallback.NONE: Stance.NORMAL,
    Fallback.SHRINK: Stance.CAREFUL,
    Fallback.STOP: Stance.EXITS_ONLY,
    Fallback.BACK: Stance.EXITS_ONLY,
}


def make_federation(worker: Worker, settings: Settings) -> FederationWatch | None:
    """Return what exchanges views with the desk's other workers, None where no folder is named."""
    if settings.federation is None:
        return None
    desk = Desk(
        folder=settings.federation,
        own=settings.federation_name,
        members=settings.federation_members,
        fresh_seconds=settings.federation_seconds,
    )
    return FederationWatch(
        desk, view=lambda: view_of(worker, settings.federation_name), note=worker.note, wall_ms=utc_now_ms
    )


def view_of(worker: Worker, name: str) -> View | None:
    """Return what a worker says of itself, not of what it heard; None before it knows its account."""
    mark = worker.account
    if mark is None:
        return None
    book = worker.executor.book
    notional = {symbol: one.notional for symbol, one in book.positions().items()}
    for symbol, worth in book.in_flight().items():
        notional[symbol] = notional.get(symbol, worth * 0) + worth
    return View(
        worker=name,
        said_ms=utc_now_ms(),
        stance=max(worker.committee.own_stance, _OF_FALLBACK[worker.fallback.done], key=lambda one: one.strictness),
        equity=mark.equity,
        notional=notional,
    )
