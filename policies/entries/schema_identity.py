"""The fields of service-intentions and jwt-provider.

Source: `GET /v1/config` of Consul 1.21.0 and the field names of its documentation.
"""

from __future__ import annotations

from policies.entries.schema_parts import LAST, NAMED
from policies.entries.shapes import (
    FLAG,
    LABELS,
    NUMBER,
    TEXT,
    TEXTS,
    Bytes,
    Listing,
    Moment,
    Optional,
    Span,
    Struct,
    Text,
)

# --- service-intentions -----------------------------------------------------------------------------------------------

_ACTION = Text("structs.IntentionAction")
_INTENTION_JWT = Optional(
    Struct(
        {
            "Providers?": Listing(
                Optional(
                    Struct(
                        {
                            "Name?": TEXT,
                            "VerifyClaims? verify_claims": Listing(Optional(Struct({"Path?": TEXTS, "Value?": TEXT}))),
                        }
                    )
                )
            )
        }
    )
)
_PERMISSION = Struct(
    {
        "Action": _ACTION,
        "HTTP?": Optional(
            Struct(
                {
                    "PathExact? path_exact": TEXT,
                    "PathPrefix? path_prefix": TEXT,
                    "PathRegex? path_regex": TEXT,
                    "Header?": Listing(
                        Struct(
                            {
                                "Name": TEXT,
                                "Present?": FLAG,
                                "Exact?": TEXT,
                                "Prefix?": TEXT,
                                "Suffix?": TEXT,
                                "Contains?": TEXT,
                                "Regex?": TEXT,
                                "Invert?": FLAG,
                                "IgnoreCase? ignore_case": FLAG,
                            }
                        )
                    ),
                    "Methods?": TEXTS,
                }
            )
        ),
        "JWT?": _INTENTION_JWT,
    }
)
INTENTIONS = Struct(
    {
        **NAMED,
        "Sources": Listing(
            Optional(
                Struct(
                    {
                        "Name": TEXT,
                        "Action?": _ACTION,
                        "Permissions?": Listing(Optional(_PERMISSION)),
                        "Precedence": NUMBER,
                        "LegacyID? legacy_id": TEXT,
                        "Type": Text("structs.IntentionSourceType"),
                        "Description?": TEXT,
                        "LegacyMeta? legacy_meta": LABELS,
                        "LegacyCreateTime? legacy_create_time": Optional(Moment()),
                        "LegacyUpdateTime? legacy_update_time": Optional(Moment()),
                        "Peer?": TEXT,
                        "SamenessGroup? sameness_group": TEXT,
                    }
                )
            )
        ),
        "JWT?": _INTENTION_JWT,
        **LAST,
    }
)

# --- jwt-provider -----------------------------------------------------------------------------------------------------

_TRUSTED_CA = Struct(
    {
        "Filename? filename": TEXT,
        "EnvironmentVariable? environment_variable": TEXT,
        "InlineString? inline_string": TEXT,
        "InlineBytes? inline_bytes": Bytes(),
    }
)
_JWKS_CLUSTER = Struct(
    {
        "DiscoveryType? discovery_type": Text("structs.ClusterDiscoveryType"),
        "TLSCertificates? tls_certificates": Optional(
            Struct(
                {
                    "CaCertificateProviderInstance? ca_certificate_provider_instance": Optional(
                        Struct({"InstanceName? instance_name": TEXT, "CertificateName? certificate_name": TEXT})
                    ),
                    "TrustedCA? trusted_ca": Optional(_TRUSTED_CA),
                }
            )
        ),
        "ConnectTimeout? connect_timeout": Span(),
    }
)
_REMOTE_KEYS = Struct(
    {
        "URI?": TEXT,
        "RequestTimeoutMs? request_timeout_ms": NUMBER,
        "CacheDuration? cache_duration": Span(),
        "FetchAsynchronously? fetch_asynchronously": FLAG,
        "UseSNI? use_sni": FLAG,
        "RetryPolicy? retry_policy": Optional(
            Struct(
                {
                    "NumRetries? num_retries": NUMBER,
                    "RetryPolicyBackOff? retry_policy_back_off": Optional(
                        Struct({"BaseInterval? base_interval": Span(), "MaxInterval? max_interval": Span()})
                    ),
                }
            )
        ),
        "JWKSCluster? jwks_cluster": Optional(_JWKS_CLUSTER),
    }
)
JWT_PROVIDER = Struct(
    {
        "Kind?": TEXT,
        "Name?": TEXT,
        "JSONWebKeySet? json_web_key_set": Optional(
            Struct({"Local?": Optional(Struct({"JWKS?": TEXT, "Filename?": TEXT})), "Remote?": Optional(_REMOTE_KEYS)})
        ),
        "Issuer?": TEXT,
        "Audiences?": TEXTS,
        "Locations?": Listing(
            Optional(
                Struct(
                    {
                        "Header?": Optional(
                            Struct({"Name?": TEXT, "ValuePrefix? value_prefix": TEXT, "Forward?": FLAG})
                        ),
                        "QueryParam? query_param": Optional(Struct({"Name?": TEXT})),
                        "Cookie?": Optional(Struct({"Name?": TEXT})),
                    }
                )
            )
        ),
        "Forwarding?": Optional(
            Struct({"HeaderName? header_name": TEXT, "PadForwardPayloadHeader pad_forward_payload_header": FLAG})
        ),
        "ClockSkewSeconds? clock_skew_seconds": NUMBER,
        "CacheConfig? cache_config": Optional(Struct({"Size?": NUMBER})),
        **LAST,
    }
)
