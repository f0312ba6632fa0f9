"""What a PKI mount publishes: certificates, chains, lists of the revoked. Most of it anybody may read."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from lictor.dev.vault import fields
from lictor.dev.vault.answers import Failed, Internal, Json, Reply, not_so
from lictor.dev.vault.certificates import pem
from lictor.dev.vault.fields import Unfit
from lictor.dev.vault.issuers import NO_DEFAULT, Issuer, Issuers
from lictor.dev.vault.routes import Call, Route
from lictor.dev.vault.tokens import stamp

# Anybody may read these, and ask for nothing else under the same names.
_OPEN = re.compile(
    r"ca|ca/pem|ca_chain|crl|crl/(pem|delta|delta/pem)|cert/.+|certs/revoked/|issuers/"
    r"|issuer/[^/]+/(pem|der|json|crl|crl/pem|crl/der|crl/delta.*)|ocsp.*|acme/.*"
)
_CRL: Json = {
    "allow_expired_cert_revocation": False,
    "auto_rebuild": False,
    "auto_rebuild_grace_period": "12h",
    "delta_rebuild_interval": "15m",
    "disable": False,
    "enable_delta": False,
    "expiry": "72h",
    "ocsp_disable": False,
    "ocsp_expiry": "12h",
}
_CERTIFICATE_TYPE, _CHAIN_TYPE = "application/pkix-cert", "application/pem-certificate-chain"
_LIST_TYPE, _LIST_PEM_TYPE = "application/pkix-crl", "application/x-pem-file"


def is_open(path: str) -> bool:
    """Return whether a path below a PKI mount needs no token; that of a list ends in a slash."""
    return _OPEN.fullmatch(path) is not None


class Published:
    """The endpoints that publish what `issuers` hold, and what is set about the lists."""

    def __init__(self, issuers: Issuers) -> None:
        self.issuers = issuers
        self.crl_settings: Json = dict(_CRL)

    def routes(self) -> tuple[Route, ...]:
        """Return what is answered under the mount."""
        return (
            Route("ca", {"read": self._ca}),
            Route("ca/pem", {"read": self._ca_pem}),
            Route("ca_chain", {"read": self._ca_chain}),
            Route("crl", {"read": self._crl}),
            Route("crl/pem", {"read": self._crl_pem}),
            Route("crl/rotate", {"read": self._rotate_crl, "update": self._rotate_crl}),
            Route("cert/{serial}", {"read": self._certificate}),
            Route("cert/{serial}/raw", {"read": self._raw_certificate}),
            Route("cert/{serial}/raw/pem", {"read": self._raw_certificate}),
            Route("issuer/{issuer_ref}/(?P<form>pem|der|json)", {"read": self._shown_issuer}),
            Route("issuer/{issuer_ref}/crl", {"read": self._issuer_crl}),
            Route("issuer/{issuer_ref}/crl/(?P<form>pem|der)", {"read": self._issuer_crl}),
            Route(
                "config/crl",
                {"read": lambda _: Reply(dict(self.crl_settings)), "update": self._write_config_crl},
                {name: fields.flag if isinstance(value, bool) else fields.text for name, value in _CRL.items()},
            ),
        )

    def _raw_default(self, kind: str, body: Callable[[Issuer], bytes]) -> Reply:
        issuer = self.issuers.find("default")
        return Reply(raw=(body(issuer) if issuer is not None else b"", kind))

    def _ca(self, _: Call) -> Reply:
        return self._raw_default(_CERTIFICATE_TYPE, lambda one: _der(one.certificate))

    def _ca_pem(self, _: Call) -> Reply:
        return self._raw_default(_CHAIN_TYPE, lambda one: pem(one.certificate).encode())

    def _chain_text(self, issuer: Issuer) -> str:
        return "\n".join(pem(one) for one in self.issuers.chain(issuer))

    def _ca_chain(self, _: Call) -> Reply:
        return self._raw_default(_CERTIFICATE_TYPE, lambda one: self._chain_text(one).encode())

    def _life(self) -> timedelta:
        return timedelta(seconds=fields.parse_seconds(self.crl_settings["expiry"]))

    def _list(self, issuer: Issuer, encoding: serialization.Encoding) -> bytes:
        return self.issuers.crl(issuer, self._life()).public_bytes(encoding)

    def _crl(self, _: Call) -> Reply:
        return self._raw_default(_LIST_TYPE, lambda one: self._list(one, serialization.Encoding.DER))

    def _crl_pem(self, _: Call) -> Reply:
        return self._raw_default(_LIST_PEM_TYPE, lambda one: self._list(one, serialization.Encoding.PEM).strip())

    def _rotate_crl(self, _: Call) -> Reply:
        return Reply({"success": True})

    def _certificate(self, call: Call) -> Reply:
        name = call.names["serial"]
        never: Json = {"revocation_time": 0, "revocation_time_rfc3339": ""}
        if name in {"ca", "ca_chain", "crl"}:
            issuer = self.issuers.find("default")
            if issuer is None:
                raise Internal(500, NO_DEFAULT) if name == "crl" else Failed(400, NO_DEFAULT)
            if name == "crl":
                return Reply({"certificate": self._list(issuer, serialization.Encoding.PEM).decode().strip(), **never})
            if name == "ca":
                return Reply({"certificate": pem(issuer.certificate), **never})
            chain = self._chain_text(issuer)
            return Reply({"certificate": chain, "ca_chain": chain, **never})
        certificate = self._stored(name)
        when = self.issuers.revoked_at(certificate)
        if not when:
            return Reply({"certificate": pem(certificate), **never})
        issuer = self.issuers.issuer_of(certificate)
        told = {"revocation_time": int(when), "revocation_time_rfc3339": stamp(when)}
        return Reply({"certificate": pem(certificate), "issuer_id": issuer.id if issuer is not None else "", **told})

    def _stored(self, name: str) -> x509.Certificate:
        text = self.issuers.stored.get(name.replace("-", ":").lower())
        if text is None:
            raise Internal(404, "unsupported path") if not re.fullmatch(r"[0-9A-Fa-f:-]+", name) else Failed(404)
        return x509.load_pem_x509_certificate(text.encode())

    def _raw_certificate(self, call: Call) -> Reply:
        name, as_pem = call.names["serial"], call.ask.path.endswith("/pem")
        if name == "ca":
            return self._ca_pem(call) if as_pem else self._ca(call)
        if name == "crl":
            return self._crl_pem(call) if as_pem else self._crl(call)
        certificate = self._stored(name)
        raw = pem(certificate).encode() if as_pem else _der(certificate)
        return Reply(raw=(raw, _CHAIN_TYPE if as_pem else _CERTIFICATE_TYPE))

    def row(self, issuer: Issuer) -> Json:
        """Return an issuer as anybody may see it."""
        return {
            "ca_chain": [f"{pem(one)}\n" for one in self.issuers.chain(issuer)],
            "certificate": f"{pem(issuer.certificate)}\n",
            "issuer_id": issuer.id,
            "issuer_name": issuer.name,
        }

    def _shown_issuer(self, call: Call) -> Reply:
        issuer, form = self.issuers.get(call.names["issuer_ref"]), call.names["form"]
        if form == "json":
            return Reply(self.row(issuer))
        if form == "der":
            return Reply(raw=(_der(issuer.certificate), _CERTIFICATE_TYPE))
        return Reply(raw=(f"{pem(issuer.certificate)}\n".encode(), _CHAIN_TYPE))

    def _issuer_crl(self, call: Call) -> Reply:
        issuer, form = self.issuers.get(call.names["issuer_ref"]), call.names.get("form")
        if form == "der":
            return Reply(raw=(self._list(issuer, serialization.Encoding.DER), _LIST_TYPE))
        text = self._list(issuer, serialization.Encoding.PEM)
        return Reply(raw=(text, _LIST_PEM_TYPE)) if form == "pem" else Reply({"crl": text.decode()})

    def _write_config_crl(self, call: Call) -> Reply:
        given = dict(call.given)
        try:
            fields.parse_seconds(given.get("expiry", "72h"))
        except Unfit as error:
            raise Failed(400, f"given expiry could not be decoded: {error}") from error
        for name, value in given.items():
            if name != "expiry" and value != _CRL[name]:
                raise not_so(f"config/crl with {name}")
        self.crl_settings = {**self.crl_settings, **given}
        return Reply(dict(self.crl_settings))


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)
