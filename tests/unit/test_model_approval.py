"""Real money is traded only by a bundle whose verdict and approval are journaled."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from feature_store.features.definition import fingerprint
from inference.domain.errors import BundleError
from inference.models.bundle import bundle_digest
from inference.models.registry import BundleCache, LastGood
from inference.supervision.approval import journaled_approvals
from inference.supervision.model_watch import ModelWatch
from tests.unit.test_model_watch import Shelf
from tests.worker_bundle import make_bundle

VENUE = "binanceusdm"
LIVE = {"mode": "live", "venue": VENUE}
Events = list[tuple[str, dict[str, str]]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "one", seed=3)


def _tags(bundle: Path, **changed: str) -> dict[str, str]:
    given = {
        "gate_verdict": "passed", "gate_mode": "live", "bundle_digest": bundle_digest(bundle),
        "approved_digest": bundle_digest(bundle), "approved_by": "Ada", "approved_verdict": "held",
        "approved_at": "2026-03-01T00:00:00+00:00", "venue": VENUE,
    }  # fmt: skip
    return given | changed


def _live(root: Path, events: Events, *, journaled: frozenset[str] = frozenset(), pin: str | None = None) -> ModelWatch:
    return ModelWatch(
        cache=BundleCache(root),
        fingerprint=fingerprint(),
        timeframe="5m",
        on_event=lambda kind, detail: events.append((kind, dict(detail))),
        monotonic=lambda: 0.0,
        approved_digest=pin,
        only_approved=True,
        venue=VENUE,
        journaled_approvals=journaled,
    )


async def test_an_approved_version_trades_once_it_is_journaled(tmp_path, bundle):
    """Verdict and approval are journaled before the model is offered, and suffice at the next start."""
    events: Events = []
    await (watch := _live(tmp_path, events)).look(Shelf(bundle, "4", _tags(bundle)), "champion")
    offered = watch.take()

    assert offered is not None
    assert [kind for kind, _ in events] == ["model.verdict", "model.approved"]
    assert events[1][1]["by"] == "Ada"
    assert journaled_approvals(events, venue=VENUE) == {bundle_digest(bundle)}

    again = _live(tmp_path, [], journaled=journaled_approvals(events, venue=VENUE))
    await again.load_last_good()
    assert again.take() is not None


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        pytest.param({"gate_verdict": "held"}, "gate_verdict=held", id="held"),
        pytest.param({"gate_verdict": "refused"}, "gate_verdict=refused", id="refused"),
        pytest.param({"gate_mode": "sandbox"}, "QT_MODE=sandbox", id="judged-for-the-sandbox"),
        pytest.param({"gate_mode": "testnet"}, "QT_MODE=testnet", id="judged-for-the-test-network"),
        pytest.param({"venue": "sandbox"}, "trained on sandbox, this worker trades binanceusdm", id="synthetic-market"),
        pytest.param({"venue": ""}, "a venue that its tags do not name", id="trained-nobody-knows-where"),
        pytest.param({"approved_by": " "}, "qtctl approve 4", id="by-nobody"),
        pytest.param({"approved_at": ""}, "qtctl approve 4", id="at-no-time"),
        pytest.param({"approved_digest": ""}, "qtctl approve 4", id="of-nothing"),
        pytest.param({"approved_digest": "e" * 64}, "is of bundle eeee", id="of-another"),
    ],
)
async def test_anything_less_is_refused(tmp_path, bundle, changed, why):
    """Neither a gate nor a person can be left out, and an approval is of one bundle."""
    events: Events = []
    await (watch := _live(tmp_path, events)).look(Shelf(bundle, "4", _tags(bundle, **changed)), "champion")

    assert watch.take() is None
    assert [kind for kind, _ in events] == ["model.refused"]
    assert why in events[0][1]["reason"]


async def test_a_cached_bundle_needs_the_journal(tmp_path, bundle):
    """What traded last in another mode, or with another journal, does not trade real money."""
    digest = bundle_digest(bundle)
    shutil.copytree(bundle, tmp_path / digest)
    BundleCache(tmp_path).remember(LastGood(digest=digest, version="4", gated=True))
    events: Events = []
    await (watch := _live(tmp_path, events)).load_last_good()

    assert watch.take() is None
    assert "journal" in events[0][1]["reason"]


async def test_a_folder_never_trades_real_money(tmp_path, bundle):
    """There is no registry behind it, hence no verdict."""
    with pytest.raises(BundleError, match="never a folder"):
        await _live(tmp_path, []).load_folder(bundle)


async def test_a_pinned_digest_lets_no_other_trade(tmp_path, bundle):
    """QT_APPROVAL_FILE narrows further what MLflow approves."""
    events: Events = []
    await (watch := _live(tmp_path, events, pin="a" * 64)).look(Shelf(bundle, "4", _tags(bundle)), "champion")

    assert watch.take() is None
    assert "QT_APPROVAL_FILE" in events[0][1]["reason"]


@pytest.mark.parametrize(
    ("events", "approved"),
    [
        ([], False),
        ([("model.verdict", {"digest": "d", "verdict": "passed", **LIVE})], False),
        ([("model.approved", {"digest": "d"})], False),
        (
            [("model.approved", {"digest": "d"}), ("model.verdict", {"digest": "d", "verdict": "promoted", **LIVE})],
            True,
        ),
        *(
            (
                [
                    ("model.verdict", {"digest": "d", "verdict": "promoted", **other}),
                    ("model.approved", {"digest": "d"}),
                ],
                False,
            )
            for other in (
                {},
                LIVE | {"mode": "sandbox"},
                LIVE | {"mode": "testnet"},
                LIVE | {"venue": "sandbox"},
                {"mode": "live"},
            )
        ),
        # A person's word in a test network is none for real money.
        (
            [
                ("model.approved", {"digest": "d", "mode": "testnet"}),
                ("model.verdict", {"digest": "d", "verdict": "promoted", **LIVE}),
            ],
            False,
        ),
        (
            [
                ("model.approved", {"digest": "d"}),
                ("model.verdict", {"digest": "d", "verdict": "passed", **LIVE}),
                ("model.verdict", {"digest": "d", "verdict": "refused"}),
            ],
            False,
        ),
        ([("model.approved", {"digest": "d"}), ("model.verdict", {"digest": "e", "verdict": "passed", **LIVE})], False),
        ([("model.approved", {}), ("model.verdict", {"verdict": "passed", **LIVE})], False),
    ],
)
def test_both_must_be_journaled(events, approved):
    """A verdict or an approval alone, of another bundle, for another mode or venue, or taken back, is not enough."""
    assert (journaled_approvals(events, venue=VENUE) == {"d"}) is approved
