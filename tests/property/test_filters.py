from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from policies.errors import FilterError
from policies.filters import parse_filter

VERSIONS = st.sampled_from(["v1", "v2", "v3"])
TERMS = st.one_of(
    VERSIONS.map(lambda version: f"Service.Meta.version == {version}"),
    VERSIONS.map(lambda version: f'Service.Meta.version != "{version}"'),
    st.just("Service.Port == 1"),
)


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> tuple[str, str]:
    """Return a filter and the Python that means the same."""
    if depth == 0 or draw(st.booleans()):
        term = draw(TERMS)
        python = term.replace("Service.Meta.version", "version").replace("Service.Port", "port")
        for name in ("v1", "v2", "v3"):
            python = python.replace(f'"{name}"', name).replace(f" {name}", f' "{name}"')
        return term, python
    left, right = draw(expressions(depth - 1)), draw(expressions(depth - 1))
    word = draw(st.sampled_from(["and", "or"]))
    negation = draw(st.sampled_from(["", "not "]))
    return f"{negation}({left[0]} {word} {right[0]})", f"({negation}({left[1]} {word} {right[1]}))"


@given(expressions(), VERSIONS, st.sampled_from([1, 2]))
def test_a_filter_means_what_its_words_say(both: tuple[str, str], version: str, port: int) -> None:
    text, python = both
    row = {"Service": {"Meta": {"version": version}, "Port": port}}
    expected = eval(python, {"version": version, "port": port})  # noqa: S307 - made above from fixed words
    assert parse_filter(text).matches(row) is bool(expected)


@given(st.text(alphabet='Service.Mta=!()"` andornti1v', max_size=60))
def test_any_text_either_parses_or_is_a_typed_error(text: str) -> None:
    with contextlib.suppress(FilterError):
        parse_filter(text).matches({"Service": {}})
