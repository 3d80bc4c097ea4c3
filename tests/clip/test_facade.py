"""`from assets.clip import load_clip` is the one name for users; a stage must depend neither on it nor, before it is used, on torch."""

import subprocess
import sys

from assets.imports import imported_files


def test_load_clip_is_found_on_demand(checkout):
    script = (
        "import sys; import assets.clip; assert 'torch' not in sys.modules; from assets.clip import load_clip; print(load_clip.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=checkout, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "assets.clip.model"


def test_the_package_drags_no_code_into_what_imports_it():
    assert [path.parent.name for path in imported_files("assets.clip")] == ["clip"]
