"""Universe rules are read from TOML, and refused with a reason where they make no sense."""

from __future__ import annotations

import pytest

from feature_store.errors import BadInputError
from feature_store.universe.policy import default_lists, read_rules
from feature_store.universe.selection import AssetClass, Mode, UniversePolicy

LISTS = 'version = "mine"\nsource = "a test"\n[layer-1]\nalways = ["BTC"]\n[layer-2]\n[megacap]\n'


def test_the_defaults_are_those_of_the_specification():
    """Without a file: l1l2-top, 100 symbols, a million traded a day, fifty thousand an hour."""
    policy = read_rules().policy

    assert policy == UniversePolicy()
    assert (policy.mode, policy.max_symbols) == (Mode.L1L2_TOP, 100)
    assert (policy.min_volume_24h, policy.min_liquidity) == (1_000_000, 50_000)
    assert (policy.blacklist, policy.whitelist) == ((), ())


def test_a_file_changes_what_it_names(tmp_path):
    """What a file leaves out keeps its default; its lists are looked for beside it."""
    (tmp_path / "lists.toml").write_text(LISTS)
    path = tmp_path / "universe.toml"
    path.write_text(
        '[universe]\nmode = "all"\nmax_symbols = 20\nlists = "lists.toml"\n'
        '[universe.filters]\nblacklist = ["DOGE"]\nmin_liquidity = 10\n'
    )
    rules = read_rules(path)

    assert rules.policy == UniversePolicy(mode=Mode.ALL, max_symbols=20, blacklist=("DOGE",), min_liquidity=10)
    assert rules.lists.classes(0) == {"BTC": (AssetClass.LAYER_1,)}


def test_the_fingerprint_covers_every_rule(tmp_path):
    """Equal rules share a fingerprint; one other number or one other list entry makes another."""
    (tmp_path / "lists.toml").write_text(LISTS)
    texts = ["", "[universe]\nmax_symbols = 99\n", '[universe]\nlists = "lists.toml"\n']
    found = []
    for text in texts:
        (tmp_path / "universe.toml").write_text(text)
        found.append(read_rules(tmp_path / "universe.toml").fingerprint)

    assert found[0] == read_rules().fingerprint
    assert len(set(found)) == 3


def test_the_lists_are_sound():
    """Every class has members, no asset is on one list twice at once, and a name that moved on changes its list."""
    lists = default_lists()
    for asset_class in AssetClass:
        names = [(one.asset, one.since_ms, one.until_ms) for one in lists.members[asset_class]]
        assert len(names) == len(set(names)) > 20
        assert all(name == name.upper() and name.isalnum() for name, _, _ in names)
    day = 86_400_000
    assert all(one.since_ms is not None for one in lists.members[AssetClass.MEGACAP])
    for time_ms in range(1_483_228_800_000, 1_800_000_000_000, 30 * day):
        for classes in lists.classes(time_ms).values():
            assert len(classes) == len(set(classes))
    failed, reborn = 1_652_400_000_000 + day, 1_653_696_000_000
    assert "LUNA" not in lists.classes(failed)
    assert lists.classes(reborn)["LUNA"] == (AssetClass.LAYER_1,)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[universe", id="not-toml"),
        pytest.param("[universe]\nmax_symbols = 'ten'\n", id="wrong-type"),
        pytest.param("[universe]\nmax_symbols = 0\n", id="impossible"),
        pytest.param("[universe]\nmode = 'best'\n", id="unknown-mode"),
        pytest.param("[universe]\nmin_volume_24h = 1\n", id="filter-in-the-wrong-table"),
        pytest.param("[universes]\n", id="unknown-table"),
        pytest.param("[universe]\nmode = 'list'\n", id="list-without-symbols"),
        pytest.param("[universe.filters]\nmin_volume_24h = nan\n", id="nan"),
        pytest.param("[universe]\nlists = 'missing.toml'\n", id="missing-lists"),
        pytest.param("[universe]\nlists = 'universe.toml'\n", id="lists-of-another-form"),
    ],
)
def test_unusable_files_say_why(tmp_path, text):
    """A file that cannot be used is refused in one sentence that names it."""
    path = tmp_path / "universe.toml"
    path.write_text(text)

    with pytest.raises(BadInputError, match=r"\.toml"):
        read_rules(path)


def test_a_missing_or_binary_file_is_refused(tmp_path):
    """A path without a readable text says so."""
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name in ("absent.toml", "binary.toml"):
        with pytest.raises(BadInputError, match="Cannot read"):
            read_rules(tmp_path / name)
