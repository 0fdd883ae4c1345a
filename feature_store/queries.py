"""The SQL files of the feature store, by name."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def query(name: str) -> str:
    """Return the text of `feature_store/sql/<name>.sql`."""
    return (resources.files("feature_store.sql") / f"{name}.sql").read_text(encoding="utf-8")
