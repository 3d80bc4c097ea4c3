"""README's figures come from the report, and a changed number is noticed."""

from __future__ import annotations

import re

import pytest

from assets import artifacts
from assets.errors import UserError
from assets.report import readme, summary

TEXT = f"# onespace\n\n{readme.BEGIN}\nold\n{readme.END}\n\n![grid](data/report/plots/before_after_images.png)\n"


def row(recipe: str, value: float, difference: float, outcome: str) -> dict:
    values = {"image_to_image": {"map": value, "recall_at_1": value}, "knn": {"accuracy": value}, "zero_shot": {"accuracy": value}}
    values |= {"text_to_image": {"recall_at_5": value, "caption_recall_at_5": None}, "average": value}
    against = {key: {"difference": difference, "interval": [0, 0], "outcome": outcome} for key in readme.COLUMNS}
    return {"recipe": recipe, **values, "confidence": {"level": 0.95, "against_base": against}}


ROWS = [
    row("base", 31.25, 0, "tie"),
    row("gpr", 42.96, 11.71, "better"),
    row("mcip", 30.0, -1.25, "tie"),
    row("mcip_rea", 20, -11.25, "worse"),
]
METRICS = {"rows": ROWS, "counts": {"images": 4662, "classes": 769, "captions": 2000}}


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    artifacts.write_json(artifacts.METRICS, METRICS)
    artifacts.write_json(artifacts.VERDICT, {"recipe": "mcip_rea", "decision": "hold", "reasons": []})
    artifacts.PLOTS.mkdir()
    (artifacts.PLOTS / "before_after_images.png").touch()
    readme.README.write_text(TEXT, encoding="utf-8")
    return tmp_path


def test_the_block_is_a_table_with_differences_and_ties():
    lines = readme.figures(METRICS).splitlines()
    assert lines[0].startswith("| recipe | what it is | image→image mAP |")
    assert lines[2] == "| `base` | the CLIP to start from |" + " 31.2 |" * 6
    assert lines[3] == "| `gpr` | image tower tuned on class labels (GPR-FT) |" + " 43.0 (+11.7) |" * 6
    assert lines[4].endswith("| 30.0 (tie) |")
    assert lines[5].endswith("| 20.0 (−11.2) |")
    assert "4,662 test images of 769 classes" in lines[-1]


def test_it_writes_only_its_block_and_then_agrees(made):
    assert readme.main(["--check"]) == 1
    assert readme.README.read_text(encoding="utf-8") == TEXT
    assert readme.main([]) == 0
    written = readme.README.read_text(encoding="utf-8")
    assert written == TEXT.replace("\nold\n", f"\n{readme.figures(METRICS)}\n")
    assert readme.main(["--check"]) == 0
    assert readme.main([]) == 0
    assert readme.README.read_text(encoding="utf-8") == written


def test_a_changed_number_is_noticed(made, capsys):
    readme.main([])
    text = readme.README.read_text(encoding="utf-8")
    readme.README.write_text(text.replace("43.0", "43.1", 1), encoding="utf-8")
    assert readme.main(["--check"]) == 1
    assert "make readme" in capsys.readouterr().err


def test_a_picture_that_is_not_there_is_noticed(made, capsys):
    readme.main([])
    (artifacts.PLOTS / "before_after_images.png").unlink()
    assert readme.main(["--check"]) == 1
    assert "data/report/plots/before_after_images.png" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["no markers", f"{readme.END}{readme.BEGIN}", f"{readme.BEGIN}{readme.END}" * 2])
def test_markers_are_needed_once(text):
    with pytest.raises(UserError, match="figures:begin"):
        readme.with_figures(text, METRICS)


def test_the_summary_tells_the_rows_and_where_things_are(made, capsys):
    assert summary.main() == 0
    told = capsys.readouterr().out
    lines = [line.split() for line in told.splitlines()]
    assert ["base", *["31.2"] * 6] in lines
    assert ["mcip", *["30.0", "tie"] * 6] in lines
    assert ["mcip_rea", *["20.0", "−11.2"] * 6] in lines
    assert "held back" in told
    assert "data/report/index.html" in told
    assert "data/lancedb" in told
    assert told.count('make search Q="a red heart"') == 1


def test_without_a_report_both_say_how_to_make_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert readme.main(["--check"]) == 1
    assert summary.main() == 1
    assert capsys.readouterr().err.count("dvc repro report") == 2


def test_the_readme_has_its_block_and_its_tree_names_what_is_there(checkout):
    text = (checkout / readme.README).read_text(encoding="utf-8")
    readme.with_figures(text, METRICS)
    tree = text.partition("## The tree")[2].partition("```text")[2].partition("```")[0]
    named = {line.split()[0].rstrip("/") for line in tree.splitlines() if line.startswith("  ")}
    there = {path.stem if path.is_dir() else path.name for path in (checkout / "assets").iterdir() if not path.name.startswith("__pycache")}
    assert named == there - {"__init__.py"}


def test_the_readme_s_python_is_python(checkout):
    text = (checkout / readme.README).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 4
    for block in blocks:
        compile(block, "README.md", "exec")
