from __future__ import annotations

from policies.weak import Opaque, items, mapping


def test_keys_are_found_in_any_spelling() -> None:
    config = Opaque({"connect_timeout_ms": 100})
    assert config.number("ConnectTimeoutMs", 5) == 100
    assert Opaque({"ConnectTimeoutMs": 100}).number("connect_timeout_ms", 5) == 100


def test_missing_null_and_unfit_values_are_the_default() -> None:
    config = Opaque({"a": None, "b": "x", "c": {}, "d": [1], "e": ""})
    assert config.number("a", 1) == 1
    assert config.number("b", 2) == 2
    assert config.number("d", 3) == 3
    assert config.text("c", "none") == "none"
    assert config.text("d", "none") == "none"
    assert config.text("e", "none") == "none"
    assert config.text("zz", "none") == "none"


def test_a_number_that_is_none_or_has_no_end_is_the_default() -> None:
    config = Opaque({"a": "inf", "b": "-Infinity", "c": "nan", "d": float("inf"), "e": 10**400})
    assert [config.number(key, 7) for key in "abcde"] == [7] * 5


def test_numbers_and_flags_are_read_from_text() -> None:
    config = Opaque({"n": "12", "yes": "TRUE", "one": 1, "no": "false", "t": True})
    assert config.number("n", 0) == 12
    assert config.flag("yes")
    assert config.flag("one")
    assert config.flag("t")
    assert not config.flag("no")
    assert not config.flag("missing")


def test_nested_parts_are_opaque_too() -> None:
    config = Opaque({"Outer": {"In_ner": "x"}})
    assert config.part("outer").text("inner") == "x"
    assert config.part("nothing").text("inner") == ""
    assert config.has("outer")
    assert not config.has("nothing")
    assert not Opaque(None).has("x")


def test_null_and_missing_collections_are_empty() -> None:
    assert mapping(None) == {}
    assert mapping({"a": 1}) == {"a": 1}
    assert items(None) == ()
    assert items([1, 2]) == (1, 2)
    assert items("text") == ()
