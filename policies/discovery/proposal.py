"""The stored entries with one change that is proposed."""

from __future__ import annotations

from dataclasses import dataclass

from policies.discovery.chain_set import Entry
from policies.entries.store import Entries


@dataclass(frozen=True, slots=True)
class Proposal:
    """`new` None deletes. Only the very spelling of `name` sees the change; another spelling sees the stored entry."""

    before: Entries
    kind: str
    name: str
    new: Entry | None

    def get(self, kind: str, name: str) -> Entry | None:
        """Return the entry as it would be."""
        return self.new if (kind, name) == (self.kind, self.name) else self.before.get(kind, name)
