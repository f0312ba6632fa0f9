"""`CustomizationHash` of a chain: eight hex digits over the overrides that changed something."""

from __future__ import annotations

import struct

_BASIS, _PRIME, _MASK = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1


def customization_hash(mesh_gateway: str, protocol: str, connect_timeout: int) -> str:
    """Return the hash of the overrides (nanoseconds; zero values where one changed nothing).

    Source: hashstructure (v0), FNV-1 of 64 bits; a struct is its type's name and, in any order, its fields.
    """
    mode = _struct("MeshGatewayConfig", {"Mode": _fnv(mesh_gateway.encode())})
    fields = {
        "OverrideMeshGateway": mode,
        "OverrideProtocol": _fnv(protocol.encode()),
        "OverrideConnectTimeout": _fnv(struct.pack("<q", connect_timeout)),
    }
    return f"{_struct('', fields):x}"[:8]


def _fnv(data: bytes) -> int:
    value = _BASIS
    for byte in data:
        value = value * _PRIME & _MASK ^ byte
    return value


def _struct(name: str, fields: dict[str, int]) -> int:
    value = _fnv(name.encode())
    for field, content in fields.items():
        value ^= _fnv(struct.pack("<QQ", _fnv(field.encode()), content))
    return value
