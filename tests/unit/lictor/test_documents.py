"""Files of operators: HCL or JSON by their first sign, with the line of every field."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from lictor.documents import read_document, read_file
from policies.errors import ConfigError

HCL = """Kind = "service-router"
Name = "web"
Routes = [
  {
    Match { HTTP { PathPrefix = "/" } }
  },
  {
    Destination {
      NumRetries = 3
    }
  },
]
Subsets "v1" {
  Filter = "x"
}
request_headers {}
"""
JSON = """{
  "Kind": "service-router", "Name": "web",
  "Routes": [
    {
      "Match": {"HTTP": {"PathPrefix": "/"}}
    },
    {
      "Destination": {
        "NumRetries": 3
      }
    }
  ],
  "Subsets": {"v1": {
    "Filter": "x"}},
  "request_headers": {}
}
"""
PATHS = ["Kind", "Routes", "Routes[0].Match.HTTP.PathPrefix", "Routes[1].Destination.NumRetries", "Subsets[v1].Filter"]


@pytest.mark.parametrize(("text", "lines"), [(HCL, [1, 3, 5, 9, 14]), (JSON, [2, 3, 5, 9, 14])], ids=["hcl", "json"])
def test_a_field_is_found_by_its_path(text: str, lines: list[int]) -> None:
    document = read_document(text, "web.hcl")
    assert [document.line_of(path) for path in PATHS] == lines


@pytest.mark.parametrize("text", [HCL, JSON], ids=["hcl", "json"])
def test_spelling_counts_little_and_what_is_not_there_ends_the_path(text: str) -> None:
    document = read_document(text, "web.hcl")
    assert document.line_of("kind") == document.line_of("KIND") == document.line_of("Kind") > 0
    assert document.line_of("RequestHeaders") == document.line_of("request_headers") > 0
    assert document.line_of("Routes[1].Destination.Other") == document.line_of("Routes[1].Destination")
    assert document.line_of("Routes[7].Destination") == document.line_of("Routes")
    assert document.line_of("Nothing") == 0
    assert document.place("Nothing") == "web.hcl"
    assert document.place("Subsets.v1") == f"web.hcl:{document.line_of('Subsets')}"


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ('invalid config key "Routes[1].Destination.NumRetries"', 9),
        ("* 'Routes[0].Match' expected a map, got 'string'", 5),
        ("Kind value in payload is not a string", 1),
        ('service "web" has protocol "tcp", which is incompatible', 0),
        ("the name is wrong", 0),
        ("Subsets[v1].Filter: no", 14),
        ("RequestHeaders are not allowed", 16),
        ("", 0),
    ],
)
def test_the_field_that_a_message_names_is_found(message: str, line: int) -> None:
    document = read_document(HCL, "web.hcl")
    assert document.at(message) == (f"web.hcl:{line}" if line else "web.hcl")


def test_json_is_known_by_its_first_sign() -> None:
    assert read_document('  \n {"a": {"b": [1, {"c": null}], "d": "\\u00e9"}}', "x").data == {
        "a": {"b": [1, {"c": None}], "d": "é"}
    }
    assert read_document("a { b = 1 }", "x").data == {"a": [{"b": 1}]}
    assert read_document("", "x").data == {}
    assert read_document('{"a": 1, "a": [], "b": {}, "c": -1.5e3, "d": true}', "x").data == {
        "a": [],
        "b": {},
        "c": -1500.0,
        "d": True,
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": }', "x.hcl:1:7: is no JSON: Expecting value"),
        ('{"a": 1}\n}', "x.hcl:2:1: is no JSON: Extra data"),
        ('{"a" 1}', "x.hcl:1:6: is no JSON"),
        ('{\n"a": NaN}', "x.hcl:2:6: is no JSON: NaN is no number"),
        ('{"a":\n1e400}', "x.hcl:2:1: is no JSON: 1e400 is no number"),
        ('{"a": 01}', "x.hcl:1:8: is no JSON"),
        ('{"a": "\n"}', "x.hcl:1:8: is no JSON"),
        ('{"a":' * 100_000, "x.hcl: nests too deep"),
        ("a = \n\n]", "x.hcl:3:1: a value was expected"),
        ("[]", "x.hcl:1:1: a key or the end was expected"),
    ],
)
def test_a_text_that_is_neither_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_document(text, "x.hcl")
    assert str(caught.value).startswith(told)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b'Kind = "x"\nName = "\xff"\n')
    for name, told in (
        ("nosuch", "no such file or directory; give a file of HCL or JSON"),
        (".", "is a directory"),
        ("latin", "2: is not UTF-8"),
    ):
        with pytest.raises(ConfigError) as caught:
            read_file(str(tmp_path / name))
        assert told in str(caught.value)
        assert str(caught.value).startswith(str(tmp_path))


def test_a_dash_is_the_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO('Name = "é"'.encode()), encoding="ascii"))
    document = read_file("-")
    assert (document.name, document.data) == ("the standard input", {"Name": "é"})
