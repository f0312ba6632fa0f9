"""Whatever is read, the only error is the reader's own: filters, YAML, HCL, SPIFFE IDs, chains, intentions, paths."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lictor.hcl import HclError, decode_hcl
from policies.chain import parse_chain
from policies.errors import ChainError, ConfigError, FilterError, IdentityError
from policies.filters import MAX_NESTING, parse_filter
from policies.identity import SpiffeId
from policies.intentions import Action, parse_intentions
from policies.paths import PathNormalization, normalize
from sidecar.yaml_reader import Section, read_document

MANY = settings(max_examples=int(os.environ.get("N", "400")))


def texts(*pieces: str, size: int = 12) -> st.SearchStrategy[str]:
    """Return texts of these pieces and a few of any other characters."""
    return st.lists(
        st.one_of(st.sampled_from(pieces), st.sampled_from(pieces), st.text(max_size=2)), max_size=size
    ).map("".join)


filters = texts(
    *(
        "Service",
        ".Meta",
        ".Port",
        ".Tags",
        "Checks",
        ".Status",
        '["a"]',
        "[`",
        " == ",
        " != ",
        " in ",
        " not ",
        " and ",
    ),
    *(
        " or ",
        " is empty",
        " contains ",
        " matches ",
        "(",
        ")",
        '"',
        "`",
        "1",
        "-1",
        "9" * 30,
        "v1",
        "(((",
        '"(a*)*b"',
        " ",
    ),
)


@MANY
@given(filters)
@example("Service.Port == " + "1" * 5000)
@example("(" * 100_000)
@example("not " * 20_000 + "Service.Port == 1")
@example("(" * (MAX_NESTING + 1) + "Service.Port == 1" + ")" * (MAX_NESTING + 1))
@example('Service.Meta.a matches "' + "(" * 500 + '"')
def test_a_filter_parses_or_is_a_filter_error(text: str) -> None:
    with contextlib.suppress(FilterError):
        parse_filter(text).matches({"Node": {}, "Service": {"Port": 1, "Tags": ["v1"]}, "Checks": [{"Status": "x"}]})


yaml = texts(
    *(
        "a",
        "b",
        ": ",
        "\n",
        "\n  ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "&x ",
        "*x",
        "!!int ",
        "!!x ",
        "<<",
        "? ",
        "|\n ",
        "> ",
    ),
    *("'", '"', "2020-13-45", "0x", "1_0", "1:99", ".nan", "~", "=", "---\n", "%YAML 1.1\n", "#", "\\", "\t", "1" * 30),
    size=16,
)


def ask(section: Section) -> None:
    """Ask for everything in every way."""
    for key in ("a", "b"):
        section.text(key)
        section.port(key)
        section.flag(key)
        section.duration(key, 1.0)
        section.texts(key)
        section.pairs(key)
        section.plain(key)
        section.section(key).text("a")
        for below in section.sections(key):
            below.number("b")
    section.done()
    section.raise_problems()


@MANY
@given(yaml)
def test_yaml_is_read_or_told_of_with_its_file(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.yaml"
        file.write_text(text, encoding="utf-8", errors="surrogatepass")
        try:
            ask(read_document(file))
        except ConfigError as error:
            assert error.problems  # noqa: PT017 - the type is the claim, its content part of it
            assert all(problem.where.startswith(str(file)) for problem in error.problems)  # noqa: PT017 - the same


hcl = texts(
    *(
        "a",
        "b",
        " = ",
        " {",
        "}",
        "[",
        "]",
        ",",
        "\n",
        '"',
        "\\",
        "${",
        "<<E\n",
        "\nE\n",
        "<<-",
        "1",
        "0x",
        "1e999",
        "010",
    ),
    *(
        "true",
        "/*",
        "*/",
        "//",
        "#",
        ".",
        "-",
        "\\u",
        "\\xff",
        "9" * 30,
        "\r",
        "\x00",
        '"x"',
        "a = 1\n",
        "[[",
        "{ a = [{",
    ),
    size=16,
)


@MANY
@given(hcl)
@example("a = " + "[" * 5000)
@example("a {" * 5000)
@example("a = " + "1" * 5000)
@example("a " * 5000 + "{}")
def test_hcl_is_read_or_told_of_with_its_line(text: str) -> None:
    try:
        decode_hcl(text)
    except HclError as error:
        assert 1 <= error.line <= text.count("\n") + 1  # noqa: PT017 - the type is the claim, its content part of it


uris = texts(
    *(
        "spiffe://",
        "td.consul",
        "/ns/default",
        "/dc/dc1",
        "/svc/web",
        "/ap/default",
        "/",
        "%2F",
        "%2f..",
        "%00",
        "..",
        "?",
    ),
    *("#", "@", ":80", "%", "\n", "é", "%C3%A9", "%FF", "/svc/", "ns", "SPIFFE://", "\\", " "),
    size=8,
)
segments = st.text(
    st.characters(min_codepoint=0x21, exclude_categories=["Cs"], exclude_characters='/?#\\"\x7f'), min_size=1
)


@MANY
@given(uris)
@example("spiffe://td/ns/default/dc/dc1/svc/" + "%41" * 700)
@example("spiffe://td/ns/default/dc/dc1/svc/a%2Fb")
@example("spiffe://td/ns/default/dc/dc1/svc/a\n")
def test_a_uri_is_a_services_id_by_the_letter_or_refused(uri: str) -> None:
    try:
        parsed = SpiffeId.parse(uri)
    except IdentityError:
        return
    scheme, _, trust_domain, *path = uri.split("/")
    assert (scheme.lower(), trust_domain.lower()) == ("spiffe:", parsed.trust_domain)
    assert path[:2] == ["ap", "default"] or path[:2] == ["ns", "default"]
    kinds, given_names = path[-6::2], path[-5::2]
    assert kinds == ["ns", "dc", "svc"]
    assert [unquote(name) for name in given_names] == ["default", parsed.datacenter, parsed.service]
    assert not set("/?#\\ \n\0") & set(parsed.service + parsed.datacenter)
    assert SpiffeId.parse(str(parsed)) == parsed


@MANY
@given(segments, segments)
def test_an_id_reads_back_as_it_was_told(datacenter: str, service: str) -> None:
    if {datacenter, service} & {".", ".."}:
        return
    told = SpiffeId("td.consul", datacenter, service)
    if len(str(told)) <= 2048:
        assert SpiffeId.parse(str(told)) == told


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4))
json: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=4), below, max_size=3)
)
SHAPE_ERRORS = (
    TypeError,
    ValueError,
    KeyError,
    AttributeError,
    OverflowError,
)  # which the snapshot keeps as one bad answer


def spoilt(good: Any) -> st.SearchStrategy[Any]:
    """Return answers of this shape in which any part may be something else."""
    if isinstance(good, dict):
        return st.one_of(*[st.fixed_dictionaries({key: spoilt(value) for key, value in good.items()})] * 5, json)
    if isinstance(good, list):
        return st.one_of(st.tuples(*map(spoilt, good)).map(list), json)
    return st.one_of(st.just(good), st.just(good), st.just(good), json)


CHAIN = {
    "ServiceName": "api",
    "Protocol": "http",
    "StartNode": "router:api",
    "Nodes": {
        "router:api": {
            "Type": "router",
            "Routes": [{"Definition": {"Match": {"HTTP": {"PathPrefix": "/"}}}, "NextNode": "s"}],
        },
        "s": {"Type": "splitter", "Splits": [{"Weight": 50, "NextNode": "r"}, {"Weight": 50, "NextNode": "s"}]},
        "r": {"Type": "resolver", "Resolver": {"ConnectTimeout": "5s", "Target": "t", "Failover": {"Targets": ["t"]}}},
    },
    "Targets": {"t": {"ID": "t", "Service": "api", "Subset": {"Filter": "Service.Port == 1"}}},
}


@MANY
@given(spoilt(CHAIN))
def test_a_chain_is_followed_or_refused(answer: Any) -> None:
    with contextlib.suppress(ChainError, *SHAPE_ERRORS):
        parse_chain(answer if isinstance(answer, dict) else {})


def test_a_chain_whose_paths_meet_again_and_again_is_read_in_one_pass() -> None:
    nodes: dict[str, Any] = {
        f"s{n}": {"Type": "splitter", "Splits": [{"Weight": 1, "NextNode": f"{side}{n + 1}"} for side in "sz"]}
        for n in range(60)
    }
    nodes |= {f"z{n}": {"Type": "splitter", "Splits": nodes[f"s{n}"]["Splits"]} for n in range(1, 60)}
    end = {"Type": "resolver", "Resolver": {"Target": "t"}}
    chain = parse_chain({"StartNode": "s0", "Nodes": {**nodes, "s60": end, "z60": end}, "Targets": {"t": {"ID": "t"}}})
    assert len(chain.nodes) == 121


def test_a_chain_deeper_than_any_is_refused() -> None:
    nodes = {f"s{n}": {"Type": "splitter", "Splits": [{"Weight": 1, "NextNode": f"s{n + 1}"}]} for n in range(5000)}
    with pytest.raises(ChainError):
        parse_chain({"StartNode": "s0", "Nodes": nodes})


ROW = {
    "SourceName": "web",
    "DestinationName": "api",
    "Precedence": 9,
    "Permissions": [
        {"Action": "deny", "HTTP": {"PathPrefix": "/admin", "Methods": ["GET"], "Header": [{"Name": "a"}]}}
    ],
}


class NoHeaders:
    def get_all(self, name: str) -> tuple[str, ...]:
        del name
        return ()


@MANY
@given(st.lists(spoilt(ROW).filter(lambda row: isinstance(row, dict)), max_size=3))
def test_rows_of_intentions_are_understood_or_refused_and_always_answer(rows: list[dict[str, Any]]) -> None:
    try:
        intentions, _ = parse_intentions(rows)
    except SHAPE_ERRORS:
        return
    decision = intentions.for_source("web", Action.DENY).request("GET", "/admin", NoHeaders())
    assert decision.because


paths = texts(
    *(
        "/",
        "/",
        "..",
        ".",
        "\\",
        "%2e",
        "%2E",
        "%2f",
        "%5c",
        "%61",
        "%00",
        "#",
        ";",
        "//",
        "admin",
        "x",
        "%",
        "%25",
        "%2",
        "ÿ",
    ),
    size=14,
).map(lambda text: "/" + "".join(sign for sign in text if ord(sign) < 256))
rules = st.builds(
    PathNormalization,
    merge_slashes=st.booleans(),
    escaped_slashes=st.sampled_from(
        ["KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_FORWARD", "UNESCAPE_AND_REDIRECT"]
    ),
)


def resolved(path: str) -> list[str]:
    """Return the segments that a lenient app goes through: everything decoded once, dots followed."""
    kept: list[str] = []
    for segment in unquote(path.replace("\\", "/"), "latin-1").split("/"):
        if segment == "..":
            kept = kept[:-1]
        elif segment not in {"", "."}:
            kept.append(segment)
    return kept


@MANY
@given(paths, rules)
def test_a_denied_prefix_is_not_passed_by_a_spelling_that_normalisation_promises_to_undo(
    path: str, how: PathNormalization
) -> None:
    normal = normalize(path, how)
    if normal is None:
        return
    assert normalize(normal, how) == normal
    assert (
        not {"", *(() if not how.merge_slashes else ("",))} & set(normal[1:].split("/")[:-1]) or not how.merge_slashes
    )
    assert not {".", ".."} & set(normal.split("/"))
    assert normal.isascii()
    assert not set("\\#\0") & set(normal)
    plain = how.merge_slashes and how.escaped_slashes.startswith("UNESCAPE")
    if plain and "%25" not in path and resolved(normal)[:1] == ["admin"]:
        assert normal.startswith("/admin")
