"""What a connection from a caller awaits from it.

    HEAD ──head──▶ BODY ──last byte──▶ ANSWERING ──answer whole──▶ HEAD …
      └──head without body──────────────────▲            101 ──▶ TUNNEL

An answer made here may be ready while a body still arrives: a short one is read and thrown away (SKIPPING) so that
the connection can be kept, else the connection closes once the caller had a moment to read the answer (CLOSING).
"""

from __future__ import annotations

import enum


class State(enum.Enum):
    """One of these; the names below are for the hot path: looking a member up costs as much as a call."""

    HEAD = enum.auto()
    BODY = enum.auto()
    ANSWERING = enum.auto()
    TUNNEL = enum.auto()
    SKIPPING = enum.auto()
    CLOSING = enum.auto()
    CLOSED = enum.auto()


HEAD, BODY, ANSWERING, TUNNEL = State.HEAD, State.BODY, State.ANSWERING, State.TUNNEL
SKIPPING, CLOSING, CLOSED = State.SKIPPING, State.CLOSING, State.CLOSED
