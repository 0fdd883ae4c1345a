"""A version that a rollback set aside does not trade, whoever answers and whatever lies in the home."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from feature_store.features.definition import fingerprint
from inference.domain.errors import NothingPromotedError, RegistryUnavailableError
from inference.models.bundle import bundle_digest, load_bundle
from inference.models.registry import BundleCache, LastGood, ModelVersion
from inference.models.set_aside import SetAside, found_aside, is_set_aside, let_again, set_aside
from inference.supervision.model_watch import ActiveModel, ModelWatch
from tests.unit.test_model_watch import Shelf
from tests.worker_bundle import make_bundle

Events = list[tuple[str, dict[str, str]]]
DIGEST = "a" * 64
NOON = "2026-03-01T12:00:00.000+00:00"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> tuple[Path, Path]:
    """Return the bundle that traded first, and the one that replaced it."""
    folder = tmp_path_factory.mktemp("bundles")
    return make_bundle(folder / "old", seed=1), make_bundle(folder / "new", seed=2)


def watch(root: Path, events: Events | None = None, **changed: object) -> ModelWatch:
    told = events if events is not None else []
    return ModelWatch(
        cache=BundleCache(root),
        fingerprint=fingerprint(),
        timeframe="5m",
        on_event=lambda kind, detail: told.append((kind, dict(detail))),
        monotonic=lambda: 0.0,
        **changed,  # type: ignore[arg-type]
    )


async def trades(models: ModelWatch, shelf: object) -> str | None:
    """Look once, take what waits as the worker does, and return the version that trades."""
    await models.look(shelf, "champion")  # type: ignore[arg-type]
    return taken(models)


def taken(models: ModelWatch) -> str | None:
    offered = models.take()
    return None if offered is None else offered.version


def tags(bundle: Path, **more: str) -> dict[str, str]:
    return {"bundle_digest": bundle_digest(bundle), "gate_verdict": "passed", **more}


async def after_two(root: Path, bundles: tuple[Path, Path], events: Events | None = None) -> tuple[ModelWatch, Shelf]:
    """Return a watch whose version 2 replaced its version 1, and the shelf that holds version 2."""
    models = watch(root, events)
    assert await trades(models, Shelf(bundles[0], "1", tags(bundles[0]))) == "1"
    shelf = Shelf(bundles[1], "2", tags(bundles[1], status="active"))
    assert await trades(models, shelf) == "2"
    return models, shelf


def order(bundles: tuple[Path, Path], back_to: Path | None = None) -> SetAside:
    digest = "" if back_to is None else bundle_digest(back_to)
    return SetAside(version="2", digest=bundle_digest(bundles[1]), decided_at=NOON, back_to=digest)


class Down:
    """A registry that does not answer."""

    async def version_of(self, alias: str) -> ModelVersion:
        """Say so."""
        raise RegistryUnavailableError(f"nobody answers for {alias}")


async def test_a_rejected_champion_is_left_though_nothing_can_replace_it(tmp_path, bundles):
    """The registry rejects the version its alias still names: the worker lets go, and says what to do."""
    events: Events = []
    models, shelf = await after_two(tmp_path, bundles, events)

    shelf.tags = tags(bundles[1], status="rejected")
    assert await trades(models, shelf) is None
    await models.look(shelf, "champion")

    assert models.wanted is False
    assert "set aside by a rollback" in models.reason
    assert [kind for kind, _ in events].count("model.absent") == 1


async def test_a_rejection_outlives_a_start_without_the_registry(tmp_path, bundles):
    """What the registry rejected is not loaded as the last good one while the registry is down."""
    models, shelf = await after_two(tmp_path, bundles)
    shelf.tags = tags(bundles[1], status="rejected")
    await models.look(shelf, "champion")

    again = watch(tmp_path)
    await again.load_last_good()
    await again.look(Down(), "champion")  # type: ignore[arg-type]

    assert again.take() is None


async def test_an_order_of_this_home_needs_no_registry(tmp_path, bundles):
    """With the registry down, the cached bundle that traded before takes over, at once and at the next start."""
    models, _ = await after_two(tmp_path, bundles)
    set_aside(tmp_path, order(bundles, back_to=bundles[0]))
    await models.obey()
    back = models.take()

    assert back is not None
    assert (back.version, back.source, back.bundle.digest) == ("1", "cache", bundle_digest(bundles[0]))
    assert models.wanted
    await models.obey()
    assert models.take() is None

    again = watch(tmp_path)
    await again.load_last_good()
    assert taken(again) == "1"


async def test_an_order_finds_a_worker_that_has_left_it_already(tmp_path, bundles):
    """The registry rejected the champion without another; then it went down, and the home says what takes over."""
    models, shelf = await after_two(tmp_path, bundles)
    shelf.tags = tags(bundles[1], status="rejected")
    await models.look(shelf, "champion")
    await models.obey()
    assert models.wanted is False

    set_aside(tmp_path, order(bundles, back_to=bundles[0]))
    await models.obey()

    assert taken(models) == "1"
    assert models.wanted


async def test_a_start_obeys_an_order_that_came_while_nothing_ran(tmp_path, bundles):
    """The worker was down when the order was left."""
    await after_two(tmp_path, bundles)
    set_aside(tmp_path, order(bundles, back_to=bundles[0]))

    again = watch(tmp_path)
    await again.load_last_good()

    assert taken(again) == "1"


async def test_a_registry_that_has_not_heard_of_it_changes_nothing(tmp_path, bundles):
    """Back again, the registry still names the version that was set aside here: the one before goes on."""
    events: Events = []
    models, shelf = await after_two(tmp_path, bundles, events)
    set_aside(tmp_path, order(bundles, back_to=bundles[0]))
    await models.obey()
    assert taken(models) == "1"

    for _ in range(3):
        assert await trades(models, shelf) is None

    assert models.wanted
    refused = [detail["version"] for kind, detail in events if kind == "model.refused"]
    assert refused == ["2"]


async def test_nothing_enters_where_nobody_can_take_over(tmp_path, bundles):
    """An order that names nobody, or a bundle that was damaged on disk, leaves the worker without a model."""
    models, shelf = await after_two(tmp_path, bundles)
    (tmp_path / bundle_digest(bundles[0]) / "xgboost.ubj").write_bytes(b"spoilt")
    set_aside(tmp_path, order(bundles, back_to=bundles[0]))
    await models.obey()

    assert models.take() is None
    assert models.wanted is False
    assert await trades(models, shelf) is None
    assert models.wanted is False


async def test_the_version_it_goes_back_to_needs_its_approval_for_real_money(tmp_path, bundles):
    """An order of this home replaces no approval: what the journal does not hold does not trade."""
    root = tmp_path
    for bundle in bundles:
        shutil.copytree(bundle, root / bundle_digest(bundle))
    cache = BundleCache(root)
    for bundle, number in zip(bundles, "12", strict=True):
        cache.remember(LastGood(digest=bundle_digest(bundle), version=number, gated=True))
    set_aside(root, order(bundles, back_to=bundles[0]))

    unproven = watch(root, only_approved=True, journaled_approvals=frozenset({bundle_digest(bundles[1])}))
    await unproven.load_last_good()
    assert unproven.take() is None

    shutil.copytree(bundles[0], root / bundle_digest(bundles[0]))
    proven = watch(root, only_approved=True, journaled_approvals=frozenset({bundle_digest(bundles[0])}))
    await proven.load_last_good()
    assert taken(proven) == "1"


async def test_judged_again_it_trades_again(tmp_path, bundles):
    """Once the gates passed it after the order, the order is over, also for the next start."""
    models, shelf = await after_two(tmp_path, bundles)
    set_aside(tmp_path, order(bundles, back_to=bundles[0]))
    await models.obey()
    assert taken(models) == "1"

    shelf.tags = tags(bundles[1], status="active", judged_at="2026-03-01T13:00:00+00:00")
    assert await trades(models, shelf) == "2"

    assert found_aside(tmp_path, "2", bundle_digest(bundles[1])) is None


async def test_a_digest_that_is_learned_late_is_held_against_the_order(tmp_path, bundles):
    """A version without the tag bundle_digest is known only once it was downloaded: it does not trade either."""
    set_aside(tmp_path, order(bundles))
    models = watch(tmp_path)

    assert await trades(models, Shelf(bundles[1], "2", {"gate_verdict": "passed"})) is None
    assert "set aside by a rollback" in models.reason


async def test_nothing_promoted_still_says_so(tmp_path, bundles):
    """An order is no reason to trade what the registry took away."""

    class Empty:
        async def version_of(self, alias: str) -> ModelVersion:
            """Say that the alias is gone."""
            raise NothingPromotedError(f"no alias {alias}")

    models, _ = await after_two(tmp_path, bundles)
    await models.look(Empty(), "champion")  # type: ignore[arg-type]
    set_aside(tmp_path, order(bundles, back_to=bundles[0]))
    await models.obey()

    assert models.take() is None


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="torn"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"\x00" * 20_000, id="huge"),
        pytest.param(b"[" * 9_000, id="deep"),
        pytest.param(b'{"x":' + b"[" * 9_000, id="deep-within"),
        pytest.param(b'{"back_to":"\xff"}', id="no-utf-8"),
        pytest.param(b'{"version":"1","digest":"' + b"b" * 64 + b'","back_to":"../../etc"}', id="of-another"),
    ],
)
def test_a_file_that_cannot_be_read_sets_aside_too(tmp_path, content):
    """A damaged order is an order: its name says of which version, and nothing else of it is believed."""
    set_aside(tmp_path, SetAside(version="2", digest=DIGEST, decided_at=NOON, back_to="b" * 64))
    (file,) = (tmp_path / "set-aside").iterdir()
    file.write_bytes(content)

    assert found_aside(tmp_path, "2", DIGEST) == SetAside(version="2", digest=DIGEST)


def test_a_link_is_not_followed(tmp_path):
    """A link in an order's place sets aside, and what it points at is not read."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("{}")
    folder = tmp_path / "set-aside"
    folder.mkdir()
    (folder / f"{DIGEST}-2.json").symlink_to(elsewhere)

    assert found_aside(tmp_path, "2", DIGEST) == SetAside(version="2", digest=DIGEST)
    let_again(tmp_path, "2", DIGEST)
    assert found_aside(tmp_path, "2", DIGEST) is None
    assert elsewhere.exists()


