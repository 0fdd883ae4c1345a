"""Where the lake is, by one setting: QT_LAKE, a folder or the address of an object store."""

from __future__ import annotations

from pathlib import Path

from feature_store.errors import BadInputError
from feature_store.lake import CandleLake

SETTING = "QT_LAKE"


def lake_folder(setting: str | None, home: Path) -> Path:
    """
    Return the lake's local folder; where the candles lie elsewhere, it holds what this machine notes beside them.

    Raises:
        BadInputError: The setting is neither a folder nor an address.
    """
    if not setting or setting.startswith("s3://"):
        return home / "lake"
    if "://" in setting:
        raise BadInputError(f"{SETTING} must be a folder or s3://bucket/prefix, found {setting!r}")
    folder = Path(setting).expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise BadInputError(f"{SETTING} must be a folder, found the file {folder}")
    return folder


def open_lake(setting: str | None, home: Path) -> CandleLake:
    """
    Return the lake that QT_LAKE names, once what holds it has answered.

    Args:
        setting: What QT_LAKE says; without it the lake is the folder `lake` of the home.
        home: QUANTUM_HOME.

    Raises:
        BadInputError: The setting is neither a folder nor an address.
        LakeUnavailableError: The object store cannot be used; the message says why.
    """
    folder = lake_folder(setting, home)
    if setting and setting.startswith("s3://"):
        from feature_store.object_storage import opened  # noqa: PLC0415 - a local lake needs no object store

        return CandleLake(folder, opened(setting))
    return CandleLake(folder)
