"""The policy that a worker starts with: from its store, which a file and the environment seed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from feature_store.clock import utc_now_ms
from inference.domain.errors import PolicyError
from inference.domain.policy import Policy
from inference.governance.charter import Charter, charter_of
from inference.policy.live import unfit_for_live
from inference.policy.policy_file import read_policy
from inference.policy.profiles import DEFAULT, profile
from inference.policy.store import PolicyStore
from inference.policy.versions import PolicyConflictError, PolicyStoreError, PolicyVersion, Source
from inference.policy.watch import (
    LOADED,
    SEED_IGNORED,
    UPDATED,
    PolicyWatch,
    changes_text,
    missed_detail,
    version_detail,
)
from inference.settings import Settings
from inference.telemetry.logs import logger

_log = logger("bootstrap")

_FROM_ENVIRONMENT = ("bias_mode", "bias_window", "bias_share")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """What the first version is made of; `is_asked` says that somebody named a file, a profile or a rule."""

    policy: Policy
    words: str
    is_asked: bool


def read_charter(file: Path | None) -> Charter:
    """
    Return the numbers by which the committee votes: those of a file, or the usual ones where none is named.

    Raises:
        PolicyError: The file cannot be read, or is no charter.
    """
    if file is None:
        return Charter()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"The charter {file} cannot be read: {error}; QT_CHARTER names it") from error
    return charter_of(text)


def seed_of(settings: Settings, file: Path | None) -> Seed:
    """
    Return the policy that a file, else a profile, and the environment say.

    Raises:
        PolicyError: The file or the profile cannot be used.
    """
    name = settings.policy_profile
    base = read_policy(file) if file is not None else profile(name or DEFAULT).policy
    said = {one: getattr(settings, one) for one in _FROM_ENVIRONMENT if one in settings.model_fields_set}
    words = [str(file)] if file is not None else [f"profile {name or DEFAULT}"]
    words += [f"QT_{one.upper()}" for one in said]
    return Seed(
        policy=replace(base, **said),
        words=", ".join(words),
        is_asked=file is not None or name is not None or bool(said),
    )


def policy_beside(settings: Settings, file: Path | None) -> Policy:
    """
    Return the rules of the worker that somebody scores beside: its store's, where there is one, else its seed's.

    Raises:
        PolicyError: The file or the profile cannot be used.
    """
    seed = seed_of(settings, file)
    store = PolicyStore(settings.policy_folder, now_ms=utc_now_ms)
    try:
        found = store.newest()
    except PolicyStoreError as error:
        _log.warning("policy_store_not_read", error=str(error), consequence="the rules that were asked for")
        found = None
    return seed.policy if found is None else found.policy


class StartedPolicy:
    """
    The policy of one start: what is in force, and what has to be told of how it came about.

    A store that cannot be trusted leaves the newest version of its snapshot in force, else what the seed says; entries
    wait then. A policy that is unfit for real money does not begin to trade it; a worker that has positions to guard
    starts all the same, and holds entries back.
    """

    def __init__(self, settings: Settings, seed: Seed, *, guards: bool = False) -> None:
        """
        Open the store; `guards` says that trades are open, whose exits must go on whatever the policy says.

        Raises:
            PolicyError: The mode is live or testnet, nothing is open, and the policy leaves a guard without a number or
                is above what is allowed there.
        """
        self._seed = seed
        self._mode = settings.mode
        self._begins_live = settings.mode.is_at_a_venue and not guards
        self._store = PolicyStore(settings.policy_folder, now_ms=utc_now_ms)
        self._fault: PolicyStoreError | None = None
        self._first: PolicyVersion | None = None
        self._told: list[tuple[str, dict[str, str]]] = []
        if not self._store.exists:
            # Before a first version is made of it: the next start may then name another profile.
            self._require_fit(seed.policy, f"name other rules than {seed.words}: --policy FILE, QT_POLICY_PROFILE")
        current = self._open()
        if self._fault is None and current is not None:
            self._require_fit(current.policy, "make another version: `qtctl policy set KEY=VALUE --reason ...`")
        self.watch = PolicyWatch(self._store, current, self._fault)

    @property
    def policy(self) -> Policy:
        """The rules in force."""
        return self._seed.policy if self.watch.current is None else self.watch.current.policy

    def tell(self, note: Callable[[str, Mapping[str, str]], None], *, told: int = 0) -> None:
        """
        Journal what is in force, what was made since the journal was last told, and a seed that is not in force.

        `told` is the number of the last version that the journal knows, 0 where it knows none.
        """
        current, self.watch.told = self.watch.current, told
        if current is not None:
            # Before what is loaded: a crash between the two must not make them known.
            for before, one in self.watch.made_after(told, current.number + 1):
                note(UPDATED, missed_detail(one, before, current))
            note(LOADED, version_detail(current))
        for event_type, detail in self._told:
            note(event_type, detail)
            _log.warning(event_type.replace(".", "_"), **detail)

    def _require_fit(self, policy: Policy, remedy: str) -> None:
        found = unfit_for_live(policy) if self._begins_live else ""
        if found:
            raise PolicyError(f"QT_MODE={self._mode.value} does not start by this policy: {found}. To go on, {remedy}")

    def _open(self) -> PolicyVersion | None:
        try:
            current = self._newest_or_seeded()
            self._first = self._store.version(1)
            self._store.back_up()
        except PolicyStoreError as error:
            self._fault = error
            return self._last_good()
        self._compare(current)
        return current

    def _newest_or_seeded(self) -> PolicyVersion:
        found = self._store.newest()
        if found is not None:
            return found
        seed = self._seed
        try:
            return self._store.append(
                seed.policy, expected=0, author="worker", reason="first start", source=Source.SEED, of=seed.words
            )
        except PolicyConflictError:
            # Somebody set the first version meanwhile.
            return self._newest_or_seeded()

    def _last_good(self) -> PolicyVersion | None:
        try:
            return self._store.last_good()
        except PolicyStoreError as error:
            _log.error("policy_snapshot_not_read", error=str(error), consequence="the seed's rules, no entries")
            return None

    def _compare(self, current: PolicyVersion) -> None:
        seed, first = self._seed, self._first
        known = {one.policy.fingerprint for one in (current, first) if one is not None}
        if not seed.is_asked or seed.policy.fingerprint in known:
            return
        detail = {
            "seed": seed.words,
            "seed_fingerprint": seed.policy.fingerprint,
            "version": str(current.number),
            "would_change": changes_text(current.policy, seed.policy)[:1000],
            "remedy": "the store is in force; `qtctl policy set --file FILE` or KEY=VALUE makes a version of it",
        }
        self._told.append((SEED_IGNORED, detail))
