"""What can go wrong with tables and backups; each says what was found and what to do next."""

from __future__ import annotations

from feature_store.errors import BadInputError, QuantumError


class StorageError(QuantumError):
    """The database cannot be reached, read or written; the journal has lost nothing by that."""


class DatabaseAddressError(BadInputError):
    """The address names no database that this install can use."""


class SchemaError(StorageError):
    """The tables are not those of this version: older, newer, or of another program."""


class AnotherJournalError(StorageError):
    """The tables were made from another journal than the one that is to be read on."""


class BackupError(QuantumError):
    """A backup could not be made, is not whole, or may not be restored there; nothing was overwritten."""
