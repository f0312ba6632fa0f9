"""Which listeners a table calls for, what a new table changes about them, and what stands behind each."""

from __future__ import annotations

import enum
from collections.abc import Container
from dataclasses import dataclass

from policies.table import IngressListener, Table


class Purpose(enum.StrEnum):
    """Who calls at a listener, and what for."""

    INBOUND = "inbound"  # the mesh, for our app
    EGRESS = "egress"  # the mesh, for services outside
    UPSTREAM = "upstream"  # our app, for one upstream
    PROXY = "proxy"  # our app, for hosts outside by a forward proxy
    INGRESS = "ingress"  # callers from outside
    PASSTHROUGH = "passthrough"  # callers from outside, by TLS that is not ended here


@dataclass(frozen=True, slots=True)
class ListenerKey:
    """What makes a listener the same listener: its purpose and its address. `name` is the upstream's key."""

    purpose: Purpose
    name: str
    address: str
    port: int

    def __str__(self) -> str:
        """Return the name used in metrics and logs."""
        return f"{self.purpose}:{self.name}" if self.name else self.purpose


@dataclass(frozen=True, slots=True)
class Changes:
    """What a new table changes about the listeners."""

    open: tuple[ListenerKey, ...]
    close: tuple[ListenerKey, ...]


def wanted_listeners(table: Table, with_tls: Container[int] = ()) -> tuple[ListenerKey, ...]:
    """Return the listeners that a table calls for. `with_tls` are the ports whose certificates are there."""
    keys = []
    if table.inbound is not None:
        keys.append(ListenerKey(Purpose.INBOUND, "", table.inbound.bind_address, table.inbound.bind_port))
    if table.egress is not None:
        keys.append(ListenerKey(Purpose.EGRESS, "", table.egress.bind_address, table.egress.bind_port))
    keys += [
        ListenerKey(Purpose.PROXY if item.forward_proxy else Purpose.UPSTREAM, item.upstream, item.address, item.port)
        for item in table.listeners
    ]
    keys += [ingress_key(item) for item in table.ingress if item.tls is None or item.port in with_tls]
    keys += [ListenerKey(Purpose.PASSTHROUGH, str(item.port), item.address, item.port) for item in table.passthrough]
    return tuple(keys)


def ingress_key(listener: IngressListener) -> ListenerKey:
    """Return the key of a gateway's listener for callers from outside."""
    return ListenerKey(Purpose.INGRESS, str(listener.port), listener.address, listener.port)


def changes(have: frozenset[ListenerKey], table: Table, with_tls: Container[int] = ()) -> Changes:
    """Return what to open and what to close so that exactly the table's listeners are there."""
    want = wanted_listeners(table, with_tls)
    return Changes(tuple(key for key in want if key not in have), tuple(sorted(have - set(want), key=str)))


def behind(table: Table, key: ListenerKey) -> tuple[str, str]:
    """Return (upstream, protocol) of what stands behind a listener for callers without an identity."""
    if key.purpose in {Purpose.UPSTREAM, Purpose.PROXY}:
        outbound = table.outbounds.get(key.name)
        return key.name, outbound.protocol if outbound is not None else ""
    for listener in table.ingress:
        if listener.port == key.port:
            first = listener.virtual_hosts[0].outbound if listener.virtual_hosts else ""
            return first, listener.protocol
    return "", ""
