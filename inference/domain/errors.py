"""Errors of the worker that are not the venue's; each says what was found and what to do next."""

from __future__ import annotations

from feature_store.errors import BadInputError, QuantumError


class BundleError(QuantumError):
    """A model bundle cannot be trusted: a digest, the fingerprint, the schema or a golden output disagrees."""


class RegistryUnavailableError(QuantumError):
    """The model registry did not answer; what is loaded goes on."""


class NothingPromotedError(QuantumError):
    """The alias points to no version: there is nothing to trade."""


class JournalError(QuantumError):
    """The journal's chain is broken or its file cannot be written; trading must not go on without a record."""


class PolicyError(BadInputError):
    """A policy value is outside its bounds or contradicts another."""


class SettingsError(BadInputError):
    """The environment's settings contradict each other or miss what the mode needs."""


class PaperAccountError(QuantumError):
    """The file of a paper account is damaged, or another account's; nothing may be traded on a guess of it."""
