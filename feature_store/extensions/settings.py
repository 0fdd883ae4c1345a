"""What the environment adds to the 49 features: the same for what trains and for what trades."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from feature_store.errors import BadInputError
from feature_store.extensions.view import FeatureView, chosen_view


class ViewSettings(BaseSettings):
    """
    Features of one's own and of others; nothing is added where nothing is set.

    `extensions` is a Python file, or a folder of them; the others are lists separated by commas.
    """

    model_config = SettingsConfigDict(env_prefix="QT_", extra="ignore", frozen=True)

    extensions: Path | None = None
    include_symbols: str = ""
    include_timeframes: str = ""
    include_inputs: str = ""

    @classmethod
    def of(cls, **chosen: object) -> Self:
        """
        Read the environment; what is given wins over it.

        Raises:
            BadInputError: A value is not usable.
        """
        try:
            return cls(**chosen)  # type: ignore[arg-type]
        except ValidationError as error:
            problems = "; ".join(f"QT_{str(one['loc'][0]).upper()}: {one['msg']}" for one in error.errors())
            raise BadInputError(f"Unusable settings: {problems}") from None

    def view(self) -> FeatureView:
        """
        Return what models read; this runs the code of features of one's own.

        Raises:
            BadInputError: A file cannot be run, or a name is unknown.
        """
        return chosen_view(
            extensions=self.extensions,
            symbols=self.include_symbols,
            timeframes=self.include_timeframes,
            inputs=self.include_inputs,
        )
