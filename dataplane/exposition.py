"""Prometheus' text exposition format, version 0.0.4.

Written here, since `prometheus_client` and the HTTP servers that it brings are a megabyte in every sidecar; the tests
read the text back with that library.
Source: https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

_IN_LABELS = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_IN_HELP = str.maketrans({"\\": r"\\", "\n": r"\n"})


class Family:
    """The samples of one metric. The name of a counter ends in `_total`."""

    __slots__ = ("_lines", "_name")

    def __init__(self, name: str, kind: Literal["counter", "gauge", "histogram"], text: str) -> None:
        self._name = name
        self._lines = [f"# HELP {name} {text.translate(_IN_HELP)}\n", f"# TYPE {name} {kind}\n"]

    def add(self, labels: Mapping[str, str], value: float, suffix: str = "") -> None:
        """Add a sample."""
        pairs = ",".join(f'{name}="{labels[name].translate(_IN_LABELS)}"' for name in sorted(labels))
        self._lines.append(f"{self._name}{suffix}{'{' + pairs + '}' if pairs else ''} {float(value)!r}\n")

    def add_histogram(
        self, labels: Mapping[str, str], bounds: Sequence[float], counts: Iterable[int], total: float
    ) -> None:
        """Add the samples of one histogram; `counts` are those of each bucket alone, the last beyond all bounds."""
        seen = 0
        for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
            seen += count
            self.add({**labels, "le": bound}, seen, "_bucket")
        self.add(labels, seen, "_count")
        self.add(labels, total, "_sum")

    def __str__(self) -> str:
        """Return the metric as text."""
        return "".join(self._lines)


def gauge(name: str, text: str, value: float) -> Family:
    """Return a metric of one sample without labels."""
    family = Family(name, "gauge", text)
    family.add({}, value)
    return family
