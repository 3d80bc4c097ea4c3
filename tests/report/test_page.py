"""The colours, and text in Markdown."""

from __future__ import annotations

import re
from pathlib import Path

from assets.report import page
from assets.report.embedding_map import GROUP_COLORS


def luminance(color: str) -> float:
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_stands_out_from_what_is_behind_it_in_light_and_dark():
    style = (Path(page.__file__).parent / page.STYLE).read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    for block in (light, dark):
        color = dict(re.findall(r"--([\w-]+): (#\w{6});", block))
        for behind in ("paper", "card", "wash"):
            for text in ("ink", "muted", "blue", "good", "bad"):
                assert contrast(color[text], color[behind]) >= 4.5, (text, behind)
            for group in range(GROUP_COLORS + 1):
                assert contrast(color[f"group-{group}"], color[behind]) >= 3, (group, behind)
        assert contrast(color["good"], color["good-wash"]) >= 4.5
        assert contrast(color["bad"], color["bad-wash"]) >= 4.5


def test_a_name_cannot_break_a_table_of_markdown():
    assert page.cell("a|b *c* <d> `e`\n[f](g)") == r"a\|b \*c\* \<d\> \`e\` \[f\](g)"
