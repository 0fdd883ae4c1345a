"""Bundles that were damaged, forged or fed nonsense."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_store.errors import BadInputError
from inference.domain.errors import BundleError
from inference.models.bundle import bundle_digest, load_bundle, this_platform
from inference.models.inspection.refusal import Fault, InspectionError
from tests.training_support import FINGERPRINT, bundle_inputs, trained_candidate

FILES = ("manifest.json", "golden.npz", "xgboost.ubj", "lightgbm.txt", "nhits.onnx", "patchtst.onnx")


@pytest.fixture
def bundle(tmp_path):
    return shutil.copytree(trained_candidate().path, tmp_path / "bundle")


def _load(path, **expected):
    return load_bundle(path, **({"expected_fingerprint": FINGERPRINT} | expected))


def _edit(bundle, **changes):
    """Change the manifest, as a forger who knows the format would."""
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    manifest |= changes
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return manifest


def _forge(bundle, name, content):
    """Replace a file and mend its digest in the manifest."""
    entry = {"name": name, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    (bundle / name).write_bytes(content)
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    if name == "golden.npz":
        manifest["golden"]["file"] = entry
    for member in manifest["members"]:
        if member["file"]["name"] == name:
            member["file"] = entry
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_a_sound_bundle_loads(bundle):
    """A copy of what training wrote loads, under the digest that training reported."""
    loaded = _load(bundle, expected_digest=trained_candidate().report.bundle_digest)

    assert loaded.digest == bundle_digest(bundle)
    assert loaded.horizon == 12
    assert sum(loaded.weights.values()) == pytest.approx(1)


@functools.cache
def _pristine():
    return {name: (trained_candidate().path / name).read_bytes() for name in FILES}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(bundle, name, place, bit):
    """One bit flipped anywhere in any file, and the bundle is refused."""
    content = bytearray(_pristine()[name])
    content[int(place * len(content))] ^= 1 << bit
    (bundle / name).write_bytes(content)
    try:
        with pytest.raises(BundleError):
            _load(bundle, expected_digest=trained_candidate().report.bundle_digest)
    finally:
        (bundle / name).write_bytes(_pristine()[name])


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_found(bundle, name):
    """Half a file is no file, and the error names it or what it should be."""
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[: len(content) // 2])

    with pytest.raises(BundleError, match=r"SHA-256|manifest"):
        _load(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(bundle, name):
    """An absent file is an error that names it."""
    (bundle / name).unlink()

    with pytest.raises(BundleError, match=f"no readable {name}"):
        _load(bundle)


@pytest.mark.parametrize(
    "name", ["../secret.ubj", "/etc/passwd", "sub/x.ubj", "..", "x\x00.ubj", "C:\\x.ubj", "xgboost.ubj/../../y.ubj"]
)
def test_a_name_that_leaves_the_folder_is_refused(bundle, name):
    """A manifest that names a path instead of a plain name is refused before anything is opened."""
    (bundle.parent / "secret.ubj").write_bytes(b"not yours")
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    manifest["members"][0]["file"]["name"] = name
    _edit(bundle, members=manifest["members"])

    with pytest.raises(BundleError, match="plain lower-case name"):
        _load(bundle)


def test_a_link_is_not_followed(bundle):
    """A symbolic link in place of a file is refused, even to the right bytes."""
    elsewhere = bundle.parent / "elsewhere.ubj"
    shutil.move(bundle / "xgboost.ubj", elsewhere)
    (bundle / "xgboost.ubj").symlink_to(elsewhere)

    with pytest.raises(BundleError, match="regular file"):
        _load(bundle)


@pytest.mark.parametrize("name", ["evil.pkl", "sub/x.ubj", ".hidden", "Xgboost.ubj"])
def test_what_the_manifest_does_not_name_is_refused(bundle, name):
    """A folder that holds anything else is refused, and the error names it."""
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_bytes(b"\x80\x04not opened")

    with pytest.raises(InspectionError, match=name.split("/")[0]) as refused:
        _load(bundle)
    assert refused.value.fault is Fault.UNEXPECTED_FILE


def test_another_feature_set_is_refused(bundle):
    """A model trained on other features is refused, with what to do."""
    with pytest.raises(BundleError, match="Retrain with this version"):
        _load(bundle, expected_fingerprint="0" * 64)


def test_another_digest_than_the_registry_named_is_refused(bundle):
    """A whole and sound bundle that is not the one that was promoted is refused."""
    with pytest.raises(BundleError, match="expected 000"):
        _load(bundle, expected_digest="0" * 64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"schema_version": 3}, "Schema version", id="other-schema"),
        pytest.param({"threshold": 0.4}, "Threshold", id="threshold-below-a-half"),
        pytest.param({"threshold": 0.5}, "Threshold", id="threshold-that-abstention-meets"),
        pytest.param({"horizon": 0}, "Horizon", id="no-horizon"),
        pytest.param({"surprise": 1}, "unknown field", id="unknown-field"),
        pytest.param({"members": []}, "Member names", id="no-members"),
        pytest.param({"max_abs_expected_return": 5.0}, "bound on expected", id="unbounded"),
        pytest.param({"created_at": None}, "Expected `str`", id="wrong-type"),
    ],
)
def test_a_manifest_that_contradicts_its_schema_is_refused(bundle, changes, message):
    """Each rule of the manifest bites, and says which it was."""
    _edit(bundle, **changes)

    with pytest.raises(BundleError, match=message):
        _load(bundle)


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"schema_version": 1}'])
def test_a_manifest_that_is_none_is_refused(bundle, content):
    """Whatever lies under the manifest's name, only a manifest is read as one."""
    (bundle / "manifest.json").write_bytes(content)

    with pytest.raises(BundleError, match="manifest"):
        _load(bundle)


