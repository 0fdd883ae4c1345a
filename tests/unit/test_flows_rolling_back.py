"""A rollback ends in the same, however often it is ordered and wherever it is cut off, and says only what is so."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.registered import RegisteredVersion, RegistryError
from flows.registry import Registry
from flows.rolling_back import carry_out, go_back_here, heed_home, plan_rollback, roll_back, why_not
from flows.settings import FlowSettings
from inference.domain.errors import NothingPromotedError, RegistryUnavailableError
from inference.models.bundle import bundle_digest
from inference.models.notices import notices_in
from inference.models.registry import BundleCache, LastGood
from inference.models.set_aside import SetAside, found_aside, set_aside
from tests.stack_fixtures import free_port
from tests.worker_bundle import make_bundle


class Shelf(Registry):
    """A registry in memory; it stops answering before the n-th thing that it is told."""

    def __init__(self, bundles: Mapping[str, Path], aliases: Mapping[str, str], **tags: Mapping[str, str]) -> None:
        """Hold a version per bundle; nothing is asked of a server."""
        self.url = "http://shelf"
        self.bundles = dict(bundles)
        self.aliases = dict(aliases)
        self.held = {
            number: {"bundle_digest": bundle_digest(path), **tags.get(f"v{number}", {})}
            for number, path in bundles.items()
        }
        self.told = 0
        self.silent_from: int | None = None

    def _listen(self) -> None:
        if self.silent_from is not None and self.told >= self.silent_from:
            raise RegistryUnavailableError("MLflow at http://shelf does not answer")
        self.told += 1

    def version(self, number: str) -> RegisteredVersion:
        """Return one version."""
        names = tuple(alias for alias, at in self.aliases.items() if at == number)
        return RegisteredVersion(version=number, run_id=f"run-{number}", aliases=names, tags=dict(self.held[number]))

    def versions(self) -> list[RegisteredVersion]:
        """Return all, newest first."""
        return [self.version(number) for number in sorted(self.held, reverse=True)]

    def by_alias(self, alias: str) -> RegisteredVersion | None:
        """Return what an alias points at."""
        return self.version(self.aliases[alias]) if alias in self.aliases else None

    def tag(self, number: str, tags: Mapping[str, str]) -> None:
        """Set tags one after the other, as a server takes them."""
        for name, value in tags.items():
            self._listen()
            self.held[number][name] = value

    def set_alias(self, alias: str, number: str) -> None:
        """Move an alias."""
        self._listen()
        self.aliases[alias] = number

    def drop_alias(self, alias: str) -> None:
        """Remove an alias."""
        self._listen()
        self.aliases.pop(alias, None)

    def download_bundle(self, number: str, into: Path) -> Path:
        """Copy a version's bundle."""
        return Path(shutil.copytree(self.bundles[number], into / f"version-{number}"))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return {number: make_bundle(folder / number, seed=int(number)) for number in ("1", "2", "3")}


def shelf(bundles: Mapping[str, Path], **tags: Mapping[str, str]) -> Shelf:
    """Return a registry in which version 2 replaced version 1, and is still the newest candidate."""
    two = {number: bundles[number] for number in ("1", "2")}
    return Shelf(two, {"champion": "2", "previous": "1", "challenger": "2"}, **tags)


def ordered(registry: Shelf, settings: FlowSettings):
    plan = plan_rollback(registry)
    return carry_out(registry, settings, plan, why_not(registry, settings, plan))


def is_done(registry: Shelf) -> bool:
    return (
        registry.aliases == {"champion": "1", "previous": "2"}
        and registry.held["2"]["status"] == "rejected"
        and registry.held["1"]["status"] == "active"
    )


def home(tmp_path: Path, **changed: object) -> FlowSettings:
    return FlowSettings(home=tmp_path, mlflow_url=f"http://127.0.0.1:{free_port()}", **changed)  # type: ignore[arg-type]


