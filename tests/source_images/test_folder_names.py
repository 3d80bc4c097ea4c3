"""Folders that dvc would stop at."""

import os

import pytest

from assets.errors import UserError
from assets.source_images.folder_names import check_names


def test_dead_links_and_names_that_are_not_utf8_are_named(tmp_path):
    (tmp_path / "tea").mkdir()
    (tmp_path / "tea" / "é 日本.jpg").write_bytes(b"x")
    (tmp_path / "tea" / "alive.jpg").symlink_to(tmp_path / "tea" / "é 日本.jpg")
    check_names(tmp_path)
    check_names(tmp_path / "absent")  # the stage reports that itself
    (tmp_path / "tea" / "dead.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(
        UserError,
        match=r"source_images\.sources, root: dvc cannot read .* holds 1 link\(s\) that lead nowhere: .*/tea/dead\.jpg\. Remove",
    ):
        check_names(tmp_path)
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system does not allow such names")
    with pytest.raises(UserError, match=r"nowhere: .* and 1 name\(s\) that are not UTF-8: .*/caf\\xe9\.jpg\. Remove"):
        check_names(tmp_path)
