"""The fields of the entries that make discovery chains: router, splitter, resolver.

Source: `GET /v1/config` of Consul 1.21.0 and the field names of its documentation.
"""

from __future__ import annotations

from policies.entries.schema_parts import BY_LOCALITY, FAILOVER_POLICY, LAST, MODIFIERS, SPAN_TEXT
from policies.entries.shapes import (
    COUNT,
    FLAG,
    LARGE,
    TEXT,
    TEXTS,
    Fraction,
    Listing,
    Optional,
    Shape,
    Span,
    Struct,
    Table,
)

# --- service-router ---------------------------------------------------------------------------------------------------

_ROUTE_MATCH = Struct(
    {
        "HTTP?": Optional(
            Struct(
                {
                    "PathExact? path_exact": TEXT,
                    "PathPrefix? path_prefix": TEXT,
                    "PathRegex? path_regex": TEXT,
                    "CaseInsensitive? case_insensitive": FLAG,
                    "Header?": Listing(
                        Struct(
                            {
                                "Name": TEXT,
                                "Present?": FLAG,
                                "Exact?": TEXT,
                                "Prefix?": TEXT,
                                "Suffix?": TEXT,
                                "Regex?": TEXT,
                                "Invert?": FLAG,
                            }
                        )
                    ),
                    "QueryParam? query_param": Listing(
                        Struct({"Name": TEXT, "Present?": FLAG, "Exact?": TEXT, "Regex?": TEXT})
                    ),
                    "Methods?": TEXTS,
                }
            )
        )
    }
)
_ROUTE_DESTINATION = Struct(
    {
        "RequestTimeout? request_timeout": SPAN_TEXT,
        "IdleTimeout? idle_timeout": SPAN_TEXT,
        "Service?": TEXT,
        "ServiceSubset? service_subset": TEXT,
        "Namespace?": TEXT,
        "Partition?": TEXT,
        "PrefixRewrite? prefix_rewrite": TEXT,
        "NumRetries? num_retries": COUNT,
        "RetryOnConnectFailure? retry_on_connect_failure": FLAG,
        "RetryOn? retry_on": TEXTS,
        "RetryOnStatusCodes? retry_on_status_codes": Listing(COUNT),
        "RequestHeaders? request_headers": MODIFIERS,
        "ResponseHeaders? response_headers": MODIFIERS,
    }
)
ROUTER = Struct(
    {
        "Kind": TEXT,
        "Name": TEXT,
        "Routes": Listing(Struct({"Match?": Optional(_ROUTE_MATCH), "Destination?": Optional(_ROUTE_DESTINATION)})),
        **LAST,
    }
)

# --- service-splitter -------------------------------------------------------------------------------------------------

SPLITTER = Struct(
    {
        "Kind": TEXT,
        "Name": TEXT,
        "Splits": Listing(
            Struct(
                {
                    "Weight": Fraction(),
                    "Service?": TEXT,
                    "ServiceSubset? service_subset": TEXT,
                    "Namespace?": TEXT,
                    "Partition?": TEXT,
                    "RequestHeaders? request_headers": MODIFIERS,
                    "ResponseHeaders? response_headers": MODIFIERS,
                }
            )
        ),
        **LAST,
    }
)

# --- service-resolver -------------------------------------------------------------------------------------------------

_PLACE: dict[str, Shape] = {
    "Service?": TEXT,
    "ServiceSubset? service_subset": TEXT,
    "Namespace?": TEXT,
    "Partition?": TEXT,
    "Datacenter?": TEXT,
    "Peer?": TEXT,
}
_FAILOVER = Struct(
    {
        "Service?": TEXT,
        "ServiceSubset? service_subset": TEXT,
        "Namespace?": TEXT,
        "Datacenters?": TEXTS,
        "Targets?": Listing(Struct(_PLACE)),
        "Policy?": FAILOVER_POLICY,
        "SamenessGroup?": TEXT,
    }
)
_LOAD_BALANCER = Struct(
    {
        "Policy?": TEXT,
        "RingHashConfig? ring_hash_config": Optional(
            Struct({"MinimumRingSize? minimum_ring_size": LARGE, "MaximumRingSize? maximum_ring_size": LARGE})
        ),
        "LeastRequestConfig? least_request_config": Optional(Struct({"ChoiceCount? choice_count": COUNT})),
        "HashPolicies? hash_policies": Listing(
            Struct(
                {
                    "Field?": TEXT,
                    "FieldValue? field_value": TEXT,
                    "CookieConfig? cookie_config": Optional(
                        Struct({"Session?": FLAG, "TTL?": Span(), "Path?": TEXT}),
                    ),
                    "SourceIP? source_ip": FLAG,
                    "Terminal?": FLAG,
                }
            )
        ),
    }
)
RESOLVER = Struct(
    {
        "ConnectTimeout? connect_timeout": SPAN_TEXT,
        "RequestTimeout? request_timeout": SPAN_TEXT,
        "Kind": TEXT,
        "Name": TEXT,
        "DefaultSubset? default_subset": TEXT,
        "Subsets?": Table(Struct({"Filter?": TEXT, "OnlyPassing? only_passing": FLAG})),
        "Redirect?": Optional(Struct({**_PLACE, "SamenessGroup?": TEXT})),
        "Failover?": Table(_FAILOVER),
        "PrioritizeByLocality? prioritize_by_locality": BY_LOCALITY,
        "LoadBalancer? load_balancer": Optional(_LOAD_BALANCER),
        **LAST,
    }
)
