"""The `mesh` config entry: what holds for every proxy of the mesh. A missing entry means the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from policies.errors import Problem, unknown_field
from policies.paths import ESCAPED_SLASHES, PathNormalization
from policies.weak import Opaque, items, mapping


@dataclass(frozen=True, slots=True)
class TlsLimits:
    """TLS versions (`TLSv1_2`, `TLS_AUTO` or "" for the default) and cipher suites by their IANA names."""

    minimum: str = ""
    maximum: str = ""
    cipher_suites: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mesh:
    """The parts of the entry that a proxy follows."""

    incoming: TlsLimits = TlsLimits()
    outgoing: TlsLimits = TlsLimits()
    sanitize_xfcc: bool = False
    normalization: PathNormalization = field(default_factory=PathNormalization)


def parse_mesh(entry: Mapping[str, Any] | None) -> Mesh:
    """Return what the entry says; None (404) is all defaults."""
    body = Opaque(entry)
    http = body.part("HTTP")
    wanted = http.part("Incoming").part("RequestNormalization")
    default = PathNormalization()
    return Mesh(
        incoming=_tls(entry, "Incoming"),
        outgoing=_tls(entry, "Outgoing"),
        sanitize_xfcc=http.flag("SanitizeXForwardedClientCert"),
        normalization=PathNormalization(
            enabled=not wanted.flag("InsecureDisablePathNormalization"),
            merge_slashes=wanted.flag("MergeSlashes"),
            escaped_slashes=_known(wanted.text("PathWithEscapedSlashesAction", default.escaped_slashes)),
            underscores=wanted.text("HeadersWithUnderscoresAction", default.underscores),
        ),
    )


_KNOWN = {  # as `entries.schemas` has them, which every sidecar would have to load for this one entry
    "": frozenset({"Kind", "TLS", "HTTP", "TransparentProxy", "AllowEnablingPermissiveMutualTLS", "ValidateClusters"})
    | {"Peering", "Meta", "Hash", "CreateIndex", "ModifyIndex", "Namespace", "Partition"},
    "TLS": frozenset({"Incoming", "Outgoing"}),
    "TLS.Incoming": frozenset({"TLSMinVersion", "TLSMaxVersion", "CipherSuites"}),
    "TLS.Outgoing": frozenset({"TLSMinVersion", "TLSMaxVersion", "CipherSuites"}),
    "HTTP": frozenset({"SanitizeXForwardedClientCert", "Incoming"}),
    "HTTP.Incoming": frozenset({"RequestNormalization"}),
    "HTTP.Incoming.RequestNormalization": frozenset({"InsecureDisablePathNormalization", "MergeSlashes"})
    | {"PathWithEscapedSlashesAction", "HeadersWithUnderscoresAction"},
}


def not_followed(entry: Mapping[str, Any] | None) -> tuple[Problem, ...]:
    """Return what a later Consul's entry asks for and this program does not know."""
    problems = []
    for path, known in _KNOWN.items():
        row = mapping(entry)
        for step in filter(None, path.split(".")):
            row = mapping(row.get(step))
        strange = [f"{path}.{key}" if path else key for key, value in row.items() if value and key not in known]
        problems += [unknown_field("mesh entry", name) for name in strange]
    return tuple(problems)


def _known(action: str) -> str:
    """Return the action, or the one that refuses in the place of one that a later Consul may have."""
    return action if action in ESCAPED_SLASHES else "REJECT_REQUEST"


def _tls(entry: Mapping[str, Any] | None, direction: str) -> TlsLimits:
    raw = ((entry or {}).get("TLS") or {}).get(direction) or {}
    limits = Opaque(raw)
    return TlsLimits(
        minimum=limits.text("TLSMinVersion"),
        maximum=limits.text("TLSMaxVersion"),
        cipher_suites=tuple(str(suite) for suite in items(raw.get("CipherSuites"))),
    )
