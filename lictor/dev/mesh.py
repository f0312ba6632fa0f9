"""Prepare the embedded servers for a mesh: what vault/bootstrap.sh and consul/bootstrap.sh do, over the same APIs.

Vault   connect_root (Consul's root) ── connect_inter (Consul's leaves)
                                     └─ pki_mesh (Lictor's leaves), role `mesh`, one AppRole a service
Consul  CA provider vault on these mounts; with ACLs one policy and one token a service, and `operator`
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp

from policies.errors import MeshError

Json = dict[str, Any]
SECONDS = 20.0
WRAP_SECONDS = 120
SIGN_POLICY = """
path "ROLE" {
  capabilities = ["update"]
  denied_parameters = { "not_after" = [] "not_before" = [] }
}
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/lookup-self" { capabilities = ["read"] }
"""
_READER = (
    'service_prefix "" { policy = "read" }\nnode_prefix "" { policy = "read" }\nagent_prefix "" { policy = "read" }\n'
)
SIDECAR_RULES = 'service "NAME" { policy = "write" }\nservice "NAME-sidecar-proxy" { policy = "write" }\n' + _READER
GATEWAY_RULES = 'service "NAME" { policy = "write" }\nmesh = "read"\n' + _READER
OPERATOR_RULES = (
    'operator = "write"\nmesh = "write"\nservice_prefix "" {\n  policy = "write"\n  intentions = "write"\n}\n'
    'node_prefix "" { policy = "read" }\nagent_prefix "" { policy = "read" }\n'
)
_NOBODY: Mapping[str, Iterable[str]] = {}
_STRICT: Json = {  # of every role
    "allow_any_name": False,
    "allow_localhost": False,
    "allow_ip_sans": False,
    "require_cn": False,
    "use_csr_common_name": False,
    "key_type": "ec",
    "key_bits": 256,
    "key_usage": ["DigitalSignature"],
    "basic_constraints_valid_for_non_ca": True,
    "not_before_duration": "30s",
    "no_store": True,
}


class PreparationFailed(MeshError):
    """A server did not do what the preparation asked."""


@dataclass(slots=True)
class Preparation:
    """`async with` it. `consul_token` is a management token, "" where there are no ACLs."""

    consul: str
    vault: str
    root_token: str = field(repr=False)
    consul_token: str = field(default="", repr=False)
    trust_domain: str = ""
    _session: aiohttp.ClientSession | None = field(default=None, repr=False)

    async def __aenter__(self) -> Self:
        """Open a session."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS), trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        if self._session is not None:
            await self._session.close()

    # --- the CA ---

    async def authority(self, services: Iterable[str], leaf_ttl: str) -> None:
        """Let Vault sign for Consul and for these services. Raise PreparationFailed."""
        for mount, ttl in (("connect_root", "87600h"), ("connect_inter", "8760h"), ("pki_mesh", "8760h")):
            await self._vault("POST", f"sys/mounts/{mount}", {"type": "pki", "config": {"max_lease_ttl": ttl}})
        config = {"Address": self.vault, "Token": self.root_token, "RootPKIPath": "connect_root"}
        config |= {"IntermediatePKIPath": "connect_inter", "LeafCertTTL": "72h", "IntermediateCertTTL": "8760h"}
        await self._consul("PUT", "connect/ca/configuration", {"Provider": "vault", "Config": config})
        self.trust_domain = (await self._consul("GET", "connect/ca/roots"))["TrustDomain"]
        await self._intermediate(f"spiffe://{self.trust_domain}")
        await self._vault("POST", "sys/auth/approle", {"type": "approle"})
        accessor = (await self._vault("GET", "sys/auth"))["data"]["approle/"]["accessor"]
        alias = f"{{{{identity.entity.aliases.{accessor}.metadata.role_name}}}}"
        await self._leaf_role("mesh", [alias], leaf_ttl, template=True)
        await self._may_sign("lictor-sidecar", "pki_mesh/sign/mesh")
        for service in services:
            await self._app_role(service, "lictor-sidecar")

    async def egress(self, gateway: str, services: Iterable[str], leaf_ttl: str) -> None:
        """Let a terminating gateway have the leaves of these services. Raise PreparationFailed."""
        role = f"egress-{gateway}"
        await self._leaf_role(role, [gateway, *services], leaf_ttl, template=False)
        await self._may_sign(f"lictor-{role}", f"pki_mesh/sign/{role}")
        await self._app_role(gateway, "lictor-sidecar", f"lictor-{role}")

    async def edge(self, gateway: str, domains: str) -> str:
        """Let a CA for the outside sign these domains (with commas); return its PEM. Raise PreparationFailed."""
        await self._vault("POST", "sys/mounts/pki_edge", {"type": "pki", "config": {"max_lease_ttl": "8760h"}})
        root = {"common_name": "Lictor edge", "key_type": "ec", "key_bits": 256, "ttl": "8760h"}
        made = await self._vault("POST", "pki_edge/root/generate/internal", root)
        rules: Json = {"allowed_domains": domains, "allow_bare_domains": True, "allow_subdomains": True}
        rules |= {**_STRICT, "use_csr_common_name": True, "client_flag": False, "ttl": "72h", "max_ttl": "72h"}
        await self._vault("POST", "pki_edge/roles/edge", rules)
        await self._may_sign("lictor-edge", "pki_edge/sign/edge")
        await self._app_role(gateway, "lictor-sidecar", "lictor-edge")
        return str(made["data"]["certificate"])

    async def _may_sign(self, policy: str, path: str) -> None:
        await self._vault("POST", f"sys/policies/acl/{policy}", {"policy": SIGN_POLICY.replace("ROLE", path)})

    async def _app_role(self, service: str, *policies: str) -> None:
        given: Json = {"token_policies": [*policies], "token_period": "72h", "token_type": "service"}
        given |= {"secret_id_num_uses": 1, "secret_id_ttl": "10m"}
        await self._vault("POST", f"auth/approle/role/{service}", given)

    async def _intermediate(self, uri: str) -> None:
        names = {"common_name": "Lictor mesh", "uri_sans": uri}
        asked = await self._vault(
            "POST", "pki_mesh/intermediate/generate/internal", {**names, "key_type": "ec", "key_bits": 256}
        )
        request = {**names, "csr": asked["data"]["csr"], "format": "pem", "max_path_length": 0, "ttl": "8760h"}
        signed = await self._vault("POST", "connect_root/root/sign-intermediate", request)
        given = {"certificate": signed["data"]["certificate"]}
        await self._vault("POST", "pki_mesh/intermediate/set-signed", given)

    async def _leaf_role(self, role: str, services: list[str], leaf_ttl: str, *, template: bool) -> None:
        given: Json = {
            "allowed_uri_sans": [f"spiffe://{self.trust_domain}/ns/default/dc/dc1/svc/{name}" for name in services],
            "allowed_uri_sans_template": template,
            "allow_wildcard_certificates": False,
            **_STRICT,
            "ttl": leaf_ttl,
            "max_ttl": leaf_ttl,
        }
        await self._vault("POST", f"pki_mesh/roles/{role}", given)

    async def credentials(self, service: str, folder: Path) -> None:
        """Put a role-id and a fresh wrapped, single-use secret-id into a folder, readable by its owner alone."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        role = await self._vault("GET", f"auth/approle/role/{service}/role-id")
        wrapped = await self._vault("POST", f"auth/approle/role/{service}/secret-id", {}, wrap=WRAP_SECONDS)
        write_secret(folder / "role-id", role["data"]["role_id"])
        write_secret(folder / "wrapped-secret-id", wrapped["wrap_info"]["token"])

    # --- ACLs ---

    async def tokens(
        self,
        folder: Path,
        sidecars: Iterable[str],
        gateways: Iterable[str],
        egress: Mapping[str, Iterable[str]] = _NOBODY,
    ) -> None:
        """Make `operator` and one token a service, each in a file of its name; `egress` by terminating gateway."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_secret(folder / "management", self.consul_token)
        rules = {"operator": OPERATOR_RULES}
        rules |= {f"sidecar-{name}": SIDECAR_RULES.replace("NAME", name) for name in sidecars}
        rules |= {f"gateway-{name}": GATEWAY_RULES.replace("NAME", name) for name in gateways}
        for name, services in egress.items():
            own = [f'service "{service}" {{ policy = "write" }}\n' for service in services]
            rules[f"gateway-{name}"] = GATEWAY_RULES.replace("NAME", name) + "".join(own)
        for policy, text in rules.items():
            await self._consul("PUT", "acl/policy", {"Name": policy, "Rules": text})
            name = policy.removeprefix("sidecar-").removeprefix("gateway-")
            made = await self._consul("PUT", "acl/token", {"Description": name, "Policies": [{"Name": policy}]})
            write_secret(folder / name, made["SecretID"])

    async def write(self, entry: Mapping[str, Any]) -> None:
        """Write a config entry."""
        await self._consul("PUT", "config", dict(entry))

    async def register(self, service: Mapping[str, Any]) -> None:
        """Register a service that is outside of the mesh."""
        await self._consul("PUT", "agent/service/register", dict(service))

    # --- how ---

    async def _vault(self, method: str, path: str, given: Json | None = None, *, wrap: int = 0) -> Any:
        headers = {"X-Vault-Token": self.root_token, **({"X-Vault-Wrap-TTL": str(wrap)} if wrap else {})}
        return await self._ask(method, f"{self.vault}/v1/{path}", given, headers)

    async def _consul(self, method: str, path: str, given: Json | None = None) -> Any:
        headers = {"X-Consul-Token": self.consul_token} if self.consul_token else {}
        return await self._ask(method, f"{self.consul}/v1/{path}", given, headers)

    async def _ask(self, method: str, url: str, given: Json | None, headers: Mapping[str, str]) -> Any:
        if self._session is None:
            message = "a preparation is used inside of `async with`"
            raise PreparationFailed(message)
        try:
            async with self._session.request(method, url, json=given, headers=headers) as answer:
                text, status = await answer.text(), answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            message = f"{method} {url}: {str(error) or type(error).__name__}"
            raise PreparationFailed(message) from error
        if status >= 300:  # noqa: PLR2004 - no success
            message = f"{method} {url}: {status}: {text.strip()[:300]}"
            raise PreparationFailed(message)
        return json.loads(text) if text.strip() else None


def write_secret(file: Path, text: str) -> None:
    """Replace a file that only its owner may read."""
    new = file.with_name(f".{file.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as output:
        output.write(text)
    new.replace(file)
