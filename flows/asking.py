"""Asking other sources from a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from flows.source_settings import SourceSettings


def require_usable(names: str) -> None:
    """
    Check that sources can be asked, before there is a run to fail.

    Raises:
        BadInputError: A source is unknown, or lacks a setting.
    """
    SourceSettings.of(sources=names).build(())


def ask(names: str) -> dict[str, int | None]:
    """Run the flow that asks other sources; return how much each told that was new, None where it told nothing."""
    from flows.sources import sources  # noqa: PLC0415 - Prefect reads its environment at import

    return asyncio.run(sources(names))


def told(new: Mapping[str, int | None]) -> str:
    """Say what came of asking; a source that is down fails nothing."""
    lines = [f"{name}: {'no answer, see qtctl doctor' if one is None else f'{one} new'}" for name, one in new.items()]
    return "\n".join(lines or ["No source is chosen; name some, or set QT_SOURCES."])
