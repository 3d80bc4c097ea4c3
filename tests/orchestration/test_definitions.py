"""The code location: light, and open to asset selections as text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dagster import AssetSelection


@pytest.fixture(scope="module")
def graph():
    from orchestration.definitions import defs

    return defs.resolve_asset_graph()


@pytest.mark.parametrize(
    ("selection", "keys"),
    [
        ("evaluation/base", {"evaluation/base"}),
        ('key:"evaluation/mcip_rea"+', {"evaluation/mcip_rea", "report", "search_table"}),
        ('group:"captions"', {"pseudo_captions"}),
        ('kind:"lancedb"', {"search_table"}),
        ('+key:"pseudo_captions"', {"source_images", "curated_images", "base_clip", "pseudo_captions"}),
    ],
)
def test_selections_as_text_work_beside_dvc(graph, selection, keys):
    # dvc's own choice of antlr would break each of these; pyproject.toml asks for a hydra that does not
    found = AssetSelection.from_string(selection).resolve(graph)
    assert {key.to_user_string() for key in found} == keys


def test_an_asset_shows_what_dvc_yaml_says_of_it(graph):
    node = graph.get(next(key for key in graph.get_all_asset_keys() if key.to_user_string() == "text_tower/mcip"))
    assert node.description == "Stage two for mcip_rea, the text tower realigned to the locked image tower of mcip."
    assert node.group_name == "training"
    assert node.kinds == {"pytorch"}
    assert node.pools == {"compute"}


def test_loading_imports_nothing_heavy(checkout: Path):
    script = (
        "import sys; import orchestration.definitions; "
        "print(*sorted({'torch', 'lancedb', 'great_expectations', 'matplotlib', 'open_clip', 'pyarrow', 'assets'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=checkout, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_command_line_lists_what_follows_a_recipe(checkout: Path, tmp_path: Path):
    command = [sys.executable, "-m", "dagster", "asset", "list", "-m", "orchestration.definitions", "--select", "evaluation/mcip_rea+"]
    environment = os.environ | {"DAGSTER_HOME": str(tmp_path), "DAGSTER_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "evaluation/mcip_rea" in done.stdout.split()
    assert "report" in done.stdout.split()
