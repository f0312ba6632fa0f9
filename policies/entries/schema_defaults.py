"""The fields of defaults and of the mesh: service-defaults, proxy-defaults, mesh, exported-services, sameness-group.

Source: `GET /v1/config` of Consul 1.21.0 and the field names of its documentation.
"""

from __future__ import annotations

from policies.entries.schema_parts import BY_LOCALITY, FAILOVER_POLICY, HEALTH_CHECK, LAST, TLS
from policies.entries.shapes import FLAG, NUMBER, TEXT, TEXTS, Anything, Listing, Optional, Shape, Struct, Table, Text

_MESH_GATEWAY = Struct({"Mode?": Text("structs.MeshGatewayMode")})
_TRANSPARENT = Struct({"OutboundListenerPort? outbound_listener_port": NUMBER, "DialedDirectly? dialed_directly": FLAG})
_EXPOSE = Struct(
    {
        "Checks?": FLAG,
        "Paths?": Listing(
            Struct(
                {
                    "ListenerPort? listener_port": NUMBER,
                    "Path?": TEXT,
                    "LocalPathPort? local_path_port": NUMBER,
                    "Protocol?": TEXT,
                    "ParsedFromCheck? parsed_from_check": FLAG,
                }
            )
        ),
    }
)
_EXTENSIONS = Listing(
    Struct(
        {"Name": TEXT, "Required": FLAG, "Arguments": Table(Anything()), "ConsulVersion": TEXT, "EnvoyVersion": TEXT}
    )
)

# --- service-defaults, proxy-defaults ---------------------------------------------------------------------------------

_UPSTREAM = Struct(
    {
        "Name?": TEXT,
        "Peer": TEXT,
        "EnvoyListenerJSON? envoy_listener_json": TEXT,
        "EnvoyClusterJSON? envoy_cluster_json": TEXT,
        "Protocol?": TEXT,
        "ConnectTimeoutMs? connect_timeout_ms": NUMBER,
        "Limits?": Optional(
            Struct(
                {
                    "MaxConnections? max_connections": Optional(NUMBER),
                    "MaxPendingRequests? max_pending_requests": Optional(NUMBER),
                    "MaxConcurrentRequests? max_concurrent_requests": Optional(NUMBER),
                }
            )
        ),
        "PassiveHealthCheck? passive_health_check": HEALTH_CHECK,
        "MeshGateway? mesh_gateway": _MESH_GATEWAY,
        "BalanceOutboundConnections? balance_outbound_connections": TEXT,
    }
)
_RATES: dict[str, Shape] = {
    "RequestsPerSecond requests_per_second": NUMBER,
    "RequestsMaxBurst requests_max_burst": NUMBER,
}
_RATE_LIMITS = Struct(
    {
        "InstanceLevel instance_level": Struct(
            {
                **_RATES,
                "Routes": Listing(
                    Struct(
                        {
                            "PathExact path_exact": TEXT,
                            "PathPrefix path_prefix": TEXT,
                            "PathRegex path_regex": TEXT,
                            **_RATES,
                        }
                    )
                ),
            }
        )
    }
)
_PROXY: dict[str, Shape] = {
    "Mode?": Text("structs.ProxyMode"),
    "TransparentProxy transparent_proxy": _TRANSPARENT,
    "MutualTLSMode? mutual_tls_mode": Text("structs.MutualTLSMode"),
    "MeshGateway mesh_gateway": _MESH_GATEWAY,
    "Expose": _EXPOSE,
}
SERVICE_DEFAULTS = Struct(
    {
        "Kind": TEXT,
        "Name": TEXT,
        "Protocol": TEXT,
        **_PROXY,
        "ExternalSNI? external_sni": TEXT,
        "UpstreamConfig? upstream_config": Optional(
            Struct({"Overrides?": Listing(Optional(_UPSTREAM)), "Defaults?": Optional(_UPSTREAM)})
        ),
        "Destination?": Optional(Struct({"Addresses?": TEXTS, "Port?": NUMBER})),
        "MaxInboundConnections? max_inbound_connections": NUMBER,
        "LocalConnectTimeoutMs? local_connect_timeout_ms": NUMBER,
        "LocalRequestTimeoutMs? local_request_timeout_ms": NUMBER,
        "BalanceInboundConnections? balance_inbound_connections": TEXT,
        "RateLimits? rate_limits": Optional(_RATE_LIMITS),
        "EnvoyExtensions? envoy_extensions": _EXTENSIONS,
        **LAST,
    }
)
PROXY_DEFAULTS = Struct(
    {
        "Kind": TEXT,
        "Name": TEXT,
        "Config": Table(Anything()),
        "Protocol!": TEXT,
        **_PROXY,
        "AccessLogs access_logs": Struct(
            {
                "Enabled? enabled": FLAG,
                "DisableListenerLogs? disable_listener_logs": FLAG,
                "Type? type": Text("structs.LogSinkType"),
                "Path? path": TEXT,
                "JSONFormat? json_format": TEXT,
                "TextFormat? text_format": TEXT,
            }
        ),
        "EnvoyExtensions? envoy_extensions": _EXTENSIONS,
        "FailoverPolicy? failover_policy": FAILOVER_POLICY,
        "PrioritizeByLocality? prioritize_by_locality": BY_LOCALITY,
        **LAST,
    }
)

# --- mesh, exported-services, sameness-group -------------------------------------------------------------------------

_NORMALIZATION = Struct(
    {
        "InsecureDisablePathNormalization insecure_disable_path_normalization": FLAG,
        "MergeSlashes merge_slashes": FLAG,
        "PathWithEscapedSlashesAction path_with_escaped_slashes_action": Text("structs.PathWithEscapedSlashesAction"),
        "HeadersWithUnderscoresAction headers_with_underscores_action": Text("structs.HeadersWithUnderscoresAction"),
    }
)
MESH = Struct(
    {
        "TransparentProxy transparent_proxy": Struct({"MeshDestinationsOnly mesh_destinations_only": FLAG}),
        "AllowEnablingPermissiveMutualTLS? allow_enabling_permissive_mutual_tls": FLAG,
        "ValidateClusters? validate_clusters": FLAG,
        "TLS?": Optional(Struct({"Incoming?": Optional(Struct(TLS)), "Outgoing?": Optional(Struct(TLS))})),
        "HTTP?": Optional(
            Struct(
                {
                    "SanitizeXForwardedClientCert sanitize_x_forwarded_client_cert": FLAG,
                    "Incoming?": Optional(
                        Struct({"RequestNormalization? request_normalization": Optional(_NORMALIZATION)})
                    ),
                }
            )
        ),
        "Peering?": Optional(Struct({"PeerThroughMeshGateways peer_through_mesh_gateways": FLAG})),
        **LAST,
    }
)
EXPORTED_SERVICES = Struct(
    {
        "Name": TEXT,
        "Services?": Listing(
            Struct(
                {
                    "Name": TEXT,
                    "Namespace?": TEXT,
                    "Consumers?": Listing(
                        Struct({"Partition?": TEXT, "Peer? peer_name": TEXT, "SamenessGroup? sameness_group": TEXT})
                    ),
                }
            )
        ),
        **LAST,
    }
)
SAMENESS_GROUP = Struct(
    {
        "Name": TEXT,
        "DefaultForFailover? default_for_failover": FLAG,
        "IncludeLocal? include_local": FLAG,
        "Members": Listing(Struct({"Partition?": TEXT, "Peer?": TEXT})),
        **LAST,
    }
)
