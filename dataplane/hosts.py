"""The virtual hosts of an ingress listener: which one takes a Host."""

from __future__ import annotations

from collections.abc import Sequence

from dataplane.routing import PreparedOutbound
from policies.table import VirtualHost


class Hosts:
    """Virtual hosts by Envoy's rules: exact, then the longest `*.suffix`, then the longest `prefix.*`, then `*`.

    An explicit host is also taken with the listener's own port; the default hosts end in `.*`, which takes any port.
    """

    __slots__ = ("_any", "_exact", "_prefixes", "_suffixes")

    def __init__(self, hosts: Sequence[tuple[VirtualHost, PreparedOutbound]], port: int) -> None:
        self._exact: dict[str, PreparedOutbound] = {}
        self._suffixes: list[tuple[str, PreparedOutbound]] = []
        self._prefixes: list[tuple[str, PreparedOutbound]] = []
        self._any: PreparedOutbound | None = None
        for virtual_host, prepared in hosts:
            for name in virtual_host.hosts:
                self._add(name, prepared, port)
        self._suffixes.sort(key=lambda pair: -len(pair[0]))
        self._prefixes.sort(key=lambda pair: -len(pair[0]))

    def _add(self, name: str, prepared: PreparedOutbound, port: int) -> None:
        if name == "*":
            self._any = prepared
        elif name.startswith("*"):
            self._suffixes += [(name[1:], prepared), (f"{name[1:]}:{port}", prepared)]
        elif name.endswith("*"):
            self._prefixes.append((name[:-1], prepared))
        else:
            self._exact[name] = self._exact[f"{name}:{port}"] = prepared

    def find(self, host: str) -> PreparedOutbound | None:
        """Return what stands behind a Host (lower case), or None."""
        found = self._exact.get(host)
        if found is not None:
            return found
        for suffix, prepared in self._suffixes:
            if host.endswith(suffix) and len(host) > len(suffix):
                return prepared
        for prefix, prepared in self._prefixes:
            if host.startswith(prefix) and len(host) > len(prefix):
                return prepared
        return self._any