@pytest.mark.parametrize(
    ("version", "digest"), [("../2", DIGEST), ("", DIGEST), ("2", "../" * 20), ("2", ""), ("2", DIGEST.upper())]
)
def test_names_that_lead_elsewhere_are_no_names(tmp_path, version, digest):
    """Numbers and digests come from a registry: what is none of them is neither written nor found."""
    with pytest.raises(ValueError, match="number and a digest"):
        set_aside(tmp_path, SetAside(version=version, digest=digest))
    assert found_aside(tmp_path, version, digest) is None
    let_again(tmp_path, version, digest)
    assert list(tmp_path.iterdir()) == []


def test_a_second_order_keeps_who_takes_over(tmp_path):
    """A rejection that names nobody does not take the way back from an order that did."""
    set_aside(tmp_path, SetAside(version="2", digest=DIGEST, decided_at=NOON, back_to="b" * 64))
    set_aside(tmp_path, SetAside(version="2", digest=DIGEST, decided_at=NOON))

    found = found_aside(tmp_path, "2", DIGEST)
    assert found is not None
    assert found.back_to == "b" * 64


@pytest.mark.parametrize(
    ("told", "aside"),
    [
        pytest.param({}, True, id="not-heard-of"),
        pytest.param({"status": "rejected", "gate_verdict": "passed", "judged_at": "2026-03-02"}, True, id="rejected"),
        pytest.param({"gate_verdict": "passed", "judged_at": "2026-03-01T11:00:00+00:00"}, True, id="judged-before"),
        pytest.param({"gate_verdict": "refused", "judged_at": "2026-03-01T13:00:00+00:00"}, True, id="refused-after"),
        pytest.param({"gate_verdict": "passed", "judged_at": "2026-03-01T13:00:00"}, True, id="no-zone"),
        pytest.param({"gate_verdict": "passed", "judged_at": "tomorrow"}, True, id="no-moment"),
        pytest.param({"gate_verdict": "passed", "judged_at": "2026-03-01T13:00:00+00:00"}, False, id="passed-after"),
    ],
)
def test_an_order_holds_until_the_gates_passed_it_again(told, aside):
    """Only a later verdict ends an order; without one, only the registry's rejection counts."""
    assert is_set_aside(SetAside(version="2", digest=DIGEST, decided_at=NOON), told) is aside
    assert is_set_aside(None, told) is (told.get("status") == "rejected")


