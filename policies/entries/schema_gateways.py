"""The fields of gateways, of the routes of an api-gateway, and of certificates.

Source: `GET /v1/config` of Consul 1.21.0 and the field names of its documentation.
"""

from __future__ import annotations

from policies.entries.schema_parts import CIPHERS, HEALTH_CHECK, LAST, MODIFIERS, NAMED, TLS, TLS_VERSION
from policies.entries.shapes import (
    COUNT,
    FLAG,
    LABELS,
    NUMBER,
    TEXT,
    TEXTS,
    Listing,
    Moment,
    Optional,
    Span,
    Struct,
    Text,
)

# --- gateways ---------------------------------------------------------------------------------------------------------

_SDS = Optional(Struct({"ClusterName? cluster_name": TEXT, "CertResource? cert_resource": TEXT}))
_GATEWAY_TLS = Struct({"Enabled": FLAG, "SDS?": _SDS, **TLS})
_INGRESS_SERVICE = Struct(
    {
        "Name": TEXT,
        "Hosts": TEXTS,
        "TLS?": Optional(Struct({"SDS?": _SDS})),
        "RequestHeaders? request_headers": MODIFIERS,
        "ResponseHeaders? response_headers": MODIFIERS,
        "MaxConnections? max_connections": COUNT,
        "MaxPendingRequests? max_pending_requests": COUNT,
        "MaxConcurrentRequests? max_concurrent_requests": COUNT,
        "PassiveHealthCheck? passive_health_check": HEALTH_CHECK,
        "Meta?": LABELS,
    }
)
INGRESS = Struct(
    {
        **NAMED,
        "TLS": _GATEWAY_TLS,
        "Listeners": Listing(
            Struct(
                {
                    "Port": NUMBER,
                    "Protocol": TEXT,
                    "TLS?": Optional(_GATEWAY_TLS),
                    "Services": Listing(_INGRESS_SERVICE),
                }
            )
        ),
        "Defaults?": Optional(
            Struct(
                {
                    "MaxConnections": COUNT,
                    "MaxPendingRequests": COUNT,
                    "MaxConcurrentRequests": COUNT,
                    "PassiveHealthCheck? passive_health_check": HEALTH_CHECK,
                }
            )
        ),
        **LAST,
    }
)
TERMINATING = Struct(
    {
        **NAMED,
        "Services": Listing(
            Struct(
                {
                    "Name?": TEXT,
                    "CAFile? ca_file": TEXT,
                    "CertFile? cert_file": TEXT,
                    "KeyFile? key_file": TEXT,
                    "SNI?": TEXT,
                    "DisableAutoHostRewrite?": FLAG,
                }
            )
        ),
        **LAST,
    }
)

# --- api-gateway and its routes ---------------------------------------------------------------------------------------

_REFERENCE = Struct({"Kind": TEXT, "Name": TEXT, "SectionName": TEXT})
_STATUS = Struct(
    {
        "Conditions": Listing(
            Struct(
                {
                    "Type": TEXT,
                    "Status": TEXT,
                    "Reason": TEXT,
                    "Message": TEXT,
                    "Resource": Optional(_REFERENCE),
                    "LastTransitionTime": Optional(Moment()),
                }
            )
        )
    }
)
_GATEWAY_POLICY = Optional(Struct({"JWT?": Optional(Struct({}))}))
API_GATEWAY = Struct(
    {
        **NAMED,
        "Listeners": Listing(
            Struct(
                {
                    "Name": TEXT,
                    "Hostname": TEXT,
                    "Port": NUMBER,
                    "Protocol": Text("structs.APIGatewayListenerProtocol"),
                    "TLS": Struct(
                        {
                            "Certificates": Listing(_REFERENCE),
                            "MaxVersion": TLS_VERSION,
                            "MinVersion": TLS_VERSION,
                            "CipherSuites": CIPHERS,
                        }
                    ),
                    "Override?": _GATEWAY_POLICY,
                    "Default?": _GATEWAY_POLICY,
                }
            )
        ),
        "Status": _STATUS,
        **LAST,
    }
)
BOUND_API_GATEWAY = Struct(
    {
        **NAMED,
        "Listeners": Listing(
            Struct({"Name": TEXT, "Routes": Listing(_REFERENCE), "Certificates": Listing(_REFERENCE)})
        ),
        **LAST,
    }
)
_HEADER_FILTERS = Listing(Struct({"Add": LABELS, "Remove": TEXTS, "Set": LABELS}))
_FILTERS = Struct(
    {
        "Headers": _HEADER_FILTERS,
        "URLRewrite": Optional(Struct({"Path": TEXT})),
        "RetryFilter": Optional(
            Struct(
                {
                    "NumRetries": COUNT,
                    "RetryOn": TEXTS,
                    "RetryOnStatusCodes": Listing(COUNT),
                    "RetryOnConnectFailure": FLAG,
                }
            )
        ),
        "TimeoutFilter": Optional(Struct({"RequestTimeout": Span(), "IdleTimeout": Span()})),
        "JWT": Optional(Struct({})),
    }
)
_RESPONSE_FILTERS = Struct({"Headers": _HEADER_FILTERS})


def _match_part(go: str) -> Struct:
    return Struct({"Match": Text(go), "Name": TEXT, "Value": TEXT})


_HTTP_MATCH = Struct(
    {
        "Headers": Listing(_match_part("structs.HTTPHeaderMatchType")),
        "Method": Text("structs.HTTPMatchMethod"),
        "Path": Struct({"Match": Text("structs.HTTPPathMatchType"), "Value": TEXT}),
        "Query": Listing(_match_part("structs.HTTPQueryMatchType")),
    }
)
_HTTP_SERVICE = Struct({"Name": TEXT, "Weight": NUMBER, "Filters": _FILTERS, "ResponseFilters": _RESPONSE_FILTERS})
HTTP_ROUTE = Struct(
    {
        **NAMED,
        "Parents": Listing(_REFERENCE),
        "Rules": Listing(
            Struct(
                {
                    "Filters": _FILTERS,
                    "ResponseFilters": _RESPONSE_FILTERS,
                    "Matches": Listing(_HTTP_MATCH),
                    "Services": Listing(_HTTP_SERVICE),
                }
            )
        ),
        "Hostnames": TEXTS,
        "Meta?": LABELS,
        "Status": _STATUS,
        **{field: shape for field, shape in LAST.items() if field.endswith("!")},
    }
)
TCP_ROUTE = Struct(
    {
        **NAMED,
        "Parents": Listing(_REFERENCE),
        "Services": Listing(Struct({"Name": TEXT})),
        "Meta?": LABELS,
        "Status": _STATUS,
        **{field: shape for field, shape in LAST.items() if field.endswith("!")},
    }
)
CERTIFICATE = Struct({**NAMED, "Certificate": TEXT, "PrivateKey": TEXT, **LAST})