def test_done_twice_it_changes_nothing(tmp_path, bundles):
    """The second order finds the first one carried out, says so, and leaves no second notice."""
    registry, settings = shelf(bundles), home(tmp_path)
    first = ordered(registry, settings)
    second = ordered(registry, settings)

    assert is_done(registry)
    assert (first.version, first.replaced, first.restored, first.repeated) == ("1", "2", True, False)
    assert (second.version, second.replaced, second.restored, second.repeated) == ("1", "2", True, True)
    assert "was set aside before" in second.sentence
    assert [notice.replaced for _, notice in notices_in(settings.verdicts) if notice] == ["2"]


@given(cut=st.integers(0, 9), again=st.lists(st.integers(0, 9), max_size=2), by_plan=st.booleans())
def test_cut_off_anywhere_it_goes_on_to_the_same_end(bundles, cut, again, by_plan):
    """Whether its task is tried again or it is ordered anew, the good version ends as champion and is not rejected."""
    with TemporaryDirectory() as folder:
        registry, settings = shelf(bundles), home(Path(folder))
        plan = plan_rollback(registry)
        for silent in (cut, *again):
            registry.told, registry.silent_from = 0, silent
            try:
                carry_out(registry, settings, plan if by_plan else plan_rollback(registry), None)
            except RegistryUnavailableError:
                assert registry.held["1"].get("status") != "rejected"
        registry.silent_from = None
        carry_out(registry, settings, plan if by_plan else plan_rollback(registry), None)

        assert is_done(registry)


def test_a_hiccup_after_the_aliases_moved_undoes_nothing(tmp_path, bundles):
    """The tags after them fail, the task is tried again: version 1 stays champion, version 2 stays rejected."""
    registry, settings = shelf(bundles), home(tmp_path)
    plan = plan_rollback(registry)
    registry.silent_from = 6
    with pytest.raises(RegistryUnavailableError):
        carry_out(registry, settings, plan, None)
    assert registry.aliases["champion"] == "1"

    registry.silent_from = None
    carry_out(registry, settings, plan, None)

    assert is_done(registry)


@pytest.mark.parametrize(
    ("first", "why"),
    [
        pytest.param({"bundle_digest": "0" * 64}, "expected 000", id="another-bundle"),
        pytest.param({"status": "rejected"}, None, id="rejected-by-hand"),
        pytest.param({"gate_verdict": "passed", "gate_mode": "paper"}, "judged for QT_MODE=paper", id="not-for-live"),
        pytest.param(
            {"gate_verdict": "passed", "gate_mode": "live", "venue": "sandbox"}, "approval", id="not-approved"
        ),
    ],
)
def test_where_the_worker_would_refuse_the_other_no_alias_moves(tmp_path, bundles, first, why):
    """The champion is rejected, so that it enters nothing more, and the sentence does not say that another trades."""
    registry, settings = shelf(bundles, v1=first), home(tmp_path, mode="live")
    if why is None:
        registry.held["2"]["status"] = "rejected"
        with pytest.raises(NothingPromotedError, match="Nothing to roll back to"):
            ordered(registry, settings)
        return

    done = ordered(registry, settings)

    assert (done.restored, done.only_here) == (False, False)
    assert why in done.reasons[0]
    assert "cannot take its place" in done.sentence
    assert registry.aliases == {"champion": "2", "previous": "1"}
    assert registry.held["2"]["status"] == "rejected"
    assert registry.held["1"].get("status") is None
    assert list(notices_in(settings.verdicts)) == []


def test_a_bundle_of_another_release_is_not_said_to_trade(tmp_path, bundles):
    """Its candles are of another duration than this environment says: the worker would refuse it."""
    done = ordered(shelf(bundles), home(tmp_path, timeframe="1h"))

    assert not done.restored
    assert "QT_TIMEFRAME says 1h" in done.reasons[0]


