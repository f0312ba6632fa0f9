"""Tables of the fields of services, proxies and checks, as `decoding` reads them.

Source: Consul's HTTP API, `PUT /v1/agent/service/register`, `PUT /v1/agent/check/register`, `PUT /v1/catalog/register`.
Which snake_case keys each of them takes was asked of a running Consul 1.21.0.
"""

from __future__ import annotations

from lictor.dev.consul.decoding import DURATION, FLAG, FREE, INTEGER, TEXT, Own, Shape

_STRINGS, _META = [TEXT], {"": TEXT}
_MESH_GATEWAY = {"Mode": TEXT}
_PATH = Own(
    {"ListenerPort": INTEGER, "Path": TEXT, "LocalPathPort": INTEGER, "Protocol": TEXT, "ParsedFromCheck": FLAG},
    "listener_port local_path_port parsed_from_check",
)
_EXPOSE = {"Checks": FLAG, "Paths": [_PATH]}
_EXTENSION = {"Name": TEXT, "Required": FLAG, "Arguments": FREE, "ConsulVersion": TEXT, "EnvoyVersion": TEXT}
_ACCESS_LOGS = {
    **dict.fromkeys(("Enabled", "DisableListenerLogs"), FLAG),
    **dict.fromkeys(("Type", "Path", "JSONFormat", "TextFormat"), TEXT),
}
UPSTREAM = Own(
    {
        **dict.fromkeys(("DestinationType", "DestinationNamespace", "DestinationPartition", "DestinationPeer"), TEXT),
        **dict.fromkeys(("DestinationName", "Datacenter", "LocalBindAddress"), TEXT),
        "LocalBindPort": INTEGER,
        **dict.fromkeys(("LocalBindSocketPath", "LocalBindSocketMode"), TEXT),
        "Config": {"": FREE},
        "MeshGateway": _MESH_GATEWAY,
        "CentrallyConfigured": FLAG,
    },
    "destination_type destination_namespace destination_partition destination_peer destination_name"
    " local_bind_address local_bind_port local_bind_socket_path local_bind_socket_mode mesh_gateway",
)
PROXY = Own(
    {
        **dict.fromkeys(("DestinationServiceName", "DestinationServiceID", "LocalServiceAddress"), TEXT),
        "LocalServicePort": INTEGER,
        **dict.fromkeys(("LocalServiceSocketPath", "Mode"), TEXT),
        "Config": {"": FREE},
        "Upstreams": [UPSTREAM],
        "EnvoyExtensions": [_EXTENSION],
        "MeshGateway": _MESH_GATEWAY,
        "Expose": _EXPOSE,
        "TransparentProxy": {"OutboundListenerPort": INTEGER, "DialedDirectly": FLAG},
        "AccessLogs": _ACCESS_LOGS,
    },
    "destination_service_name destination_service_id local_service_address local_service_port"
    " local_service_socket_path mesh_gateway transparent_proxy access_logs",
)
_SNAKE_OF_CHECK = (
    "script_args deregister_critical_service_after docker_container_id tls_server_name tls_skip_verify"
    " tcp_use_tls grpc_use_tls h2ping_use_tls"
)
_ANY_CHECK = {
    **dict.fromkeys(("Name", "Status", "Notes"), TEXT),
    **dict.fromkeys(("ScriptArgs", "Args"), _STRINGS),
    **dict.fromkeys(("HTTP", "H2PING"), TEXT),
    "H2PingUseTLS": FLAG,
    "Header": {"": _STRINGS},
    **dict.fromkeys(("Method", "Body"), TEXT),
    "DisableRedirects": FLAG,
    "TCP": TEXT,
    "TCPUseTLS": FLAG,
    "UDP": TEXT,
    "Interval": DURATION,
    **dict.fromkeys(("AliasNode", "AliasService", "DockerContainerID", "Shell", "GRPC"), TEXT),
    "GRPCUseTLS": FLAG,
    **dict.fromkeys(("OSService", "TLSServerName"), TEXT),
    "TLSSkipVerify": FLAG,
    **dict.fromkeys(("Timeout", "TTL"), DURATION),
    **dict.fromkeys(("SuccessBeforePassing", "FailuresBeforeWarning", "FailuresBeforeCritical"), INTEGER),
    "DeregisterCriticalServiceAfter": DURATION,
    "OutputMaxSize": INTEGER,
}
CHECK = Own(
    {"CheckID": TEXT, **_ANY_CHECK, **dict.fromkeys(("ProxyHTTP", "ProxyGRPC"), TEXT)},
    _SNAKE_OF_CHECK,
    dropped="serviceid service_id",
)
CHECK_ALONE = Own(
    {**dict.fromkeys(("ID", "ServiceID", "Token"), TEXT), **_ANY_CHECK},
    f"{_SNAKE_OF_CHECK} service_id disable_redirects",
)
_ADDRESSES = {"": {"Address": TEXT, "Port": INTEGER}}
_LOCALITY = {"Region": TEXT, "Zone": TEXT}
_WEIGHTS = {"Passing": INTEGER, "Warning": INTEGER}
SERVICE: Shape = Own(
    {
        **dict.fromkeys(("Kind", "ID", "Name"), TEXT),
        "Tags": _STRINGS,
        "Address": TEXT,
        "TaggedAddresses": _ADDRESSES,
        "Meta": _META,
        "Port": INTEGER,
        "SocketPath": TEXT,
        "Check": CHECK,
        "Checks": [CHECK],
        "Weights": _WEIGHTS,
        "Token": TEXT,
        "EnableTagOverride": FLAG,
        "Locality": _LOCALITY,
        "Proxy": PROXY,
    },
    "enable_tag_override tagged_addresses",
)
CONNECT = Own({"Native": FLAG, "SidecarService": SERVICE}, "sidecar_service", lenient=True)
SERVICE["Connect"] = CONNECT
NODE_SERVICE: Shape = {
    **{name: SERVICE[name] for name in ("Kind", "ID", "Tags", "Address", "TaggedAddresses", "Meta", "Port")},
    **{name: SERVICE[name] for name in ("SocketPath", "Weights", "EnableTagOverride", "Locality", "Proxy", "Connect")},
    **dict.fromkeys(("Service", "PeerName"), TEXT),
    **dict.fromkeys(("CreateIndex", "ModifyIndex"), INTEGER),
}
_DEFINITION = Own({**_ANY_CHECK}, lenient=True)
NODE_CHECK: Shape = {
    **dict.fromkeys(("Node", "CheckID", "Name", "Status", "Notes", "Output", "ServiceID", "ServiceName"), TEXT),
    "ServiceTags": _STRINGS,
    **dict.fromkeys(("Type", "Interval", "Timeout", "PeerName"), TEXT),
    **dict.fromkeys(("ExposedPort", "CreateIndex", "ModifyIndex"), INTEGER),
    "Definition": _DEFINITION,
}
NODE: Shape = {
    **dict.fromkeys(("Datacenter", "ID", "Node", "Address", "PeerName", "Token"), TEXT),
    "TaggedAddresses": _META,
    "NodeMeta": _META,
    "Service": NODE_SERVICE,
    "Check": NODE_CHECK,
    "Checks": [NODE_CHECK],
    "SkipNodeUpdate": FLAG,
    "Locality": _LOCALITY,
}
