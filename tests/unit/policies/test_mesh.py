from __future__ import annotations

from policies.mesh import Mesh, TlsLimits, parse_mesh
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