@pytest.mark.parametrize("name", ["xgboost.ubj", "lightgbm.txt", "nhits.onnx", "patchtst.onnx", "golden.npz"])
@pytest.mark.parametrize("content", [b"x", b"\x00" * 1000, b"tree\nversion=v4\n"])
def test_a_file_with_a_mended_digest_that_is_no_model_is_refused(bundle, name, content):
    """Digests that agree do not make a model of garbage."""
    _forge(bundle, name, content)

    with pytest.raises(BundleError):
        _load(bundle)


def test_changed_weights_do_not_reproduce_the_golden_outputs(bundle):
    """A manifest whose weights were changed is whole and valid, and answers otherwise than when it was trained."""
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    first, second = manifest["members"][:2]
    first["weight"], second["weight"] = first["weight"] + 0.05, second["weight"] - 0.05
    _edit(bundle, members=manifest["members"])

    with pytest.raises(BundleError, match="golden outputs: expected_return"):
        _load(bundle)


def _nudged(bundle, member):
    """Move one golden output of a member by its last bit, and mend the digest."""
    with np.load(bundle / "golden.npz", allow_pickle=False) as found:
        arrays = {name: found[name] for name in found.files}
    values = arrays[f"member_{member}"] = arrays[f"member_{member}"].copy()
    values[3] = np.nextafter(values[3], np.inf)
    np.savez(bundle / "golden.npz", allow_pickle=False, **arrays)
    _forge(bundle, "golden.npz", (bundle / "golden.npz").read_bytes())


@pytest.mark.parametrize("member", ["xgboost", "lightgbm"])
def test_trees_answer_to_the_last_bit_where_they_were_trained(bundle, member):
    """One bit of one tree's golden output refuses a bundle at home; elsewhere the bound of nets holds for trees."""
    _nudged(bundle, member)

    with pytest.raises(BundleError, match=f"golden outputs: member_{member} is not equal"):
        _load(bundle)

    golden = json.loads((bundle / "manifest.json").read_bytes())["golden"]
    assert golden["made_on"] == this_platform()
    for other in ("", "linux sparc64, xgboost 1.0"):
        _edit(bundle, golden=golden | {"made_on": other})
        assert _load(bundle).weights


def test_nets_answer_within_their_bound(bundle):
    """A net's last bit depends on the processor, and refuses nothing anywhere."""
    _nudged(bundle, "nhits")

    assert _load(bundle).weights


def test_a_pickled_golden_file_is_not_unpickled(bundle, tmp_path):
    """An archive that asks to be unpickled is refused, not obeyed."""
    mark = tmp_path / "owned"

    class Bomb:
        def __reduce__(self):
            return (mark.touch, ())

    np.savez(bundle / "x.npz", allow_pickle=True, inputs=np.array([Bomb()], dtype=object))
    mark.unlink(missing_ok=True)
    _forge(bundle, "golden.npz", (bundle / "x.npz").read_bytes())

    with pytest.raises(BundleError, match="golden"):
        _load(bundle)
    assert not mark.exists()


@pytest.mark.parametrize("which", [0, 1, 2], ids=["inputs", "windows", "returns"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_undefined_input_abstains(which, value):
    """One undefined number silences its own row and no other: no direction, a coin's probability, no consensus."""
    bundle = _load(trained_candidate().path)
    arrays = bundle_inputs(trained_candidate().frames, 4)
    sound = bundle.score(*arrays)
    arrays[which][2].reshape(-1)[0] = value
    found = bundle.score(*arrays)

    assert found.abstained.tolist() == [False, False, True, False]
    assert found.probability_up[2] == 0.5 < bundle.threshold
    assert found.consensus[2] == 0
    np.testing.assert_allclose(found.expected_return[[0, 1, 3]], sound.expected_return[[0, 1, 3]], rtol=1e-6)


def test_nothing_finite_at_all_abstains_everywhere():
    """A market that went dark gives no opinions and no error."""
    bundle = _load(trained_candidate().path)
    dark = [np.full_like(one, np.nan) for one in bundle_inputs(trained_candidate().frames, 3)]

    assert bundle.score(*dark).abstained.all()


def test_an_unbelievable_answer_abstains(bundle):
    """An expected return beyond what was ever answered out of sample is a broken input, not an opportunity."""
    loaded = _load(bundle)
    loaded._ensemble._bound = 1e-9

    assert loaded.score(*bundle_inputs(trained_candidate().frames, 3)).abstained.all()


def test_arrays_of_another_shape_are_refused():
    """A window of the wrong length is an error: padding would be a guess."""
    inputs, windows, returns = bundle_inputs(trained_candidate().frames, 3)

    with pytest.raises(BadInputError, match="shapes"):
        _load(trained_candidate().path).score(inputs, windows[:, 1:], returns[:, 1:])