def test_the_champion_that_was_judged_for_real_money_is_not_replaced_by_less(tmp_path, bundles):
    """Whoever forgets QT_MODE=live in an emergency is told what the live worker would do."""
    registry = shelf(bundles, v2={"gate_mode": "live"}, v1={"gate_verdict": "held"})

    assert "gate_verdict=held" in ordered(registry, home(tmp_path)).reasons[0]


def test_what_a_home_set_aside_is_nothing_to_go_back_to(tmp_path, bundles):
    """An order that the registry never heard of counts: two bad versions do not take turns."""
    settings = home(tmp_path)
    set_aside(settings.bundles, SetAside(version="1", digest=bundle_digest(bundles["1"])))

    assert "itself set aside" in ordered(shelf(bundles), settings).reasons[0]


def test_another_promotion_in_between_is_not_overrun(tmp_path, bundles):
    """A version that became champion after the plan was made stays so."""
    registry = Shelf(bundles, {"champion": "2", "previous": "1"})
    plan = plan_rollback(registry)
    registry.aliases["champion"] = "3"

    with pytest.raises(RegistryError, match="Version 3 became champion"):
        carry_out(registry, home(tmp_path), plan, None)
    assert "status" not in registry.held["2"]


def test_the_next_promotion_does_not_forget_the_rejection(bundles):
    """Version 3 replaces what was gone back to: that is what the next rollback finds, and version 2 stays rejected."""
    registry = Shelf(bundles, {"champion": "1", "previous": "2"}, v2={"status": "rejected"})
    registry.promote("3")

    assert registry.aliases == {"champion": "3", "previous": "1"}
    assert registry.held["2"]["status"] == "rejected"


def test_a_rejected_champion_does_not_become_previous(bundles):
    """Set aside while nobody could take its place, it is not what the next rollback goes back to."""
    registry = Shelf(bundles, {"champion": "2", "previous": "1"}, v2={"status": "rejected"}, v1={"status": "standby"})
    registry.promote("3")

    assert registry.aliases == {"champion": "3", "previous": "1"}
    assert (registry.held["2"]["status"], registry.held["1"]["status"]) == ("rejected", "standby")


@pytest.mark.parametrize("aliases", [{}, {"champion": "2"}, {"previous": "1"}, {"champion": "1", "previous": "1"}])
def test_without_another_there_is_nothing_to_go_back_to(bundles, aliases):
    """Then nothing is changed, and the sentence says what to do."""
    registry = Shelf(bundles, aliases)
    with pytest.raises(NothingPromotedError, match="Promote a second version first"):
        plan_rollback(registry)
    assert registry.told == 0


@dataclass
class Cached:
    """A home whose worker traded version 1, then version 2."""

    settings: FlowSettings
    digests: dict[str, str] = field(default_factory=dict)

    def trade(self, number: str, bundle: Path) -> None:
        """Let a bundle be what the worker traded last."""
        digest = self.digests[number] = bundle_digest(bundle)
        shutil.copytree(bundle, self.settings.bundles / digest, dirs_exist_ok=True)
        BundleCache(self.settings.bundles).remember(LastGood(digest=digest, version=number, gated=True))


@pytest.fixture
def cached(tmp_path, bundles) -> Cached:
    found = Cached(home(tmp_path))
    for number in ("1", "2"):
        found.trade(number, bundles[number])
    return found


def test_without_a_registry_the_home_goes_back(cached):
    """Nobody answers: the order is left for the worker, whose cached bundle was verified, and says that it is local."""
    done = roll_back(cached.settings)
    order = found_aside(cached.settings.bundles, "2", cached.digests["2"])

    assert (done.version, done.replaced, done.restored, done.only_here) == ("1", "2", True, True)
    assert order is not None
    assert order.back_to == cached.digests["1"]
    assert "goes back to version 1" in done.sentence
    assert "Run 'qtctl rollback' again once MLflow answers" in done.sentence
    assert [notice.version for _, notice in notices_in(cached.settings.verdicts) if notice] == ["1"]


