"""Every difference that docs/differences.md tells has a test, which is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def named() -> list[tuple[str, str, str]]:
    """Return the first cell, the file and the words about its test, for every test that a row names."""
    section = (ROOT / "docs" / "differences.md").read_text().partition("## On purpose")[2].partition("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    found = []
    for first, *_, tests in cells[2:]:
        for part in tests.split(";"):
            file, _, words = part.strip().removeprefix("`").partition("`")
            found.append((first, file, words.strip()))
    return found


def test_every_difference_names_a_test_that_is_there() -> None:
    rows = named()
    assert len(rows) > 25
    for first, file, words in rows:
        place = ROOT / "tests" / file
        assert file == "same" or place.exists(), f"{first}: {file}"
        if file.endswith(".py") and words:
            names = re.findall(r"def (test_\w+)", place.read_text())
            wanted = words.replace(" ", "_").split("_")
            assert any(all(word in name for word in wanted) for name in names), f"{first}: {file} {words}"