def test_the_cache_knows_what_traded_before(tmp_path):
    """Each bundle once, the newest first, and none of them leaves the cache for one that never traded."""
    digests = [f"{number:064x}" for number in range(15)]
    cache = BundleCache(tmp_path)
    for digest in digests[:3]:
        (tmp_path / digest).mkdir(parents=True)
        cache.remember(LastGood(digest=digest, version="v", gated=True))
    for digest in digests[3:]:
        (tmp_path / digest).mkdir()
    for _ in range(2):
        cache.remember(LastGood(digest=digests[1], version="v", gated=True))

    found = cache.last_good()
    assert found is not None
    assert [one.digest for one in (found, *found.earlier)] == [digests[1], digests[2], digests[0]]
    assert all((tmp_path / digest).is_dir() for digest in digests[:3])
    assert cache.traded(digests[0]) is not None
    assert cache.traded("../etc") is None


@pytest.mark.parametrize("content", ['{"earlier":' * 2000, '{"digest":"x","version":"1","gated":true}', "[]"])
def test_a_damaged_note_of_what_traded_is_none(tmp_path, content):
    """Then nothing is known to have traded, and the next model is noted all the same."""
    (tmp_path / "last-good.json").write_text(content)
    cache = BundleCache(tmp_path)
    assert cache.last_good() is None
    (tmp_path / DIGEST).mkdir()

    cache.remember(LastGood(digest=DIGEST, version="1", gated=True))

    assert cache.last_good() is not None


