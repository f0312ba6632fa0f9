"""A PKI mount: its roles, what it signs and revokes, its issuers. Source: Vault's HTTP API, "PKI secrets engine"."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from cryptography import x509

from lictor.dev.vault import fields
from lictor.dev.vault.answers import NOTHING, Ask, Failed, Internal, Json, Reply, keys_of, not_so
from lictor.dev.vault.authorities import Authorities, check_format
from lictor.dev.vault.certificates import (
    Plan,
    in_pairs,
    key_kind,
    key_pem,
    make,
    names_of,
    new_key,
    pem,
    read_csr,
    serial,
)
from lictor.dev.vault.identity import Identity
from lictor.dev.vault.issuers import Issuer, Issuers
from lictor.dev.vault.published import Published
from lictor.dev.vault.roles import ISSUE, ROLE, SIGN, check_key, plan_for, role_of
from lictor.dev.vault.routes import Call, Route, answer
from lictor.dev.vault.tokens import Token, stamp

_SHORTEST_PEM = 75
_URLS = ("crl_distribution_points", "delta_crl_distribution_points", "issuing_certificates", "ocsp_servers")
_ALGORITHMS = {"ec": "ECDSAWithSHA256", "rsa": "SHA256WithRSA", "ed25519": "Ed25519"}


class Pki:
    """One mount. `default` and `longest`: the lives of what asks for nothing, and at most, in seconds."""

    def __init__(self, default: Callable[[], float], longest: Callable[[], float]) -> None:
        self._default = default
        self._longest = longest
        self.roles: dict[str, Json] = {}
        self.issuers = Issuers()
        self.urls: dict[str, list[str]] = {}
        self._published = Published(self.issuers)
        self._identity: Identity | None = None
        authorities = Authorities(self.issuers, longest, lambda: self.urls)
        one_role = {"read": self._read_role, "update": self._write_role, "delete": self._delete_role}
        self._routes = (
            Route("roles/?", {"list": self._list_roles}),
            Route("roles/{name}", one_role, ROLE),
            Route("sign/{role}", {"update": self._sign}, SIGN),
            Route("issue/{role}", {"update": self._issue}, ISSUE),
            Route("issuer/{issuer_ref}/sign/{role}", {"update": self._sign}, SIGN),
            Route("issuer/{issuer_ref}/issue/{role}", {"update": self._issue}, ISSUE),
            *authorities.routes(),
            *self._published.routes(),
            Route("root", {"delete": self._delete_root}),
            Route("certs/?", {"list": lambda _: keys_of(list(self.issuers.stored))}),
            Route("certs/revoked/?", {"list": lambda _: keys_of(self.issuers.revoked())}),
            Route("revoke", {"update": self._revoke}, {"serial_number": fields.text, "certificate": fields.text}),
            Route("issuers/?", {"list": self._list_issuers}),
            Route("keys/?", {"list": self._list_keys}),
            Route("key/{key_ref}", {"read": self._key}),
            Route(
                "issuer/{issuer_ref}",
                {"read": self._read_issuer, "update": self._write_issuer, "delete": self._delete_issuer},
                {
                    "issuer_name": fields.text,
                    "leaf_not_after_behavior": fields.text,
                    "usage": fields.commas,
                    "manual_chain": fields.commas,
                    "revocation_signature_algorithm": fields.text,
                    **dict.fromkeys(_URLS, fields.commas),
                },
            ),
            Route(
                "config/issuers",
                {"read": self._config_issuers, "update": self._write_config_issuers},
                {"default": fields.text, "default_follows_latest_issuer": fields.flag},
            ),
            Route("config/keys", {"read": lambda _: Reply({"default": self.issuers.default_key})}),
            Route(
                "config/urls",
                {"read": self._config_urls, "update": self._write_config_urls},
                {**dict.fromkeys(_URLS, fields.commas), "enable_templating": fields.flag},
            ),
        )

    def answer(self, ask: Ask, path: str, own: Token, identity: Identity) -> Reply:
        """Answer a request; `path` is that below the mount. `identity` fills the templates of roles."""
        self._identity = identity
        return answer(self._routes, ask, path, own)

    # --- roles ---

    def _list_roles(self, _: Call) -> Reply:
        return keys_of(sorted(self.roles))

    def _read_role(self, call: Call) -> Reply:
        if call.names["name"] not in self.roles:
            raise Failed(404)
        return Reply(self.roles[call.names["name"]])

    def _write_role(self, call: Call) -> Reply:
        role = role_of(call.given)
        self.roles[call.names["name"]] = role
        reference = role["issuer_ref"]
        if reference != "default" and self.issuers.find(reference) is None:
            told = f"Issuing Certificate was set to {reference} but no issuing certificate currently has that name"
            return Reply(role, warnings=(told,))
        return Reply(role)

    def _delete_role(self, call: Call) -> Reply:
        self.roles.pop(call.names["name"], None)
        return NOTHING

    # --- signing ---

    def _role(self, call: Call) -> Json:
        role = self.roles.get(call.names["role"])
        if role is None:
            raise Failed(400, f"unknown role: {call.names['role']}")
        check_format(call.get("format"))
        return role

    def _plan(self, call: Call, role: Json, csr: x509.CertificateSigningRequest | None) -> tuple[Plan, list[str]]:
        def fill(text: str) -> str:
            return self._identity.filled(text, call.own, literal="*") if self._identity is not None else ""

        times = (self._default(), self._longest())
        return plan_for(role, call.given, names_of(csr) if csr is not None else None, fill, times)

    def _sign(self, call: Call) -> Reply:
        role = self._role(call)
        issuer = self._signing(call, role)
        csr = read_csr(call.get("csr"))
        check_key(role, csr.public_key())
        plan, warnings = self._plan(call, role, csr)
        return self._made(call, role, issuer, plan, csr.public_key()).warned(*warnings)

    def _issue(self, call: Call) -> Reply:
        role = self._role(call)
        kind, bits = role["key_type"], int(role["key_bits"])
        if kind == "any":
            kind, bits = call.get("key_type"), call.get("key_bits") or 0
            if not kind:
                told = "without providing key_type and/or key_bits request parameters"
                raise Failed(400, f'role key type "any" not allowed for issuing certificates {told}')
        issuer = self._signing(call, role)
        plan, warnings = self._plan(call, role, None)
        key = new_key(kind, bits)
        reply = self._made(call, role, issuer, plan, key.public_key())
        text = key_pem(key, pkcs8=call.get("private_key_format") == "pkcs8")
        data = {**(reply.data or {}), "private_key": text, "private_key_type": key_kind(key)}
        if call.get("format") == "pem_bundle":
            data["certificate"] = f"{text}\n{data['certificate']}"
        return Reply(data).warned(*warnings)

    def _signing(self, call: Call, role: Json) -> tuple[Issuer, Any]:
        return self.issuers.signing(call.names.get("issuer_ref") or role["issuer_ref"])

    def _made(self, call: Call, role: Json, by: tuple[Issuer, Any], plan: Plan, public: Any) -> Reply:
        issuer, key = by
        made = make(_within(issuer, plan, self.urls), public, issuer.certificate, key)
        if not role["no_store"]:
            self.issuers.store(made)
        chain = [pem(one) for one in self.issuers.chain(issuer)]
        shown = (
            chain[:-1] if call.get("remove_roots_from_chain") and _is_root(self.issuers.chain(issuer)[-1]) else chain
        )
        bundle = "\n".join([pem(made), *shown])
        data: Json = {
            "ca_chain": shown,
            "certificate": bundle if call.get("format") == "pem_bundle" else pem(made),
            "expiration": int(made.not_valid_after_utc.timestamp()),
            "issuing_ca": chain[0],
            "not_before": int(made.not_valid_before_utc.timestamp()),
            "serial_number": serial(made),
        }
        return Reply(data)

    # --- revoking ---

    def _revoke(self, call: Call) -> Reply:
        number, text = call.get("serial_number"), call.get("certificate")
        if number and text:
            raise Failed(400, "Must provide either the certificate or the serial to revoke; not both.")
        if not number and not text:
            raise Failed(400, "The serial number or certificate to revoke must be provided.")
        certificate = _presented(text) if text else self._given(number)
        issuer = self.issuers.issuer_of(certificate)
        if issuer is None:
            told = "certificates from previous CAs will need to have their issuing CA and key re-imported"
            begin = "unable to verify signature on presented cert from any present issuer in this mount"
            raise Internal(500, f"{begin}; {told} if revocation is necessary")
        when = issuer.revoked.setdefault(certificate.serial_number, datetime.now(UTC).timestamp())
        self.issuers.store(certificate)
        return Reply({"revocation_time": int(when), "revocation_time_rfc3339": stamp(when), "state": "revoked"})

    def _given(self, number: str) -> x509.Certificate:
        text = self.issuers.stored.get(number.replace("-", ":").lower())
        if text is None:
            raise Failed(400, f"certificate with serial {number} not found.")
        return x509.load_pem_x509_certificate(text.encode())

    # --- issuers and keys ---

    def _list_issuers(self, _: Call) -> Reply:
        info = {
            one.id: {
                "is_default": one.id == self.issuers.default,
                "issuer_name": one.name,
                "key_id": one.key_id,
                "serial_number": serial(one.certificate),
            }
            for one in self.issuers.by_id.values()
        }
        return keys_of(list(info), info)

    def _list_keys(self, _: Call) -> Reply:
        info = {
            one.id: {"is_default": one.id == self.issuers.default_key, "key_name": one.name}
            for one in self.issuers.keys.values()
        }
        return keys_of(list(info), info)

    def _key(self, call: Call) -> Reply:
        reference = call.names["key_ref"]
        wanted = self.issuers.default_key if reference == "default" else reference
        found = next((one for one in self.issuers.keys.values() if wanted in {one.id, one.name}), None)
        if found is None:
            raise Internal(500, f"unable to find PKI key for reference: {reference}")
        digest = x509.SubjectKeyIdentifier.from_public_key(found.key.public_key()).digest.hex()
        data = {"key_id": found.id, "key_name": found.name, "key_type": key_kind(found.key)}
        return Reply({**data, "subject_key_id": in_pairs(digest)})

    def _read_issuer(self, call: Call) -> Reply:
        issuer = self.issuers.get(call.names["issuer_ref"])
        public = issuer.certificate.public_key()
        data = {
            **self._published.row(issuer),
            **{name: [] for name in _URLS},
            "key_id": issuer.key_id,
            "leaf_not_after_behavior": issuer.late_leaves,
            "manual_chain": None,
            "revocation_signature_algorithm": _ALGORITHMS[key_kind(public)] if issuer.algorithm_shown else "",
            "revoked": False,
            "usage": "crl-signing,issuing-certificates,ocsp-signing,read-only",
        }
        return Reply(data)

    def _write_issuer(self, call: Call) -> Reply:
        issuer = self.issuers.get(call.names["issuer_ref"])
        for name in ("usage", "manual_chain", "revocation_signature_algorithm", *_URLS):
            if call.get(name):
                raise not_so(f"an issuer with {name}")
        late = call.get("leaf_not_after_behavior") or "err"
        if late not in {"err", "truncate", "permit"}:
            told = "Possible values are `err`, `truncate`, and `permit`."
            raise Failed(400, f"Unknown value for field `leaf_not_after_behavior`. {told}")
        issuer.name, issuer.late_leaves, issuer.algorithm_shown = call.get("issuer_name"), late, False
        return self._read_issuer(call)

    def _delete_issuer(self, call: Call) -> Reply:
        issuer = self.issuers.get(call.names["issuer_ref"])
        was_default = issuer.id == self.issuers.default
        self.issuers.remove(issuer)
        if not was_default:
            return NOTHING
        uses = sum(role["issuer_ref"] == "default" for role in self.roles.values())
        return Reply(warnings=(f"that was the default issuer, to which {uses} roles refer; name another one",))

    def _delete_root(self, _: Call) -> Reply:
        self.issuers.clear()
        return Reply(warnings=("every issuer and every key of this mount is gone",))

    # --- settings ---

    def _config_issuers(self, _: Call) -> Reply:
        return Reply({"default": self.issuers.default, "default_follows_latest_issuer": False})

    def _write_config_issuers(self, call: Call) -> Reply:
        reference = call.get("default")
        if call.get("default_follows_latest_issuer"):
            raise not_so("default_follows_latest_issuer")
        if reference in {"", "default"}:
            raise Failed(400, "Invalid issuer specification; must be non-empty and can't be 'default'.")
        issuer = self.issuers.find(reference)
        if issuer is None:
            raise Failed(400, f"Error resolving issuer reference: {self.issuers.missing(reference)}")
        self.issuers.default = issuer.id
        return self._config_issuers(call)

    def _config_urls(self, _: Call) -> Reply:
        return Reply({**{name: self.urls.get(name, []) for name in _URLS}, "enable_templating": False})

    def _write_config_urls(self, call: Call) -> Reply:
        if call.get("enable_templating") or call.get("delta_crl_distribution_points"):
            raise not_so("templates and deltas in config/urls")
        given = {name: call.given[name] for name in _URLS if name in call.given}
        for name, urls in given.items():
            for url in urls:
                if not re.match(r"[a-z][a-z0-9+.-]*://[^/]+", url):
                    begin = "invalid URL found in Authority Information Access (AIA) parameter"
                    raise Failed(400, f"{begin} {name}: {url}")
        self.urls = {**self.urls, **given}
        return self._config_urls(call)

    # --- keeping it over a restart ---

    def dump(self) -> Json:
        """Return everything as JSON, private keys included."""
        return {
            "roles": self.roles,
            "urls": self.urls,
            "crl": self._published.crl_settings,
            "issuers": self.issuers.dump(),
        }

    def load(self, kept: Mapping[str, Any]) -> None:
        """Take what `dump` gave."""
        self.roles, self.urls = dict(kept["roles"]), dict(kept["urls"])
        self._published.crl_settings = dict(kept["crl"])
        self.issuers.load(kept["issuers"])


def _is_root(certificate: x509.Certificate) -> bool:
    return certificate.issuer == certificate.subject


def _presented(text: str) -> x509.Certificate:
    if len(text) < _SHORTEST_PEM:
        told = "perhaps a path was passed to the API rather than the contents of a PEM file"
        raise Internal(500, f"provided certificate data was too short; {told}")
    try:
        return x509.load_pem_x509_certificate(text.encode())
    except ValueError as error:
        raise Internal(500, f"unable to parse certificate: {error}") from error


def _within(issuer: Issuer, plan: Plan, urls: Mapping[str, list[str]]) -> Plan:
    """Return a plan as an issuer may carry it out: a leaf does not outlive it. Raise Failed."""
    end = issuer.certificate.not_valid_after_utc
    found = replace(plan, urls=urls)
    if plan.ends() <= end or issuer.late_leaves == "permit":
        return found
    if issuer.late_leaves == "truncate":
        return replace(found, not_after=end)
    told = f"that is beyond the expiration of the CA certificate at {stamp(end.timestamp())}"
    wanted = stamp(plan.ends().timestamp())
    raise Failed(400, f"cannot satisfy request, as TTL would result in notAfter of {wanted} {told}")
