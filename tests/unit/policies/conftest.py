from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with a file in `golden/`; with --update-golden write it, and review the diff."""

    def compare(name: str, text: str) -> None:
        file = Path(__file__).parent / "golden" / name
        if request.config.getoption("--update-golden", default=False):
            file.write_text(text)
        assert file.is_file(), f"no {file.name}: type pytest --update-golden and review it"
        assert text == file.read_text()

    return compare
