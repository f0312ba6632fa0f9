"""Parts that the fields of several kinds of entry share.

Source: `GET /v1/config` of Consul 1.21.0 and the field names of its documentation.
"""

from __future__ import annotations

from policies.entries.shapes import COUNT, LABELS, LARGE, TEXT, TEXTS, Listing, Optional, Shape, Span, Struct, Text

SPAN_TEXT = Span(text=True)
_RAFT = Struct({"CreateIndex": LARGE, "ModifyIndex": LARGE})
LAST: dict[str, Shape] = {"Meta?": LABELS, "Hash!": LARGE, "RaftIndex!": _RAFT}
"""What every kind of entry ends with."""
NAMED: dict[str, Shape] = {"Kind": TEXT, "Name": TEXT}


# --- parts used in more than one kind ---------------------------------------------------------------------------------

MODIFIERS = Optional(Struct({"Add?": LABELS, "Set?": LABELS, "Remove?": TEXTS}))
FAILOVER_POLICY = Optional(Struct({"Mode?": TEXT, "Regions?": TEXTS}))
BY_LOCALITY = Optional(Struct({"Mode?": TEXT}))
HEALTH_CHECK = Optional(
    Struct(
        {
            "Interval?": Span(),
            "MaxFailures? max_failures": COUNT,
            "EnforcingConsecutive5xx? enforcing_consecutive_5xx": Optional(COUNT),
            "MaxEjectionPercent? max_ejection_percent": Optional(COUNT),
            "BaseEjectionTime? base_ejection_time": Optional(Span()),
        }
    )
)
TLS_VERSION = Text("types.TLSVersion")
CIPHERS = Listing(Text("types.TLSCipherSuite"))
TLS: dict[str, Shape] = {
    "TLSMinVersion? tls_min_version": TLS_VERSION,
    "TLSMaxVersion? tls_max_version": TLS_VERSION,
    "CipherSuites? cipher_suites": CIPHERS,
}
