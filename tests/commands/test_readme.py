"""README's figures come from the report, and a changed number is noticed."""

from __future__ import annotations

import re

import pytest

from assets import artifacts
from assets.commands import readme
from assets.commands.seeds.spread import aggregate
from assets.errors import UserError
from tests.commands.rows import METRICS, ROWS, row

SEEDS = f"{readme.SEEDS_BEGIN}\nolder\n{readme.SEEDS_END}\n"
TEXT = f"# onespace\n\n{readme.BEGIN}\nold\n{readme.END}\n\n![grid](data/report/plots/before_after_images.png)\n{SEEDS}"


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    artifacts.write_json(artifacts.METRICS, METRICS)
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
    not_run = f"\n{readme.seeds_block(None, METRICS)}\n"
    assert written == TEXT.replace("\nold\n", f"\n{readme.figures(METRICS)}\n").replace("\nolder\n", not_run)
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
        readme.with_figures(text + SEEDS, METRICS, None)
    with pytest.raises(UserError, match="seeds:begin"):
        readme.with_figures(f"{readme.BEGIN}{readme.END}{text.replace('figures', 'seeds')}", METRICS, None)


def several_seeds(first: float, missing: list[int]) -> dict:
    """seeds.json of two seeds in which every measure of base is first, first + 2 and gpr's is 10 above, mcip's 10 and 12 below."""
    rows = {}
    for seed, value in ((0, first), (1, first + 2)):
        recipes = [row("base", value, 0, "tie"), row("gpr", value + 10 + seed, 0, "tie"), row("gpr_rea", value, 0, "tie")]
        recipes += [row("mcip", value - 1 - 2 * seed, 0, "tie"), row("mcip_rea", value + seed, 0, "tie")]
        rows[seed] = {each["recipe"]: each for each in recipes}
    return aggregate(rows, 2 + len(missing), 0.95)


def test_the_block_of_several_seeds():
    lines = readme.seeds_block(several_seeds(31.25, [2]), METRICS).splitlines()
    assert lines[0].startswith("| recipe | image→image mAP |")
    # two values a and a + 2: mean a + 1, sd √2, half of the 95 % t-interval 12.706 · √2 / √2
    assert lines[2] == "| `base` |" + " 32.2 ± 12.7 |" * 6
    assert lines[3] == "| `gpr` |" + " 42.8 ± 19.1 (+10.5 ± 6.4) |" * 6
    assert lines[5] == "| `mcip` |" + " 30.2 ± 0.0 (tie) |" * 6  # −1 and −3: below base in both, but the interval holds 0
    assert "Mean over 2 of 3 seeds (failed: 2) ± half of its 95 % t-interval" in lines[8]


def test_seeds_of_an_earlier_pipeline_are_told():
    rows = [each for recipe in artifacts.RECIPES for each in [row(recipe, 31.25, 0, "tie")]]
    same = several_seeds(31.25, [])
    for entry in same["rows"]:
        for measure in filter(None, entry["measures"].values()):
            measure["values"] = [31.25, 33.25]
    assert "before the pipeline's last change" not in readme.seeds_block(same, {"rows": rows})
    assert "before the pipeline's last change" in readme.seeds_block(several_seeds(30.0, []), {"rows": rows})


def test_changed_seeds_are_noticed(made):
    artifacts.write_json(artifacts.METRICS, METRICS | {"rows": [*ROWS, row("gpr_rea", 31.25, 0, "tie")]})
    assert readme.main([]) == 0
    assert "has not been run yet" in readme.README.read_text(encoding="utf-8")
    artifacts.write_json(artifacts.SEEDS, several_seeds(31.25, []))
    assert readme.main(["--check"]) == 1
    assert readme.main([]) == 0
    assert readme.main(["--check"]) == 0


def test_without_a_report_it_says_how_to_make_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert readme.main(["--check"]) == 1
    assert "dvc repro report" in capsys.readouterr().err


def test_the_readme_has_its_block_and_its_tree_names_what_is_there(checkout):
    text = (checkout / readme.README).read_text(encoding="utf-8")
    readme.with_figures(text, METRICS, None)
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
