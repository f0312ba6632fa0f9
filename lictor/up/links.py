"""How a mesh of `lictor up` reaches a Consul and a Vault that exist: the `consul` and `vault` blocks of FILE.yaml.

The fields are those of a sidecar's file. Paths are relative to FILE.yaml, and `$SERVICE` in a value is the name of the
service, so that each one has credentials of its own; for what `lictor up` itself asks, it is `operator`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from controlplane.consul.settings import ConsulSettings, consul_settings
from policies.snapshot import Role
from sidecar.config import read_process
from sidecar.yaml_reader import Section

Json = dict[str, Any]
OPERATOR = "operator"
PLACEHOLDER = "$SERVICE"
_PATHS = ("_file", "_path", "client_cert", "client_key")
_CONSUL = {
    "address": "CONSUL_HTTP_ADDR",
    "token_file": "CONSUL_HTTP_TOKEN_FILE",
    "ca_file": "CONSUL_CACERT",
    "ca_path": "CONSUL_CAPATH",
    "client_cert": "CONSUL_CLIENT_CERT",
    "client_key": "CONSUL_CLIENT_KEY",
    "tls_server_name": "CONSUL_TLS_SERVER_NAME",
}


def read_links(document: Section, base: Path, services: Sequence[str]) -> dict[str, Json]:
    """Return by service, and for the operator, the blocks of a proxy's file; nothing without a `consul` block."""
    if not document.has("consul"):
        if document.has("vault"):
            fix = "add `consul: {address: ...}`, or take it out: the embedded servers have a Vault of their own"
            document.note("vault", "needs a `consul` block", fix)
        return {}
    _ = document.has("vault")  # both are known fields
    links: dict[str, Json] = {}
    for service in (*services, OPERATOR):
        pairs = [(key, value) for key, value in document.node.value if key.value in {"consul", "vault"}]
        if service == OPERATOR:
            pairs = [(key, value) for key, value in pairs if key.value == "consul"]
        node = yaml.MappingNode("tag:yaml.org,2002:map", pairs, document.node.start_mark)
        section = Section(document.file, "", _settled(node, "", base, service), document.problems)
        read_process(section, {}, Role.SIDECAR, ())
        found = {key: section.plain(key) for key in ("consul", "vault") if section.has(key)}
        links[service] = {**found, "issuer": "vault" if "vault" in found else "consul"}
    return links


def _settled(node: Any, key: str, base: Path, service: str) -> Any:
    """Return a node with the service's name put in and paths made absolute; its marks are kept."""
    if isinstance(node, yaml.MappingNode):
        pairs = [(name, _settled(value, str(name.value), base, service)) for name, value in node.value]
        return yaml.MappingNode(node.tag, pairs, node.start_mark, node.end_mark)
    if not isinstance(node, yaml.ScalarNode):
        return node
    text = node.value.replace(PLACEHOLDER, service)
    if text and key.endswith(_PATHS):
        text = str(base / text)
    return yaml.ScalarNode(node.tag, text, node.start_mark, node.end_mark)


def agent_settings(link: Mapping[str, Any], environment: Mapping[str, str]) -> ConsulSettings:
    """Return how to speak to the agent of a link. Raise ConfigError."""
    block = link.get("consul") or {}
    return consul_settings(environment, {_CONSUL[key]: str(value) for key, value in block.items() if key in _CONSUL})


def link_of(settings: ConsulSettings) -> Json:
    """Return the link of settings that were read from flags and the environment: the leaf is the agent's."""
    given = {key: str(getattr(settings, key)) for key in _CONSUL if getattr(settings, key)}
    block = {key: str(Path(value).absolute()) if key.endswith(_PATHS) else value for key, value in given.items()}
    if not settings.socket_path:
        block["address"] = settings.base_url
    return {"consul": block, "issuer": "consul"}
