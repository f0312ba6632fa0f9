"""The gateway's YAML.

gateway:
  kind: ingress               # or api, terminating
  service: edge               # the name in the `ingress-gateway` entry, and the source in intentions
  id: edge-1                  # of the registration; the service's name by default
  address: 192.0.2.10:8443    # registered in Consul
  config: {}                  # of the registration: what Consul calls Proxy.Config
passthrough, proxy_protocol, forwarding, protection, tls: what else is at the edge: see the modules beside this one
consul, issuer, vault, admin, drain, log: as in the sidecar's file
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from controlplane.registration import Definition, check_definition, gateway_definition
from gateway.passthrough import read_passthrough
from gateway.protection import read_forwarding, read_protection, read_proxy_protocol
from gateway.tls import read_tls
from policies.edge.settings import EdgeSettings
from policies.errors import IdentityError
from policies.identity import parse_service_name
from policies.protection import DEFAULT_PROTECTION, INSIDE
from policies.snapshot import Role
from sidecar.config import NO_FLAGS, read_process
from sidecar.settings import GATEWAYS, ProcessSettings, parse_address
from sidecar.yaml_reader import Section, read_document

_OF_THE_WAY_IN = ("tls", "passthrough", "proxy_protocol", "forwarding")


def read_gateway(path: Path, environment: Mapping[str, str], flags: Mapping[str, str] = NO_FLAGS) -> ProcessSettings:
    """Return the settings in a file. Raise ConfigError with every mistake in it. `flags` as of a sidecar."""
    document = read_document(path)
    role, definitions = _definitions(document.section("gateway"), document)
    settings = read_process(document, environment, role, definitions, flags)
    for word in _OF_THE_WAY_IN if role is Role.TERMINATING else ():
        if document.has(word):
            document.note(word, "is not for a terminating gateway", "its callers are those of the mesh: leave it out")
    edge = EdgeSettings(
        tls=read_tls(document),
        passthrough=read_passthrough(document),
        proxy_protocol=read_proxy_protocol(document),
        forwarding=read_forwarding(document),
        protection=read_protection(document, INSIDE if role is Role.TERMINATING else DEFAULT_PROTECTION),
    )
    document.done()
    document.raise_problems()
    return replace(settings, edge=edge)


def _definitions(gateway: Section, document: Section) -> tuple[Role, tuple[Definition, ...]]:
    role = GATEWAYS[gateway.text("kind", "ingress", choices=tuple(GATEWAYS)) or "ingress"]
    service = gateway.text("service", required=True)
    proxy_id = gateway.text("id", service)
    text = gateway.text("address", required=True)
    config = gateway.plain("config") or {}
    gateway.done()
    try:
        parse_service_name(service or "unnamed")
        address, port = parse_address(text or "127.0.0.1:1")
    except IdentityError as error:
        gateway.note("service", str(error))
        return role, ()
    except ValueError:
        gateway.note("address", f"{text!r} is not host:port", "write 192.0.2.10:8443")
        return role, ()
    definition = {**gateway_definition(role.value, service, proxy_id, address, port), "Proxy": {"Config": config}}
    document.problems += check_definition(definition, f"{gateway.file}: gateway")
    return role, (definition,)
