"""HCL 1 as Go reads it: values as `consul config write` was seen to make of each form."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lictor.hcl import DEEPEST, Blocks, HclError, decode_hcl, parse_hcl


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        ("# nothing\n// at\n/* all */", {}),
        ("a = 1", {"a": 1}),
        ("a=1,b=2", {"a": 1, "b": 2}),
        ("a = 1 b = 2", {"a": 1, "b": 2}),
        ("a =\n\n1", {"a": 1}),
        ("a = 010\nb = 0x1F\nc = -0x1\nd = -010\ne = 00", {"a": 8, "b": 31, "c": -1, "d": -8, "e": 0}),
        ("a = 1.5\nb = .5\nc = 1.\nd = 1e3\ne = -1.5E-1", {"a": 1.5, "b": 0.5, "c": 1.0, "d": 1000.0, "e": -0.15}),
        ("a = 9223372036854775807", {"a": 2**63 - 1}),
        ("a = 1b = 2", {"a": 1, "b": 2}),
        ("a = true\nb = false", {"a": True, "b": False}),
        (r'a = "q\"b\\t\tn\n\a"', {"a": 'q"b\\t\tn\n\a'}),
        (r'a = "\u00e9\x41\101\U0001F600"', {"a": "éAA😀"}),
        (r'a = "\xc3\xa9\xff\377"', {"a": "é\ufffd\ufffd"}),
        (r'a = "\ud800"', {"a": "\ufffd"}),
        ('a = "${b("c")} $d"', {"a": '${b("c")} $d'}),
        ('a = "${\n}"', {"a": "${\n}"}),
        ('é = "ß 😀"', {"é": "ß 😀"}),
        ('"a b" = 1\n"" = 2\n"a.b" = 3\na.b-c = 4', {"a b": 1, "": 2, "a.b": 3, "a.b-c": 4}),
        ('a = [1, "x", true, [2], []]', {"a": [1, "x", True, [2], []]}),
        ("a = [,1,,2,]", {"a": [1, 2]}),
        ("a = [[1] [2]]", {"a": [[1], [2]]}),
        ("a = [\n1 # one\n, // two\n2\n]", {"a": [1, 2]}),
        ("a = [{b = 1}, {b = 2}]", {"a": [{"b": 1}, {"b": 2}]}),
        ("a = <<EOF\nx\n y\nEOF\n", {"a": "x\n y\n"}),
        ("a = <<EOF\nx\n  EOF\n", {"a": "x\n  "}),
        ("a = <<-EOF\n    x\n      y\n    EOF\n", {"a": "x\n  y\n"}),
        ("a = <<-EOF\n    x\n  y\n    EOF\n", {"a": "    x\n  y\n"}),
        ('a = <<EOF\n"q" \\n ${b}\nEOF', {"a": '"q" \\n ${b}\n'}),
        ("a = <<EOF\r\nx\r\nEOF\r\n", {"a": "x\n"}),
        ("a = [<<EOF\nx\nEOF\n, 1]", {"a": ["x\n", 1]}),
        ("a = 1\na = 2", {"a": 2}),
        ("a = 1.5\na = 2", {"a": 2.0}),
        ('a = "x"\na = 0x10', {"a": "0x10"}),
        ('a = 1\na = "5"', {"a": 5}),
        ("a = [1]\na = [2]", {"a": [1, 2]}),
        ("Name =", {}),
    ],
)
def test_a_document_is_read_as_go_reads_it(text: str, value: dict[str, Any]) -> None:
    assert decode_hcl(text) == value
    assert parse_hcl(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a {}", {"a": [{}]}),
        ("a = {b = 1}", {"a": [{"b": 1}]}),
        ("a { b { c = 1 } }", {"a": [{"b": [{"c": 1}]}]}),
        ("a { b = 1 }\na { b = 2 }", {"a": [{"b": 1}, {"b": 2}]}),
        ("a { b = 1 }\na = [{b = 2}, {b = 3}]", {"a": [{"b": 1}, {"b": 2}, {"b": 3}]}),
        ('a "x" "y" { b = 1 }', {"a": [{"x": [{"y": [{"b": 1}]}]}]}),
        ('a "x" { b = 1 }\na "y" { b = 2 }', {"a": [{"x": [{"b": 1}]}, {"y": [{"b": 2}]}]}),
        ("a x {}", {"a": [{"x": [{}]}]}),
        ("a = [{b { c = 1 }}]", {"a": [{"b": [{"c": 1}]}]}),
        ("a = [1]\na { b = 1 }", {"a": [1, {"b": 1}]}),
    ],
)
def test_an_object_is_a_list_of_one_except_in_a_list(text: str, value: dict[str, Any]) -> None:
    assert decode_hcl(text) == value


def test_without_blocks_an_object_is_itself() -> None:
    text = 'a { b { c = 1 } d = [{e {}}] }\nf { g = 1 }\nf { g = 2 }\nh = [{i = 1}]\nj "k" { l = 1 }'
    assert parse_hcl(text) == {
        "a": {"b": {"c": 1}, "d": [{"e": {}}]},
        "f": [{"g": 1}, {"g": 2}],
        "h": [{"i": 1}],
        "j": {"k": {"l": 1}},
    }
    assert isinstance(decode_hcl(text)["a"], Blocks)
    assert not isinstance(decode_hcl(text)["h"], Blocks)


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a", 1, 3, "expected start of object"),
        ("a = b", 1, 5, "a value was expected, not 'b'"),
        ("a = null", 1, 5, "a value was expected"),
        ("a : 1", 1, 3, "illegal character ':'"),
        ("a = 'x'", 1, 5, "illegal character"),
        ("a = 1;", 1, 6, "illegal character ';'"),
        ("a = +5", 1, 5, "illegal character '+'"),
        ("a = -.5", 1, 5, "illegal character '-'"),
        ("a = 08", 1, 5, "'08' is no number"),
        ("a = 0x", 1, 5, "'0x' is no number"),
        ("a = 1e", 1, 5, "'1e' is no number"),
        ("a = 1e400", 1, 5, "1e400 is out of range"),
        ("a = 9223372036854775808", 1, 5, "out of range"),
        ("\n\na = [1 2]", 3, 8, "a comma or ']' was expected"),
        ("a = [1, b]", 1, 9, "a value was expected"),
        ("a = [1", 1, 7, "a comma or ']' was expected"),
        ("a {", 1, 4, "a key or '}' was expected"),
        ("a { b = 1 ]", 1, 11, "a key or '}' was expected"),
        ("}", 1, 1, "a key or the end was expected"),
        ("{}", 1, 1, "a key or the end was expected"),
        ("= 1", 1, 1, "a key or the end was expected"),
        (",a = 1", 1, 1, "a key or the end was expected"),
        ("true = 1", 1, 1, "a key or the end was expected, not True"),
        ('a "b" = 1', 1, 7, "nested object expected"),
        ('a = "x', 1, 5, "literal not terminated"),
        ('a = "x\ny"', 1, 5, "literal not terminated"),
        ('a = "x\0y"', 1, 5, "literal not terminated"),
        ('a = "${x', 1, 6, "`${` has no `}`"),
        (r'a = "\q"', 1, 6, "illegal char escape"),
        (r'a = "\u12"', 1, 6, "illegal char escape"),
        (r'a = "\400"', 1, 6, "escape is no byte"),
        (r'a = "\U00110000"', 1, 6, "escape is no Unicode character"),
        ("a = 1 /* x", 1, 7, "comment not terminated"),
        ("a = <<EOF\nx", 1, 5, "heredoc not terminated: no line holds EOF alone"),
        ("a = <<-EOF\nx\nEOF\n", 1, 5, "heredoc not terminated"),
        ("a = <<EOF x\nEOF", 1, 5, "heredoc expected"),
        ("a = 1\na = true", 2, 1, "'a' comes again, as another kind of value"),
        ('a = "x"\na {}', 2, 1, "comes again"),
        ('a = true\na = "x"', 2, 1, "comes again"),
        ("a = [1]\na = 2", 2, 1, "comes again"),
        ("a {}\na = [1]", 2, 1, "comes again"),
        ('a = 1\na = "x"', 2, 1, "comes again"),
        ("a = 1.5\na = 0x10", 2, 1, "comes again"),
        ('a {}\na "x" {}', 2, 1, "'a' stands with a label and without one"),
        ('a "x" {}\n\na = 1', 3, 1, "'a' stands with a label and without one"),
        ("\ufeffa = 1", 1, 1, "illegal character"),
    ],
)
def test_what_is_no_hcl_is_told_with_its_place(text: str, line: int, column: int, message: str) -> None:
    with pytest.raises(HclError) as caught:
        decode_hcl(text)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert message in caught.value.message
    assert str(caught.value).startswith(f"At {line}:{column}: ")


@pytest.mark.parametrize(("opening", "closing"), [("a {", "}"), ("a = {", "}"), ("a = " + "[", "]")])
def test_what_nests_too_deep_is_refused_and_ends_nothing(opening: str, closing: str) -> None:
    good = DEEPEST if "{" in opening else 1
    assert decode_hcl(opening * good + closing * good)
    with pytest.raises(HclError, match="nests deeper than 64 levels"):
        decode_hcl(opening * 100_000 if "{" in opening else "a = " + "[" * 100_000)


def test_keys_know_their_lines() -> None:
    tree = decode_hcl('# one\nKind = "x"\nRoutes {\n  Match {\n    a = 1\n  }\n}\nRoutes {\n  b = 2\n}\nKind = "y"\n')
    assert tree.lines == {"Kind": 2, "Routes": 3}
    first, second = tree["Routes"]
    assert (first.lines, first["Match"][0].lines, second.lines) == ({"Match": 4}, {"a": 5}, {"b": 9})


def test_reading_is_linear() -> None:
    """Twenty thousand blocks, strings and open comments: no step looks at the whole text again."""
    assert len(decode_hcl("a { b = 1 }\n" * 20_000)["a"]) == 20_000
    assert len(decode_hcl(f'a = "{"x" * 100_000}"')["a"]) == 100_000
    with pytest.raises(HclError):
        decode_hcl("/* " * 50_000)


KEYS = st.text(st.characters(codec="utf-8", exclude_characters='"\\\0\n$'), max_size=6)
SCALARS = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), KEYS)
TREES = st.dictionaries(
    KEYS, st.recursive(SCALARS, lambda value: st.lists(value, max_size=3), max_leaves=8), max_size=4
)


def written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(written(one) for one in value)}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


@given(TREES)
def test_what_is_written_is_read(tree: dict[str, Any]) -> None:
    text = "".join(f'"{key}" = {written(value)}\n' for key, value in tree.items())
    assert decode_hcl(text) == tree


@given(st.text(st.sampled_from('ab1=.,-{}[]"\\\n #/*<EOF$éx'), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        decode_hcl(text)
    except HclError as error:
        line, column = error.line, error.column
    else:
        return
    assert 1 <= line <= text.count("\n") + 1
    assert column >= 1
