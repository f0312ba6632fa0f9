from __future__ import annotations

from pathlib import Path

import pytest

from policies.errors import ConfigError
from sidecar.yaml_reader import Section, read_document


def document(folder: Path, text: str) -> Section:
    file = folder / "x.yaml"
    file.write_text(text)
    return read_document(file)


def told(section: Section) -> list[str]:
    return [f"{problem.where.rpartition(': ')[2]}: {problem.message}" for problem in section.problems]


def test_values_come_out_in_their_types(tmp_path: Path) -> None:
    section = document(tmp_path, "t: text\nn: 5\nf: true\nd: 1m\ns: 2.5\nl: [a, 1]\np: {a: 1, b: yes}\nport: 80\n")
    assert section.text("t") == "text"
    assert section.text("n") == "5"
    assert section.number("n") == 5
    assert section.flag("f") is True
    assert (section.duration("d", 0), section.duration("s", 0), section.duration("none", 7)) == (60.0, 2.5, 7)
    assert section.texts("l") == ("a", "1")
    assert section.pairs("p") == {"a": "1", "b": "true"}
    assert section.port("port") == 80
    section.done()
    assert section.problems == []
    section.raise_problems()


def test_a_missing_or_empty_key_is_the_default(tmp_path: Path) -> None:
    section = document(tmp_path, "t:\nl:\np:\ns:\n")
    assert section.text("t", "x") == "x"
    assert section.texts("l") == ()
    assert section.pairs("p") == {}
    assert section.section("s").text("a", "y") == "y"
    assert section.sections("l") == ()
    assert not section.has("t")


def test_a_wrong_type_is_told_and_reading_goes_on(tmp_path: Path) -> None:
    section = document(tmp_path, "t: [1]\nn: x\nf: 1\nl: text\np: text\ns: 5\nm: text\nport: 0\nd: true\n")
    assert section.text("t", "x") == "x"
    assert section.number("n", 3) == 3
    assert section.flag("f") is False
    assert section.texts("l") == ()
    assert section.pairs("p") == {}
    assert section.section("s").has("a") is False
    assert section.sections("m") == ()
    assert section.port("port") == 0
    section.duration("d", 1.0)
    assert len(section.problems) == 9
    with pytest.raises(ConfigError) as caught:
        section.raise_problems()
    assert len(caught.value.problems) == 9


def test_a_key_that_nobody_asked_for_is_told_with_the_likely_one(tmp_path: Path) -> None:
    section = document(tmp_path, "adress: x\nzzz: 1\n")
    section.text("address")
    section.done()
    assert any("did you mean `address`" in str(problem) for problem in section.problems)
    assert any("zzz" in str(problem) for problem in section.problems)


def test_a_list_element_that_is_no_mapping_costs_only_itself(tmp_path: Path) -> None:
    section = document(tmp_path, "l:\n  - {a: 1}\n  - text\n")
    (good,) = section.sections("l")
    assert good.number("a") == 1
    assert told(section) == ["l[1]: expected a mapping"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2020-13-45\n", ":2: cannot be read: month"),
        ("a: 1\nb: " + "1" * 5000, ":2: cannot be read: Exceeds"),
        ("a: 1\nb: !!int x\n", ":2: cannot be read"),
        ("a: 1\nb: !!timestamp x\n", ":2: cannot be read"),
        ("a: 1\nb: !!python/object:os.x 1\n", ":2: cannot be read: could not determine a constructor"),
        ("a: 1\nb: {[1]: 2}\n", ":2: a key must be a single word"),
        ("a: 1\nb: {<<: 5}\n", ":2: cannot be read"),
        ("a: 1\nb: &x [*x]\n", ":2: holds itself"),
        ("a: " + "[" * 2000, "nests too deep"),
        (
            "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [{f'*a{n},' * 9}]\n" for n in range(9)),
            "stand for more than",
        ),
    ],
)
def test_a_value_that_nothing_could_read_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        document(tmp_path, text)
    assert said in str(caught.value)


def test_aliases_and_merges_are_read(tmp_path: Path) -> None:
    section = document(tmp_path, "a: &x {k: 1}\nb: *x\nc: {<<: *x, l: 2}\n")
    assert section.plain("b") == {"k": 1}
    assert section.plain("c") == {"k": 1, "l": 2}


@pytest.mark.parametrize("text", [".nan", ".inf", "-.inf", "1e300"])
def test_a_number_that_is_no_time_is_no_duration(tmp_path: Path, text: str) -> None:
    section = document(tmp_path, f"d: {text}\nl: [[a], b]\n")
    assert section.duration("d", 7.0) == 7.0
    assert section.texts("l") == ()
    assert len(section.problems) == 2
