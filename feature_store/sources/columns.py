"""Which column of somebody's file is which of ours, and in which unit its times are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from feature_store.candle import COLUMNS
from feature_store.errors import BadInputError

NAMES = ("exchange", "symbol", "timeframe")
"""What may be said once for a whole file instead of in each of its rows."""
FIELDS = (*NAMES, "ts", *COLUMNS)
UNITS = ("s", "ms", "us", "ns", "iso")
FROM_FILE_NAME = "@name"


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """The file's name for each of our columns; those that are not told are called as ours are."""

    theirs: Mapping[str, str]
    unit: str = "ms"

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Read `ts=Date:iso,open=Open,volume=Volume BTC`; after the time's column may stand its unit.

        Raises:
            BadInputError: A column is none of ours, or the unit none that we know.
        """
        theirs: dict[str, str] = {}
        unit = "ms"
        for pair in filter(None, (part.strip() for part in text.split(","))):
            ours, _, name = (one.strip() for one in pair.partition("="))
            if ours not in FIELDS or not name or ours in theirs:
                raise BadInputError(
                    f"Expected --columns as OURS=THEIRS,OURS=THEIRS with each of {', '.join(FIELDS)} once at most, "
                    f"found {pair!r}"
                )
            if ours == "ts" and ":" in name:
                name, _, unit = (one.strip() for one in name.rpartition(":"))
            theirs[ours] = name
        if unit not in UNITS:
            raise BadInputError(f"Unknown unit of time {unit!r}; write ts=COLUMN:UNIT with one of: {', '.join(UNITS)}")
        return cls(theirs, unit)

    def of(self, ours: str) -> str:
        """Return the file's name for one of our columns."""
        return self.theirs.get(ours, ours)

    def __str__(self) -> str:
        return ",".join(f"{ours}={name}" for ours, name in sorted(self.theirs.items())) + f" in {self.unit}"
