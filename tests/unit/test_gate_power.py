"""The seeds that the power of the gates is measured on."""

from __future__ import annotations

import pytest

from infra.tools.gate_power import main, seeds_of


@pytest.mark.parametrize(
    ("text", "seeds"), [("7", [7]), ("5, 8,13", [5, 8, 13]), ("31-33", [31, 32, 33]), ("1-2,9", [1, 2, 9])]
)
def test_numbers_and_ranges_are_seeds(text, seeds):
    """Seeds are written as people write page numbers."""
    assert seeds_of(text) == seeds


@pytest.mark.parametrize("text", ["", "x", "3-", "-3", "5-3", "1,,2", "1.5", "1-2-3"])
def test_what_is_no_list_of_seeds_is_refused(text, capsys):
    """One sentence, exit status 2, nothing trained."""
    with pytest.raises(SystemExit) as ended:
        main([f"--seeds={text}"])

    assert ended.value.code == 2
    assert "expected seeds as 31-42" in capsys.readouterr().err
