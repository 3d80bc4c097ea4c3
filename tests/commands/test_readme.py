"""README's figures come from the report, and a changed number is noticed."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from assets import artifacts
from assets.commands import readme, summary
from assets.commands.seeds.spread import aggregate
from assets.errors import UserError
from assets.report.measures import COLUMNS

SEEDS = f"{readme.SEEDS_BEGIN}\nolder\n{readme.SEEDS_END}\n"
TEXT = f"# onespace\n\n{readme.BEGIN}\nold\n{readme.END}\n\n![grid](data/report/plots/before_after_images.png)\n{SEEDS}"


def row(recipe: str, value: float, difference: float, outcome: str) -> dict:
    values = {"image_to_image": {"map": value, "recall_at_1": value}, "knn": {"accuracy": value}, "zero_shot": {"accuracy": value}}
    values |= {"text_to_image": {"recall_at_5": value, "caption_recall_at_5": None}, "average": value}
    against = {key: {"difference": difference, "interval": [0, 0], "outcome": outcome} for key in COLUMNS}
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
    artifacts.write_json(artifacts.VERDICT, {"recipe": "mcip_rea", "decision": "hold", "reasons": ["k-NN must not fall and did."]})
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


def test_the_summary_tells_the_rows_and_where_things_are(made, capsys):
    assert summary.main() == 0
    told = capsys.readouterr().out
    lines = [line.split() for line in told.splitlines()]
    assert ["base", *["31.2"] * 6] in lines
    assert ["mcip", *["30.0", "tie"] * 6] in lines
    assert ["mcip_rea", *["20.0", "−11.2"] * 6] in lines
    assert "mcip_rea, held back: k-NN must not fall and did." in told
    assert "tie: the 95 % interval of the difference holds 0" in told
    assert "data/report/index.html" in told
    assert "table    none yet; a recipe that is not held back makes it" in told
    assert told.count('make search Q="a red heart"') == 1


def test_the_summary_tells_an_override(made, capsys):
    verdict = {"recipe": "mcip_rea", "decision": "publish", "reasons": [], "override_reason": "a demonstration"}
    artifacts.write_json(artifacts.VERDICT, verdict)
    assert summary.main() == 0
    assert "mcip_rea, published though the gate said no: a demonstration" in capsys.readouterr().out


@pytest.mark.parametrize(("decision", "kept"), [("publish", ""), ("hold", ", as it was before")])
def test_the_summary_tells_where_the_table_is(made, capsys, decision, kept):
    artifacts.LANCEDB.mkdir()
    artifacts.write_json(artifacts.VERDICT, artifacts.read_json(artifacts.VERDICT) | {"decision": decision, "override_reason": None})
    assert summary.main() == 0
    assert f"table    data/lancedb (LanceDB, table images){kept}\n" in capsys.readouterr().out


PYTHON = """#!/bin/sh
echo "$*" >> told
case "$*" in
  *" repro") exit $REPRO ;;
  *" status "*) exit $STATUS ;;
esac
"""


@pytest.mark.parametrize(
    ("repro", "status", "summarised"),
    [(0, 0, True), (255, 0, True), (255, 1, False)],  # done; held back after a report that is up to date; failed before it
)
def test_make_demo_ends_with_the_summary_of_what_it_made_and_with_its_failure(checkout, tmp_path, repro, status, summarised):
    for name in ("requirements.lock", "pyproject.toml", ".ci/torchvision_without_cuda.py", ".venv/bin/python", ".venv/installed"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(PYTHON if name.endswith("python") else "")
    (tmp_path / ".venv/bin/python").chmod(0o755)
    given = {"PATH": os.environ["PATH"], "REPRO": str(repro), "STATUS": str(status)}
    command = ["make", "-f", str(checkout / "Makefile"), "demo"]
    made = subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True, check=False)
    assert (made.returncode != 0) == (repro != 0), made.stderr
    told = (tmp_path / "told").read_text().splitlines()
    assert told[:2] == ["-m assets --check", "-m dvc repro"]
    assert ("-m assets.commands.summary" in told) == summarised


def test_without_a_report_both_say_how_to_make_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert readme.main(["--check"]) == 1
    assert summary.main() == 1
    assert capsys.readouterr().err.count("dvc repro report") == 2


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
