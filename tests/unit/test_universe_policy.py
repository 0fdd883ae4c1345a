"""The policy's section on the universe is what candidates of each week are chosen by."""

from __future__ import annotations

from decimal import Decimal

import pytest

from feature_store.universe.policy import read_rules
from feature_store.universe.selection import Mode, UniversePolicy
from flows.settings import FlowSettings
from flows.universes import rules_of, universe_of
from inference.domain.policy import Policy, UniverseMode
from inference.policy.store import PolicyStore
from inference.policy.versions import PolicyStoreError, Source


def test_the_built_in_policy_says_what_the_universe_had_by_default():
    """Stored universes keep their fingerprint: the defaults of both are one."""
    assert universe_of(Policy()) == UniversePolicy()


def test_a_list_a_blacklist_and_thresholds_are_handed_on():
    """What the policy says of candidates is what chooses them; a list of allowed names alone adds none."""
    listed = universe_of(Policy(universe_mode=UniverseMode.LIST, allowed_symbols=("BTC", "ETH"), max_symbols=7))
    filtered = universe_of(Policy(allowed_symbols=("BTC",), denied_symbols=("DOGE",), min_liquidity=Decimal("12.5")))

    assert (listed.mode, listed.symbols, listed.max_symbols) == (Mode.LIST, ("BTC", "ETH"), 7)
    assert filtered == UniversePolicy(blacklist=("DOGE",), min_liquidity=12.5)


def test_the_file_wins_over_the_store_and_the_store_over_the_defaults(tmp_path):
    """QT_UNIVERSE as before; a store that cannot be trusted is no reason to guess."""
    settings = FlowSettings(home=tmp_path)
    assert rules_of(settings) == read_rules()
    store = PolicyStore(tmp_path / "policy", now_ms=lambda: 0)
    store.append(Policy(max_symbols=5), expected=0, author="anna", reason="few", source=Source.SET)
    assert rules_of(settings).policy.max_symbols == 5
    (tmp_path / "universe.toml").write_text("[universe]\nmax_symbols = 9\n")
    assert rules_of(FlowSettings(home=tmp_path, universe=tmp_path / "universe.toml")).policy.max_symbols == 9
    store.path.write_bytes(b"\0" * 4096)
    with pytest.raises(PolicyStoreError, match="recover"):
        rules_of(settings)
