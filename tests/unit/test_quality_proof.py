from __future__ import annotations

import pytest

from infra.prove.proof import Size
from infra.prove.quality import prove


@pytest.mark.parametrize("folder", [None, "nothing"])
def test_without_recordings_the_proof_says_what_to_set(tmp_path, monkeypatch, folder):
    """Nothing to judge is no proof: it fails, and names the setting or the folder."""
    if folder is None:
        monkeypatch.delenv("MARKET_DATA_DIR", raising=False)
    else:
        monkeypatch.setenv("MARKET_DATA_DIR", str(tmp_path / folder))

    proof = prove(Size.CI)

    assert not proof.holds
    assert ("MARKET_DATA_DIR" if folder is None else "holds no Parquet file") in proof.figure
