"""The sidecar's YAML. Every mistake is told at once, with file, line and field.

service:                      # a Consul service definition, snake_case
  name: web
  port: 9090
  connect:
    sidecar_service:
      port: 21000
      proxy:
        upstreams: [{destination_name: api, local_bind_port: 9191}]
consul: {address: "http://127.0.0.1:8500", token_file: /run/secrets/consul-token}
issuer: vault                 # or consul
vault: {address: "https://vault:8200", auth: {method: approle, role_id_file: ..., secret_id_file: ...}}
admin: 127.0.0.1:19000
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from controlplane.consul.settings import ConsulSettings, consul_settings
from controlplane.issuer.settings import METHODS, LoginSettings, VaultSettings, check_vault
from controlplane.registration import Definition, check_definition, sidecar_definition
from policies.errors import ConfigError, IdentityError, Problem
from policies.identity import parse_service_name
from policies.snapshot import Role
from sidecar.logs import LEVELS
from sidecar.settings import DEFAULT_ADMIN, DRAIN_SECONDS, ProcessSettings, camelized, parse_address
from sidecar.yaml_reader import Section, read_document

NO_FLAGS: Mapping[str, str] = {}


def read_sidecar(path: Path, environment: Mapping[str, str], flags: Mapping[str, str] = NO_FLAGS) -> ProcessSettings:
    """Return the settings in a file. Raise ConfigError with every mistake in it.

    `flags`: how to reach the agent, by the names of environment variables; they stand above the file.
    """
    document = read_document(path)
    definitions = _definitions(document.section("service"), document)
    settings = read_process(document, environment, Role.SIDECAR, definitions, flags)
    document.done()
    document.raise_problems()
    return settings


def read_process(
    document: Section,
    environment: Mapping[str, str],
    role: Role,
    definitions: tuple[Definition, ...],
    flags: Mapping[str, str] = NO_FLAGS,
) -> ProcessSettings:
    """Return what every kind of process is told: Consul, issuer, admin, drain, logs."""
    issuer = document.text("issuer", "vault" if document.has("vault") else "consul", choices=("vault", "consul"))
    vault = _vault(document.section("vault"), document.problems)
    if issuer == "vault" and not document.has("vault"):
        document.note("issuer", "is vault, but there is no `vault` block", "add `vault: {address: ...}`")
    logs = document.section("log")
    settings = ProcessSettings(
        role=role,
        consul=_consul(document.section("consul"), environment, flags, document),
        vault=vault if issuer == "vault" else None,
        pki=vault if document.has("vault") else None,
        admin=_admin(document),
        drain_seconds=document.duration("drain", DRAIN_SECONDS),
        log_level=logs.text("level", "info", choices=LEVELS),
        log_json=logs.flag("json", default=True),
        definitions=definitions,
    )
    logs.done()
    return settings


def _definitions(service: Section, document: Section) -> tuple[Definition, ...]:
    """Return the service's definition and its sidecar's."""
    name = service.text("name", required=True)
    try:
        parse_service_name(name or "unnamed")
    except IdentityError as error:
        service.note("name", str(error))
    own: Definition = {"Name": name, "ID": service.text("id", name), "Port": service.port("port", required=True)}
    own["Address"] = service.text("address")
    own["Tags"] = list(service.texts("tags"))
    own["Meta"] = service.pairs("meta")
    weights = service.section("weights")
    own["Weights"] = {"Passing": weights.number("passing", 1), "Warning": weights.number("warning", 1)}
    weights.done()
    checks = service.plain("checks") or ([service.plain("check")] if service.plain("check") else [])
    own["Checks"] = camelized(checks)
    connect = service.section("connect")
    sidecar = connect.section("sidecar_service")
    proxy = _proxy(sidecar)
    connect.done()
    service.done()
    if not name or not own["Port"] or not proxy.get("Port"):
        return ()
    derived = sidecar_definition(own, proxy)
    document.problems += check_definition(own, f"{service.file}: service")
    document.problems += check_definition(derived, f"{service.file}: service.connect.sidecar_service")
    return own, derived


def _proxy(sidecar: Section) -> Definition:
    proxy = sidecar.section("proxy")
    definition: Definition = {
        "Port": sidecar.port("port", required=True),
        "Address": sidecar.text("address"),
        "Proxy": {"Upstreams": [_upstream(row) for row in proxy.sections("upstreams")]},
    }
    if sidecar.has("meta"):
        definition["Meta"] = sidecar.pairs("meta")
    if sidecar.has("tags"):
        definition["Tags"] = list(sidecar.texts("tags"))
    settings = definition["Proxy"]
    settings["Config"] = proxy.plain("config") or {}
    settings["LocalServiceAddress"] = proxy.text("local_service_address", "127.0.0.1")
    if proxy.has("local_service_port"):
        settings["LocalServicePort"] = proxy.port("local_service_port")
    proxy.done()
    sidecar.done()
    _check_unique(proxy, settings["Upstreams"])
    return definition


def _check_unique(proxy: Section, upstreams: list[Definition]) -> None:
    seen: set[tuple[str, int]] = set()
    for upstream in upstreams:
        bound = (upstream["LocalBindAddress"], upstream["LocalBindPort"])
        if bound[1] and bound in seen:
            proxy.note("upstreams", f"{bound[0]}:{bound[1]} is bound twice", "give every upstream its own port")
        seen.add(bound)


def _upstream(row: Section) -> Definition:
    upstream: Definition = {
        "DestinationName": row.text("destination_name", required=True),
        "Datacenter": row.text("datacenter"),
        "LocalBindAddress": row.text("local_bind_address", "127.0.0.1"),
        "LocalBindPort": row.port("local_bind_port", required=True),
        "Config": row.plain("config") or {},
    }
    row.done()
    return upstream


def _consul(
    block: Section, environment: Mapping[str, str], flags: Mapping[str, str], document: Section
) -> ConsulSettings:
    named = {
        "address": "CONSUL_HTTP_ADDR",
        "token_file": "CONSUL_HTTP_TOKEN_FILE",
        "ca_file": "CONSUL_CACERT",
        "ca_path": "CONSUL_CAPATH",
        "client_cert": "CONSUL_CLIENT_CERT",
        "client_key": "CONSUL_CLIENT_KEY",
        "tls_server_name": "CONSUL_TLS_SERVER_NAME",
    }
    written = {variable: block.text(field) for field, variable in named.items()}
    block.done()
    try:
        return consul_settings(environment, {**written, **flags})
    except ConfigError as error:
        fields = {variable: field for field, variable in named.items() if variable not in flags}
        for problem in error.problems:
            if block.has(fields.get(problem.where, "")):
                block.note(fields[problem.where], problem.message, problem.fix)
            else:
                document.problems.append(problem)
        return ConsulSettings()


def _vault(block: Section, problems: list[Problem]) -> VaultSettings:
    auth = block.section("auth")
    settings = VaultSettings(
        address=block.text("address", required=bool(block.node.value)),
        mount=block.text("mount", "pki_mesh"),
        role=block.text("role", "mesh"),
        ttl=block.text("ttl"),
        ca_file=block.text("ca_file"),
        namespace=block.text("namespace"),
        login=LoginSettings(
            method=auth.text("method", "approle", choices=METHODS),
            mount=auth.text("mount"),
            role=auth.text("role"),
            role_id_file=auth.text("role_id_file"),
            secret_id_file=auth.text("secret_id_file"),
            wrapped=auth.flag("wrapped", default=True),
            token_file=auth.text("token_file"),
            jwt_file=auth.text("jwt_file"),
            cert_file=auth.text("cert_file"),
            key_file=auth.text("key_file"),
        ),
    )
    auth.done()
    block.done()
    if block.node.value and settings.address:
        line = block.node.start_mark.line + 1
        problems += check_vault(settings, f"{block.file}:{line}: vault")
    return settings


def _admin(document: Section) -> tuple[str, int] | None:
    text = document.text("admin", f"{DEFAULT_ADMIN[0]}:{DEFAULT_ADMIN[1]}")
    if text in {"off", "false"}:
        return None
    try:
        return parse_address(text)
    except ValueError:
        document.note("admin", f"{text!r} is not host:port", "write 127.0.0.1:19000, or off")
        return DEFAULT_ADMIN
