"""Random HCL reads back as the stock command line writes it."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.command_lines import entry, ours, stock
from harness.servers import ConsulServer

SPACE = st.sampled_from([" ", "\n", "\n\n", "  # c\n", "// c\n", "/* c */", "/* x\ny */ ", "\t", "\r\n"])
KEY = st.sampled_from(
    ["a", "b", "Kay", "snake_key", "a-b", "a.b", "_u", "x1", "é", '"q"', '"a b"', '"\\u00e9"', '""', "true"]
)
PART = st.sampled_from(
    [
        "x",
        "é",
        "😀",
        r"\n",
        r"\"",
        r"\\",
        r"\u00e9",
        r"\x41",
        r"\101",
        r"\xc3",
        r"\xa9",
        "${a}",
        '${b("c")}',
        "$",
        "{",
        "#",
        "//",
        r"\q",
    ]
)
TEXT = st.lists(PART, max_size=4).map(lambda parts: f'"{"".join(parts)}"')
NUMBER = st.sampled_from(
    [
        "0",
        "1",
        "-1",
        "010",
        "08",
        "0x1F",
        "-0x1",
        "1.5",
        "-0.25",
        ".5",
        "1.",
        "1e3",
        "1E-2",
        "+1",
        "1_0",
        "1a",
        "0x",
        "1e400",
        "-.5",
        "00",
        "0b1",
        "9223372036854775807",
        "9223372036854775808",
    ]
)
LINE = st.sampled_from(["x", "  y z", "\tq", "", "    ${a}", r"  \n", "EOF2"])


@st.composite
def heredoc(draw: st.DrawFn) -> str:
    lines = draw(st.lists(LINE, max_size=3))
    end = draw(st.sampled_from(["", "  ", "    "]))
    return "\n".join([f"<<{draw(st.sampled_from(['', '-']))}EOF", *lines, f"{end}EOF", ""])


def objects(value: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    item = st.one_of(
        st.tuples(KEY, st.sampled_from([" = ", "=", " =\n", " /*c*/= "]), value).map("".join),
        st.tuples(KEY, st.just(" {"), value.map(lambda one: f"\nz = {one}\n"), st.just("}")).map("".join),
        st.tuples(KEY, st.just(" "), KEY, value.map(lambda one: f" {{\nz = {one}\n}}")).map("".join),
    )
    end = st.sampled_from(["\n", "\n", ",", " ", ",\n"])
    return st.lists(st.tuples(item, end).map("".join), max_size=4).map("".join)


def deeper(value: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    comma = st.sampled_from([", ", ",", ",\n", " , ", " "])
    listed = st.tuples(comma, st.lists(value, max_size=3), st.sampled_from(["", ",", "\n"]))
    return st.one_of(
        listed.map(lambda drawn: f"[{drawn[0].join(drawn[1])}{drawn[2]}]"),
        st.tuples(SPACE, objects(value)).map(lambda drawn: f"{{{drawn[0]}{drawn[1]}}}"),
    )


VALUE = st.recursive(st.one_of(TEXT, NUMBER, st.sampled_from(["true", "false", "null", "foo"]), heredoc()), deeper)


def stored(server: ConsulServer, run: Any, text: str) -> Any:
    """Return what a text makes of proxy-defaults, None when it is refused."""
    server.api("config/proxy-defaults/global", "DELETE")
    if run(server, "config write -", text).code != 0:
        return None
    return entry(server, "proxy-defaults", "global")["Config"]


@settings(max_examples=25)
@given(body=st.tuples(SPACE, objects(VALUE)).map("".join))
def test_random_hcl_reads_back_as_the_stock_command_line_writes_it(body: str, server: ConsulServer) -> None:
    text = f'Kind = "proxy-defaults"\nName = "global"\nConfig {{{body}\nz = 1\n}}\n'
    assert stored(server, ours, text) == stored(server, stock, text)
