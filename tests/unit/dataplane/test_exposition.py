from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from dataplane.exposition import Family, gauge


def read_back(*families: Family) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = "".join(map(str, families))
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_labels_come_back_whatever_is_in_them() -> None:
    family = Family("tries_total", "counter", 'of "all"\nkinds \\ and more')
    odd = 'a "quoted" \\ back\\\\slash\nand a line, {braces}=é'
    family.add({"odd": odd, "a": "b"}, 3)
    family.add({}, 12345678901)
    assert read_back(family) == {
        ("tries_total", frozenset({("odd", odd), ("a", "b")})): 3.0,
        ("tries_total", frozenset()): 12345678901.0,
    }
    (found,) = text_string_to_metric_families(str(family))
    assert (found.type, found.documentation) == ("counter", 'of "all"\nkinds \\ and more')


def test_a_gauge_is_one_sample() -> None:
    assert str(gauge("left", "Seconds.", 1.5)) == "# HELP left Seconds.\n# TYPE left gauge\nleft 1.5\n"


def test_the_buckets_of_a_histogram_add_up() -> None:
    family = Family("took_seconds", "histogram", "Time.")
    family.add_histogram({"listener": "in"}, (0.1, 1.0), (2, 0, 5), 9.25)
    own = ("listener", "in")
    assert read_back(family) == {
        ("took_seconds_bucket", frozenset({own, ("le", "0.1")})): 2.0,
        ("took_seconds_bucket", frozenset({own, ("le", "1.0")})): 2.0,
        ("took_seconds_bucket", frozenset({own, ("le", "+Inf")})): 7.0,
        ("took_seconds_count", frozenset({own})): 7.0,
        ("took_seconds_sum", frozenset({own})): 9.25,
    }