async def test_a_model_that_is_left_gives_its_place_to_the_one_before(tmp_path, bundles):
    """What a fallback decides is obeyed as a rollback is: the cached bundle trades, whatever the alias still names."""
    events: Events = []
    models, shelf = await after_two(tmp_path, bundles, events)
    left = active(bundles[1], "2")

    assert models.leave(left) == bundle_digest(bundles[0])
    await models.obey()
    assert taken(models) == "1"
    await models.look(shelf, "champion")  # type: ignore[arg-type]
    assert models.take() is None
    assert models.wanted
    # The next life, without a registry.
    again = watch(tmp_path)
    await again.load_last_good()
    assert taken(again) == "1"


async def test_a_model_without_another_before_it_leaves_an_empty_place(tmp_path, bundles):
    """Nothing trades until another version is promoted; a bundle before that was set aside itself is none."""
    models = watch(tmp_path)
    assert await trades(models, Shelf(bundles[0], "1", tags(bundles[0]))) == "1"
    assert models.leave(active(bundles[0], "1")) == ""
    await models.obey()
    assert models.wanted is False

    both = watch(tmp_path / "two")
    assert await trades(both, Shelf(bundles[0], "1", tags(bundles[0]))) == "1"
    assert await trades(both, Shelf(bundles[1], "2", tags(bundles[1]))) == "2"
    set_aside(tmp_path / "two", SetAside(version="1", digest=bundle_digest(bundles[0]), decided_at=NOON))
    assert both.leave(active(bundles[1], "2")) == ""


async def test_a_home_that_cannot_be_written_is_said(tmp_path, bundles):
    """The order cannot be left: the journal says so, and the caller knows that nobody takes over."""
    events: Events = []
    models, _ = await after_two(tmp_path, bundles, events)
    (tmp_path / "set-aside").write_text("in the way")

    assert models.leave(active(bundles[1], "2")) is None
    assert models.leave(active(bundles[1], "2")) is None
    assert not models.is_left(active(bundles[1], "2"))
    assert [kind for kind, _ in events].count("model.not_set_aside") == 1


def active(bundle: Path, version: str) -> ActiveModel:
    loaded = load_bundle(bundle, expected_fingerprint=fingerprint())
    return ActiveModel(bundle=loaded, version=version, gated=True, source="registry")