@pytest.mark.parametrize("is_obeyed", [False, True])
def test_without_a_registry_twice_is_once(cached, bundles, is_obeyed):
    """Whether or not a worker has followed meanwhile, the second order does not undo the first."""
    go_back_here(cached.settings, "down")
    if is_obeyed:
        cached.trade("1", bundles["1"])
    done = go_back_here(cached.settings, "down")

    assert (done.version, done.replaced, done.restored, done.repeated) == ("1", "2", True, True)
    assert found_aside(cached.settings.bundles, "1", cached.digests["1"]) is None


def test_a_damaged_cache_is_not_said_to_trade(cached):
    """The bundle to go back to was changed on disk: what trades is set aside, and nothing is promised."""
    (cached.settings.bundles / cached.digests["1"] / "xgboost.ubj").write_bytes(b"spoilt")
    done = go_back_here(cached.settings, "down")
    order = found_aside(cached.settings.bundles, "2", cached.digests["2"])

    assert not done.restored
    assert "xgboost.ubj" in done.reasons[0]
    assert order is not None
    assert order.back_to == ""


def test_real_money_needs_the_journal_here_too(tmp_path, bundles):
    """In live a cached bundle whose approval is not journaled is not said to trade."""
    live = Cached(home(tmp_path, mode="live"))
    for number in ("1", "2"):
        live.trade(number, bundles[number])

    assert "does not say" in go_back_here(live.settings, "down").reasons[0]


def test_a_home_that_traded_one_bundle_has_nothing_to_go_back_to(tmp_path, bundles):
    """Then nothing is set aside, and the sentence says why."""
    young = Cached(home(tmp_path))
    with pytest.raises(NothingPromotedError, match="nothing to go back to"):
        go_back_here(young.settings, "down")
    young.trade("1", bundles["1"])
    with pytest.raises(NothingPromotedError, match="holds no bundle that traded before"):
        go_back_here(young.settings, "down")
    assert found_aside(young.settings.bundles, "1", young.digests["1"]) is None


def test_the_registry_is_told_after_the_home(cached, bundles):
    """Ordered again once MLflow answers, the same version is set aside there, and the sentence is the whole one."""
    roll_back(cached.settings)
    registry = shelf(bundles)
    done = ordered(registry, cached.settings)

    assert is_done(registry)
    assert (done.restored, done.only_here) == (True, False)
    assert done.sentence.startswith("Version 2 is set aside for version 1, which is champion")


def test_what_a_worker_left_is_moved_in_the_registry_too(tmp_path, bundles):
    """The flow does in MLflow what a fallback did in this home; undone or done again, it is nothing."""
    registry, settings = shelf(bundles), home(tmp_path)
    assert heed_home(registry, settings) is None
    digest = registry.held["2"]["bundle_digest"]
    set_aside(settings.bundles, SetAside(version="2", digest=digest, decided_at="2026-03-01T12:00:00.000+00:00"))

    done = heed_home(registry, settings)

    assert done is not None
    assert (done.version, done.replaced) == ("1", "2")
    assert is_done(registry)
    assert heed_home(registry, settings) is None


def test_a_left_champion_without_another_is_rejected(tmp_path, bundles):
    """No other worker trades it either; nothing is promoted in its place."""
    registry, settings = Shelf({"1": bundles["1"]}, {"champion": "1"}), home(tmp_path)
    set_aside(settings.bundles, SetAside(version="1", digest=registry.held["1"]["bundle_digest"], decided_at="x"))

    assert heed_home(registry, settings) is None
    assert registry.held["1"]["status"] == "rejected"
    assert registry.aliases == {"champion": "1"}


def test_a_champion_left_after_an_earlier_rollback_is_rejected(tmp_path, bundles):
    """What traded before it was itself set aside: nobody takes over, and no other worker trades it."""
    registry, settings = shelf(bundles), home(tmp_path)
    ordered(registry, settings)
    set_aside(settings.bundles, SetAside(version="1", digest=registry.held["1"]["bundle_digest"], decided_at="x"))

    assert heed_home(registry, settings) is None
    assert registry.held["1"]["status"] == "rejected"
    assert registry.aliases["champion"] == "1"


