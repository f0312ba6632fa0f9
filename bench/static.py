"""Pairs configured by hand: Envoy and HAProxy with mTLS and a rule on path and caller, and both as a plain hop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.rules import DENIED, PLAIN, Rules
from harness.certificates import Authority, spiffe

Json = dict[str, Any]


class Files:
    """Certificates of one authority as files."""

    def __init__(self, folder: Path) -> None:
        authority = Authority("bench root")
        self.ca = folder / "ca.pem"
        self.ca.write_text(authority.pem)
        for name in ("web", "api", "client"):
            leaf = authority.leaf(name)
            (folder / f"{name}.crt").write_text(leaf.chain_pem)
            (folder / f"{name}.key").write_bytes(leaf.key_pem)
            (folder / f"{name}.pem").write_text(leaf.chain_pem + leaf.key_pem.decode())
        self.folder = folder

    def path(self, name: str) -> str:
        return str(self.folder / name)


# --- Envoy ---------------------------------------------------------------------------------------------------------


def _address(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(port: int, transport: Json | None) -> Json:
    endpoint = {"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}
    cluster: Json = {
        "name": "next",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "next", "endpoints": [endpoint]},
    }
    return {**cluster, "transport_socket": transport} if transport else cluster


def _routes(rules: Rules) -> list[Json]:
    route: Json = {"cluster": "next"}
    if rules.retries:
        retried = {"retry_on": "retriable-status-codes", "retriable_status_codes": [503], "num_retries": rules.retries}
        route["retry_policy"] = retried
    return [{"match": {"prefix": prefix}, "route": route} for prefix in (*rules.prefixes, "/")]


def _listener(port: int, filters: list[Json], transport: Json | None, rules: Rules) -> Json:
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "http_filters": [*filters, router],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": _routes(rules)}]},
    }
    chain: Json = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    if transport:
        chain["transport_socket"] = transport
    return {"name": "in", "address": _address(port), "filter_chains": [chain]}


def _tls(files: Files, name: str, *, server: bool) -> Json:
    kind = "DownstreamTlsContext" if server else "UpstreamTlsContext"
    common = {
        "tls_certificates": [
            {
                "certificate_chain": {"filename": files.path(f"{name}.crt")},
                "private_key": {"filename": files.path(f"{name}.key")},
            }
        ],
        "validation_context": {"trusted_ca": {"filename": str(files.ca)}},
    }
    if not server:
        matcher = {"san_type": "URI", "matcher": {"exact": str(spiffe("api"))}}
        common["validation_context"]["match_typed_subject_alt_names"] = [matcher]  # type: ignore[index]
    config: Json = {
        "@type": f"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}",
        "common_tls_context": common,
    }
    if server:
        config["require_client_certificate"] = True
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def _rbac(rules: Rules) -> Json:
    permission = {"url_path": {"path": {"prefix": "/"}}}
    deny = {"url_path": {"path": {"prefix": DENIED}}}
    judged = [{"and_rules": {"rules": [permission, {"not_rule": deny}]}}]
    return {
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": {
                "action": "ALLOW",
                "policies": {
                    name: {
                        "principals": [{"authenticated": {"principal_name": {"exact": str(spiffe(name))}}}],
                        "permissions": judged,
                    }
                    for name in (*rules.other_callers, "web")
                },
            },
        },
    }


def envoy(
    port: int, next_port: int, admin: int, listener_tls: Json | None, cluster_tls: Json | None, rules: Rules = PLAIN
) -> Json:
    """Return a bootstrap with one listener and one cluster: one with TLS judges by RBAC, the other one routes."""
    filters = [_rbac(rules)] if listener_tls else []
    routed = PLAIN if listener_tls else rules
    return {
        "admin": {"address": _address(admin)},
        "static_resources": {
            "listeners": [_listener(port, filters, listener_tls, routed)],
            "clusters": [_cluster(next_port, cluster_tls)],
        },
    }


def envoy_pair(files: Files, ports: tuple[int, int, int], admins: tuple[int, int], rules: Rules) -> tuple[Json, Json]:
    """Return the bootstraps of caller and called. `ports`: caller's listener, called's listener, app."""
    return (
        envoy(ports[0], ports[1], admins[0], None, _tls(files, "web", server=False), rules),
        envoy(ports[1], ports[2], admins[1], _tls(files, "api", server=True), None, rules),
    )


# --- HAProxy -------------------------------------------------------------------------------------------------------

_COMMON = """global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
"""


def haproxy_plain(port: int, app_port: int) -> str:
    """Return the configuration of one plain hop."""
    return f"{_COMMON}frontend in\n  bind 127.0.0.1:{port}\n  default_backend out\nbackend out\n  server a 127.0.0.1:{app_port}\n"


def haproxy_pair(files: Files, ports: tuple[int, int, int], rules: Rules) -> tuple[str, str]:
    """Return the configurations of caller and called."""
    ca = files.ca
    tls = f"ssl verify required ca-file {ca} crt {files.path('web.pem')}"
    routes, retries = "", ""
    if rules.routes:
        table = files.folder / "routes.map"
        table.write_text("".join(f"{prefix} out\n" for prefix in rules.prefixes))
        routes = f"  use_backend %[path,map_beg({table},out)]\n"
    if rules.retries:
        retries = f"  retries {rules.retries}\n  retry-on 503\n"
    caller = (
        f"{_COMMON}frontend in\n  bind 127.0.0.1:{ports[0]}\n{routes}  default_backend out\n"
        f"backend out\n{retries}  server a 127.0.0.1:{ports[1]} {tls}\n"
    )
    called = (
        f"{_COMMON}frontend in\n  bind 127.0.0.1:{ports[1]} ssl crt {files.path('api.pem')} ca-file {ca} verify required\n"
        f"  http-request deny if {{ path_beg {DENIED} }}\n  default_backend out\n"
        f"backend out\n  server a 127.0.0.1:{ports[2]}\n"
    )
    return caller, called
