from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policies.paths import PathNormalization, normalize

PIECES = st.sampled_from(
    [*"/.\\%abA;:{}|", "..", "//", "/../", "/./", "%2e", "%2F", "%5c", "%41", "%00", "#", "%zz", "\xe9", "[", "]"]
)
PATHS = st.lists(PIECES, max_size=14).map(lambda pieces: "/" + "".join(pieces))
RULES = st.builds(
    PathNormalization,
    merge_slashes=st.booleans(),
    escaped_slashes=st.sampled_from(["KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_FORWARD"]),
)


@given(PATHS, RULES)
def test_normalising_twice_changes_nothing_more(path: str, rules: PathNormalization) -> None:
    once = normalize(path, rules)
    if once is not None:
        assert normalize(once, rules) == once


@given(PATHS, RULES)
def test_a_normal_path_has_no_dot_segments_and_no_backslash(path: str, rules: PathNormalization) -> None:
    once = normalize(path, rules)
    if once is not None:
        assert once.startswith("/")
        assert not {".", ".."} & set(once.split("/"))
        assert "\\" not in once
        assert once.isascii()


@given(PATHS)
def test_a_plain_path_that_is_normal_stays_as_it_is(path: str) -> None:
    if all(character.isalnum() or character in "/-_" for character in path) and path.isascii():
        assert normalize(path, PathNormalization()) == path
