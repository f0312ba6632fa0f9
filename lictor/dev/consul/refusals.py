"""An answer that is an error. Here alone, so that what only decodes and checks loads no HTTP."""

from __future__ import annotations

from policies.errors import MeshError


class Refused(MeshError):
    """Its status, its text, and whether it carries the headers of a failed read."""

    def __init__(self, status: int, text: str, *, indexed: bool = False) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.indexed = indexed
