from __future__ import annotations

from typing import Any

from policies.entries.schemas import SCHEMAS
from policies.entries.shapes import Optional, Shape, Struct
from policies.mesh import Mesh, TlsLimits, not_followed, parse_mesh
from policies.paths import PathNormalization


def test_no_entry_means_the_defaults() -> None:
    assert parse_mesh(None) == Mesh()
    assert parse_mesh({"Kind": "mesh"}) == Mesh()
    assert Mesh().normalization == PathNormalization()


def test_tls_limits_are_read_by_direction() -> None:
    mesh = parse_mesh(
        {
            "TLS": {
                "Incoming": {"TLSMinVersion": "TLSv1_3"},
                "Outgoing": {"TLSMaxVersion": "TLSv1_2", "CipherSuites": ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]},
            }
        }
    )
    assert mesh.incoming == TlsLimits("TLSv1_3")
    assert mesh.outgoing == TlsLimits("", "TLSv1_2", ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",))


def test_http_settings_are_read() -> None:
    mesh = parse_mesh(
        {
            "HTTP": {
                "SanitizeXForwardedClientCert": True,
                "Incoming": {
                    "RequestNormalization": {
                        "InsecureDisablePathNormalization": True,
                        "MergeSlashes": True,
                        "PathWithEscapedSlashesAction": "REJECT_REQUEST",
                        "HeadersWithUnderscoresAction": "DROP_HEADER",
                    }
                },
            }
        }
    )
    assert mesh.sanitize_xfcc
    assert mesh.normalization == PathNormalization(
        enabled=False, merge_slashes=True, escaped_slashes="REJECT_REQUEST", underscores="DROP_HEADER"
    )


def test_an_action_that_is_not_known_refuses() -> None:
    wanted = {"PathWithEscapedSlashesAction": "NEW_IN_CONSUL", "HeadersWithUnderscoresAction": "NEW_TOO"}
    rules = parse_mesh({"HTTP": {"Incoming": {"RequestNormalization": wanted}}}).normalization
    assert rules.escaped_slashes == "REJECT_REQUEST"
    assert rules.underscores not in {"ALLOW", "DROP_HEADER"}, "what is neither is refused"


def filled(shape: Shape) -> Any:
    """Return a value with every field that there is."""
    shape = shape.of if isinstance(shape, Optional) else shape
    return {field.name: filled(field.shape) for field in shape.fields} if isinstance(shape, Struct) else "x"


def test_every_field_that_consul_has_is_known() -> None:
    assert not_followed({"Kind": "mesh", "CreateIndex": 1, "ModifyIndex": 2, **filled(SCHEMAS["mesh"])}) == (
        *not_followed({"RaftIndex": "x"}),  # its two fields are shown instead
    )
    assert not_followed(None) == ()


def test_what_a_later_consul_may_have_is_told() -> None:
    entry = {
        "New": 1,
        "Old": "",
        "HTTP": {"Incoming": {"RequestNormalization": {"Strip": True}}},
        "TLS": {"Incoming": {"X": 1}},
    }
    assert [problem.message for problem in not_followed(entry)] == [
        "its New is not understood",
        "its TLS.Incoming.X is not understood",
        "its HTTP.Incoming.RequestNormalization.Strip is not understood",
    ]
