"""README shows what data/record holds, whatever a run has made; and the record is the run that was recorded."""

from __future__ import annotations

import re
import shutil

import pytest

from assets import artifacts
from assets.commands import record
from assets.errors import UserError
from tests.commands.rows import METRICS, row

RUN = "<!-- run:begin -->\nolder\n<!-- run:end -->\n"
PICTURE = "before_after_images.png"
TEXT = f"# onespace\n\n<!-- figures:begin -->\nold\n<!-- figures:end -->\n\n![grid](data/record/plots/{PICTURE})\n{RUN}"
ABOUT = {"base": "the CLIP to start from", "gpr": "tuned on class labels"}


@pytest.fixture
def made(checkout, tmp_path, monkeypatch):
    """A run, and a README that was never recorded."""
    shutil.copyfile(checkout / "params.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    artifacts.write_json(artifacts.METRICS, METRICS)
    artifacts.PLOTS.mkdir(parents=True)
    for name in (PICTURE, "loss.png"):
        (artifacts.PLOTS / name).write_bytes(name.encode())
    record.README.write_text(TEXT, encoding="utf-8")
    return tmp_path


def readme() -> str:
    return record.README.read_text(encoding="utf-8")


def entry(values: list[float], half: float, against: tuple[float, float, str] | None) -> dict:
    mean = sum(values) / len(values)
    found = {"values": values, "mean": mean, "interval": [mean - half, mean + half]}
    if against is None:
        return found
    difference, reach, outcome = against
    return found | {"against_base": {"mean": difference, "interval": [difference - reach, difference + reach], "outcome": outcome}}


def seeds(values: list[float], missing: list[int]) -> dict:
    """seeds.json of base and gpr, each measure with the same values."""
    keys = [measure.key for measure in record.COLUMNS]
    return {
        "seeds": list(range(len(values))),
        "missing": missing,
        "level": 0.95,
        "rows": [
            {"recipe": "base", "measures": dict.fromkeys(keys, entry(values, 12.7, None))},
            {"recipe": "gpr", "measures": dict.fromkeys(keys, entry([each + 10 for each in values], 1.5, (10.04, 0.31, "better")))},
            {"recipe": "mcip", "measures": dict.fromkeys(keys, entry(values, 1.5, (-0.4, 2.0, "tie")))},
        ],
        "pairs": [
            {"recipe": "gpr", "against": "mcip", "differences": dict.fromkeys(keys, entry(values, 0.25, None) | {"outcome": "better"})}
        ],
    }


def test_the_table_of_a_run_has_differences_and_ties():
    lines = record.figures(METRICS, None, ABOUT).splitlines()
    assert lines[0].startswith("| recipe | image→image mAP |")
    assert lines[2] == "| `base` |" + " 31.2 |" * 6
    assert lines[3] == "| `gpr` |" + " 43.0 (+11.7) |" * 6
    assert lines[4].endswith("| 30.0 (tie) |")
    assert lines[5].endswith("| 20.0 (−11.2) |")
    assert lines[6] == "| `mcip_rea` against `mcip` | −10.0 | −10.0 | tie | −10.0 | −10.0 | −10.0 |"
    assert "4,662 test images of 769 classes" in lines[8]
    assert lines[10] == "`base`: the CLIP to start from; `gpr`: tuned on class labels."
    assert "one seed" in lines[12]


def test_the_first_table_is_of_the_seeds_where_there_are_any():
    lines = record.figures(METRICS, seeds([31.25, 33.25], [2]), ABOUT).splitlines()
    assert lines[2] == "| `base` |" + " 32.2 ± 12.7 |" * 6
    assert lines[3] == "| `gpr` |" + " 42.2 ± 1.5 (+10.0 ± 0.3) |" * 6
    assert lines[4] == "| `mcip` |" + " 32.2 ± 1.5 (tie) |" * 6
    assert lines[5] == "| `gpr` against `mcip` |" + " +32.2 ± 0.2 |" * 6
    assert "mean over 2 of 3 seeds (failed: 2) ± half of its 95 % t-interval" in lines[7]
    assert not any("one seed" in line for line in lines)
    assert "31.2" in record.run_block(METRICS, seeds([31.25, 33.25], []))  # the one run stands lower down


def test_seeds_of_an_earlier_pipeline_are_named():
    rows = [row("base", 31.25, 0, "tie"), row("gpr", 41.25, 10, "better"), row("mcip", 31.25, 0, "tie")]
    same = METRICS | {"rows": rows}
    assert "earlier pipeline" not in record.run_block(same, seeds([31.25, 33.25], []))
    assert "earlier pipeline" in record.run_block(same, seeds([30.0, 33.25], []))
    assert "earlier pipeline" in record.run_block(same | {"rows": rows[:2]}, seeds([31.25, 33.25], []))  # a row was removed since


def test_it_writes_only_its_blocks_and_then_agrees(made):
    assert record.main(["--check"]) == 1
    assert readme() == TEXT
    assert record.main([]) == 0
    written = readme()
    about = artifacts.read_json(record.ABOUT)
    assert list(about) == ["base", "gpr", "mcip", "mcip_rea"]
    expected = TEXT.replace("\nold\n", f"\n{record.figures(METRICS, None, about)}\n")
    assert written == expected.replace("\nolder\n", f"\n{record.run_block(METRICS, None)}\n")
    assert record.main(["--check"]) == 0
    assert record.main([]) == 0
    assert readme() == written


def test_the_record_has_the_pictures_that_readme_shows_and_no_others(made):
    (record.PLOTS).mkdir(parents=True)
    (record.PLOTS / "similarity.png").touch()
    assert record.main([]) == 0
    assert [(path.name, path.read_bytes()) for path in record.PLOTS.iterdir()] == [(PICTURE, PICTURE.encode())]


def test_a_run_with_other_figures_leaves_the_check_green(made):
    """On another machine `make demo` gives other figures, and `make test` after it must still pass."""
    assert record.main([]) == 0
    artifacts.write_json(artifacts.METRICS, METRICS | {"rows": [row("base", 1.0, 0, "tie")]})
    artifacts.write_json(artifacts.SEEDS, seeds([1.0, 2.0], []))
    (artifacts.PLOTS / PICTURE).write_bytes(b"other")
    (made / "params.yaml").unlink()  # nor does it matter which recipes there are now
    assert record.main(["--check"]) == 0
    shutil.rmtree(artifacts.REPORT)
    artifacts.METRICS.unlink()
    assert record.main(["--check"]) == 0


def test_a_number_that_was_changed_in_readme_or_the_record_is_noticed(made, capsys):
    record.main([])
    written = readme()
    record.README.write_text(written.replace("43.0", "43.1", 1), encoding="utf-8")
    assert record.main(["--check"]) == 1
    assert "make record" in capsys.readouterr().err
    record.README.write_text(written, encoding="utf-8")
    assert record.main(["--check"]) == 0
    artifacts.write_json(record.SEEDS, seeds([31.25, 33.25], []))
    assert record.main(["--check"]) == 1


def test_seeds_are_recorded_where_there_are_any(made):
    artifacts.write_json(artifacts.SEEDS, seeds([31.25, 33.25], []))
    assert record.main([]) == 0
    assert "± 12.7" in readme()
    assert record.main(["--check"]) == 0


def test_a_picture_that_is_not_there_is_noticed(made, capsys):
    record.main([])
    (record.PLOTS / PICTURE).unlink()
    assert record.main(["--check"]) == 1
    assert f"data/record/plots/{PICTURE}" in capsys.readouterr().err
    (artifacts.PLOTS / PICTURE).unlink()
    assert record.main([]) == 1
    assert f"data/report/plots/{PICTURE}. `dvc repro report`" in capsys.readouterr().err


def test_a_run_of_recipes_that_were_removed_is_not_recorded(made, capsys):
    artifacts.write_json(artifacts.METRICS, METRICS | {"rows": [row("wide", 1.0, 0, "tie")]})
    assert record.main([]) == 1
    assert "rows that params.yaml lacks: wide" in capsys.readouterr().err
    assert not artifacts.RECORD.exists()


@pytest.mark.parametrize("markers", [[], ["end", "begin"], ["begin", "end", "begin", "end"], ["begin"]])
def test_markers_are_needed_once(markers):
    text = "".join(f"<!-- figures:{each} -->" for each in markers)
    with pytest.raises(UserError, match="figures:begin"):
        record.with_blocks(text, {"figures": ""})


def test_without_a_run_it_says_how_to_make_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    record.README.write_text(TEXT, encoding="utf-8")
    assert record.main([]) == 1
    assert "dvc repro report" in capsys.readouterr().err
    assert record.main(["--check"]) == 1
    assert "make record" in capsys.readouterr().err


def test_the_readme_of_this_checkout_agrees_with_its_record(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    assert record.main(["--check"]) == 0


def test_the_readme_has_its_block_and_its_tree_names_what_is_there(checkout):
    text = (checkout / record.README).read_text(encoding="utf-8")
    record.with_blocks(text, {"figures": "", "run": ""})
    tree = text.partition("## The tree")[2].partition("```text")[2].partition("```")[0]
    named = {line.split()[0].rstrip("/") for line in tree.splitlines() if line.startswith("  ")}
    there = {path.stem if path.is_dir() else path.name for path in (checkout / "assets").iterdir() if not path.name.startswith("__pycache")}
    assert named == there - {"__init__.py"}


def test_the_readme_s_python_is_python(checkout):
    text = (checkout / record.README).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 4
    for block in blocks:
        compile(block, "README.md", "exec")
