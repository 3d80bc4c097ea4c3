"""data/SIZING.md shows what the command prints, and the arithmetic is that of paper and pencil."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from assets.commands import sizing


def test_the_page_shows_what_the_command_prints(checkout: Path, capsys: pytest.CaptureFixture[str]):
    """Figures that were typed, or that the constants have left behind."""
    text = (checkout / "data" / "SIZING.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\$ python -m assets\.commands\.sizing (.+)\n((?:.+\n)+?)(?=```|\$)", text, re.MULTILINE)
    assert len(shown) == 2
    for arguments, lines in shown:
        assert sizing.main(arguments.split()) == 0
        assert capsys.readouterr().out == lines


def test_the_arithmetic_by_hand():
    found = sizing.need(1_000_000, 100_000, epochs=2)
    assert found.stored_bytes == 1_000_000 * (300_000 + 3_072 + 1_000)
    assert found.vector_bytes == 1_000_000 * 3_072
    assert found.embedding_gpu_hours == pytest.approx(1e6 * 382e9 / 100e12 / 3600)
    assert found.training_gpu_hours == pytest.approx(0.5 * 2 * 4 * found.embedding_gpu_hours)
    assert found.core_hours == pytest.approx(1e6 * sizing.INSPECTION_SECONDS / 3600)


@pytest.mark.parametrize("arguments", [[], ["many"], ["1", "2", "3"]])
def test_a_wrong_command_prints_the_usage(arguments, capsys: pytest.CaptureFixture[str]):
    assert sizing.main(arguments) == 2
    assert "PICTURES [KILOBYTES]" in capsys.readouterr().err
