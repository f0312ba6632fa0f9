"""Consul's Vault CA provider: the root and the signing happen in Vault; here are the calls.

An own intermediate under the root mount signs the leaves. Source: Consul's documentation "Vault as the Connect CA", and
Vault's HTTP API, PKI secrets engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from lictor.dev.consul.state import Json
from policies.errors import MeshError

if TYPE_CHECKING:
    from lictor.dev.consul.connect import Connect

LEAF_ROLE = "leaf-cert"
SECONDS = 20.0
NOT_FOUND = 404


class VaultCaFailed(MeshError):
    """Vault did not do what the provider asked."""


class VaultCa:
    """A CA in Vault."""

    name = "vault"

    def __init__(self, config: Mapping[str, Any], roots: list[Json] | None = None) -> None:
        self.config: Json = {"RootCertTTL": "87600h", "IntermediateCertTTL": "8760h", "LeafCertTTL": "72h", **config}
        self.roots: list[Json] = roots or []
        self._root = str(config["RootPKIPath"]).strip("/")
        self._intermediate = str(config["IntermediatePKIPath"]).strip("/")

    @classmethod
    async def prepare(cls, connect: Connect, config: Mapping[str, Any]) -> Self:
        """Return a provider whose root, intermediate and role are there. Raise VaultCaFailed."""
        from lictor.dev.consul.connect import root_row  # noqa: PLC0415 - connect knows providers by their protocol

        for name in ("Address", "Token", "RootPKIPath", "IntermediatePKIPath"):
            if not config.get(name):
                message = f"must provide {name}: Vault's address, a token, and the paths of both mounts"
                raise VaultCaFailed(message)
        made = cls(config)
        uri = f"spiffe://{connect.trust_domain}"
        await made._mount(made._root, made.config["RootCertTTL"])
        await made._mount(made._intermediate, made.config["IntermediateCertTTL"])
        root = await made._certificate(made._root)
        if not root:
            await made._call(
                "POST", f"{made._root}/root/generate/internal", made._key_of("Vault CA Root Authority", uri)
            )
            root = await made._certificate(made._root)
        await made._make_intermediate(uri)
        await made._call("POST", f"{made._intermediate}/roles/{LEAF_ROLE}", made._role())
        made.roots = [root_row(root, connect.cluster_id)]
        return made

    def kept(self) -> Json:
        """Return the roots: all else is in Vault."""
        return {"roots": self.roots}

    def _key_of(self, common_name: str, uri: str) -> Json:
        return {"common_name": common_name, "uri_sans": uri, "key_type": "ec", "key_bits": 256}

    def _role(self) -> Json:
        return {
            "allow_any_name": True,
            "allowed_uri_sans": "spiffe://*",
            "key_type": "any",
            "max_ttl": self.config["LeafCertTTL"],
            "no_store": True,
            "require_cn": False,
        }

    async def _mount(self, path: str, ttl: str) -> None:
        found = await self._call("GET", f"sys/mounts/{path}", missing_is_none=True)
        if found is None:
            given = {"type": "pki", "config": {"max_lease_ttl": ttl, "default_lease_ttl": ttl}}
            await self._call("POST", f"sys/mounts/{path}", given)

    async def _certificate(self, path: str) -> str:
        found = await self._call("GET", f"{path}/cert/ca", missing_is_none=True)
        return str(((found or {}).get("data") or {}).get("certificate") or "").strip() + "\n" if found else ""

    async def _make_intermediate(self, uri: str) -> None:
        given = self._key_of("Vault CA Intermediate Authority", uri)
        made = await self._call("POST", f"{self._intermediate}/intermediate/generate/internal", given)
        request = {
            "csr": made["data"]["csr"],
            "use_csr_values": False,
            "uri_sans": uri,
            "format": "pem_bundle",
            "ttl": self.config["IntermediateCertTTL"],
        }
        signed = await self._call("POST", f"{self._root}/root/sign-intermediate", request)
        given = {"certificate": signed["data"]["certificate"]}
        await self._call("POST", f"{self._intermediate}/intermediate/set-signed", given)

    async def sign(self, csr: x509.CertificateSigningRequest, uri: str) -> str:
        """Return a leaf with the intermediate after it. `uri` is in the request already."""
        del uri
        pem = csr.public_bytes(serialization.Encoding.PEM).decode()
        given = {"csr": pem, "ttl": self.config["LeafCertTTL"]}
        data = (await self._call("POST", f"{self._intermediate}/sign/{LEAF_ROLE}", given))["data"]
        return "\n".join(part.strip() for part in (data["certificate"], data["issuing_ca"])) + "\n"

    async def _call(self, method: str, path: str, given: Json | None = None, *, missing_is_none: bool = False) -> Any:
        """Ask Vault. None for what is not there, if that is an answer. Raise VaultCaFailed."""
        url = f"{str(self.config['Address']).rstrip('/')}/v1/{path}"
        headers = {"X-Vault-Token": str(self.config["Token"]), "X-Vault-Request": "true"}
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS), trust_env=False) as session,
                session.request(method, url, json=given, headers=headers) as answer,
            ):
                page = await answer.json(content_type=None) if answer.status != 204 else None  # noqa: PLR2004
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            message = f"Vault at {self.config['Address']}: {method} {path}: {str(error) or type(error).__name__}"
            raise VaultCaFailed(message) from error
        if missing_is_none and answer.status in {400, NOT_FOUND}:
            return None
        if answer.status >= 300:  # noqa: PLR2004
            message = f"Vault: {method} {path}: {answer.status}: {'; '.join((page or {}).get('errors') or [])}"
            raise VaultCaFailed(message)
        return page or {}