@given(cut=st.integers(0, 9))
def test_what_was_cut_off_is_brought_to_its_end(bundles, cut):
    """MLflow falls silent between any two steps; the next run of the flow ends where an undisturbed one does."""
    with TemporaryDirectory() as folder:
        registry, settings = shelf(bundles), home(Path(folder))
        digest = registry.held["2"]["bundle_digest"]
        set_aside(settings.bundles, SetAside(version="2", digest=digest, decided_at="2026-03-01T12:00:00.000+00:00"))
        registry.silent_from = cut
        with suppress(RegistryUnavailableError):
            heed_home(registry, settings)
        registry.silent_from = None

        heed_home(registry, settings)

        assert is_done(registry)
        assert [notice and notice.detail()["replaced"] for _, notice in notices_in(settings.verdicts)] == ["2"]


OLD = {"status": "rejected", "rolled_back_to": "1"}


@pytest.mark.parametrize("ended", [{}, {"rollback_ended_at": "2026-03-01T12:00:00+00:00"}], ids=["of-before", "ended"])
def test_a_promotion_that_was_cut_off_is_no_rollback(tmp_path, bundles, ended):
    """Promoting 3 moved `previous` and no more: the rollback from 2 to 1 of long ago is not carried out again."""
    registry = Shelf(bundles, {"champion": "1", "previous": "2"}, v2=OLD | ended, v1={"status": "active"})
    settings = home(tmp_path)
    registry.silent_from = 1
    with pytest.raises(RegistryUnavailableError):
        registry.promote("3")
    registry.told, registry.silent_from = 0, None
    assert registry.aliases == {"champion": "1", "previous": "1"}

    assert heed_home(registry, settings) is None
    with pytest.raises(NothingPromotedError, match="Nothing to roll back to"):
        plan_rollback(registry)

    assert registry.told == 0
    assert list(notices_in(settings.verdicts)) == []
    registry.promote("3")
    assert registry.aliases == {"champion": "3", "previous": "1"}


@pytest.mark.parametrize(
    ("moved", "status"),
    [pytest.param("previous", "active", id="previous"), pytest.param("champion", "standby", id="champion")],
)
def test_an_alias_that_was_moved_by_hand_is_no_rollback(tmp_path, bundles, moved, status):
    """Whoever points both aliases at version 1 is left alone: nothing is moved, tagged or announced."""
    old = OLD | {"rollback_ended_at": "2026-03-01T12:00:00+00:00"}
    other = {"champion": "3" if moved == "champion" else "1", "previous": "1" if moved == "champion" else "2"}
    registry = Shelf(bundles, other, v2=old, v1={"status": status})
    registry.aliases[moved] = "1"
    before, settings = {number: dict(tags) for number, tags in registry.held.items()}, home(tmp_path)

    assert heed_home(registry, settings) is None

    assert registry.aliases == {"champion": "1", "previous": "1"}
    assert registry.held == before
    assert list(notices_in(settings.verdicts)) == []


@pytest.mark.parametrize("cut", range(10))
def test_a_rollback_after_a_promotion_that_was_cut_off_ends_too(tmp_path, bundles, cut):
    """Version 1 is still tagged active, for promoting 2 was cut off before its last tag: the end is the same."""
    registry, settings = shelf(bundles, v1={"status": "active"}, v2={"status": "active"}), home(tmp_path)
    digest = registry.held["2"]["bundle_digest"]
    set_aside(settings.bundles, SetAside(version="2", digest=digest, decided_at="2026-03-01T12:00:00.000+00:00"))
    registry.silent_from = cut
    with suppress(RegistryUnavailableError):
        heed_home(registry, settings)
    registry.silent_from = None

    heed_home(registry, settings)

    assert is_done(registry)
    assert registry.held["2"]["rollback_ended_at"]
    assert heed_home(registry, settings) is None
