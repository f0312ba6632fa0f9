"""Intentions: who may call whom, in Consul's precedence, with the reason of every answer."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Action(enum.Enum):
    """What an intention or the default says."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Intentions:
    """The intentions of one destination in order of precedence. Filled in by `parse_intentions`."""
