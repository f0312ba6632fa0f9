"""Leaves from a real server with Vault's API, prepared by vault/bootstrap.sh: the role, every login, every refusal."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import time
import urllib.error
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from controlplane.issuer.settings import LoginSettings, VaultSettings
from controlplane.issuer.vault import VaultIssuer
from harness.certificates import Authority, Mistakes, spiffe
from harness.servers import VaultServer, eventually, http_json, vault_server
from harness.world import run_script
from lictor.up.ports import free_ports
from policies.identity import Leaf, SpiffeId

TRUST_DOMAIN = spiffe("web").trust_domain


@dataclass
class Prepared:
    """A server with the mesh's mounts, role and AppRoles."""

    vault: VaultServer
    folder: Path

    def approle(self, service: str, *, wrap: str = "60s") -> LoginSettings:
        folder = self.folder / f"{service}-{time.monotonic_ns()}"
        run_script(["vault/issue-secret-id.sh", service, str(folder)], {**self.vault.environment, "WRAP_TTL": wrap})
        return LoginSettings(role_id_file=str(folder / "role-id"), secret_id_file=str(folder / "wrapped-secret-id"))

    def settings(self, login: LoginSettings, **more: Any) -> VaultSettings:
        return VaultSettings(self.vault.address, login=login, **more)

    def token_of(self, service: str) -> str:
        """Return a client token as a sidecar of this service has it."""
        login = self.approle(service)
        role_id = Path(login.role_id_file).read_text()
        unwrapped = self.vault.api("sys/wrapping/unwrap", "PUT", token=Path(login.secret_id_file).read_text().strip())
        body = {"role_id": role_id, "secret_id": unwrapped["data"]["secret_id"]}
        return str(self.vault.api("auth/approle/login", "PUT", body, token="")["auth"]["client_token"])


@pytest.fixture(scope="module")
def prepared(vault: VaultServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    folder = tmp_path_factory.mktemp("vault")
    run_script(["vault/bootstrap.sh", "ca", str(folder)], vault.environment)
    root = {"common_name": "Mesh root", "key_type": "ec", "key_bits": 256, "ttl": "8760h"}
    vault.api("connect_root/root/generate/internal", "PUT", root)
    environment = {**vault.environment, "LEAF_TTL": "1h"}
    for _ in range(2):  # safe to run twice
        run_script(["vault/bootstrap.sh", "mesh", TRUST_DOMAIN, "dc1", "web db"], environment)
    yield Prepared(vault, folder)


@contextlib.asynccontextmanager
async def issuing(settings: VaultSettings) -> AsyncIterator[VaultIssuer]:
    issuer = VaultIssuer(settings)
    try:
        yield issuer
    finally:
        await issuer.close()


async def first(issuer: VaultIssuer, spiffe_id: SpiffeId | None = None, seconds: float = 10) -> Leaf:
    stream = issuer.leaves(spiffe_id or spiffe("web"))
    try:
        async with asyncio.timeout(seconds):
            return await anext(stream)
    finally:
        await stream.aclose()


# --- the stock command line ------------------------------------------------------------------------------------------


def bao(prepared: Prepared, *words: str, token: str = "") -> str:
    environment = {**os.environ, **prepared.vault.environment}
    environment |= {"VAULT_TOKEN": token, "BAO_TOKEN": token} if token else {}
    return subprocess.run(
        [environment["VAULT_BIN"], *words], capture_output=True, text=True, check=True, timeout=60, env=environment
    ).stdout


def test_the_stock_command_line_finds_what_the_bootstrap_made(prepared: Prepared) -> None:
    """`bao` asks what no other client does: which mount a path is under, flags by field, LIST."""
    assert json.loads(bao(prepared, "status", "-format=json"))["sealed"] is False
    mounts = json.loads(bao(prepared, "secrets", "list", "-format=json"))
    assert {"connect_root/", "connect_inter/", "pki_mesh/", "sys/", "identity/", "cubbyhole/"} == set(mounts)
    assert mounts["pki_mesh/"]["config"]["max_lease_ttl"] == 8760 * 3600
    assert {"approle/", "token/"} <= set(json.loads(bao(prepared, "auth", "list", "-format=json")))
    assert "lictor-orchestrator-db" in bao(prepared, "policy", "list").split()
    assert "denied_parameters" in bao(prepared, "policy", "read", "lictor-sidecar")
    assert json.loads(bao(prepared, "list", "-format=json", "auth/approle/role")) == ["db", "web"]
    role = json.loads(bao(prepared, "read", "-format=json", "auth/approle/role/web"))["data"]
    assert (role["token_period"], role["secret_id_ttl"], role["secret_id_num_uses"]) == (72 * 3600, 600, 1)
    assert "mesh" in bao(prepared, "list", "pki_mesh/roles").split()
    assert bao(prepared, "read", "-field=key_type", "pki_mesh/roles/mesh") == "ec"
    assert bao(prepared, "read", "-field=ca_chain", "pki_mesh/cert/ca_chain").count("BEGIN CERTIFICATE") == 1


def test_the_stock_command_line_logs_in_and_is_held_to_its_policies(prepared: Prepared) -> None:
    token = bao(prepared, "token", "create", "-policy=lictor-orchestrator-web", "-ttl=10m", "-field=token")
    assert bao(prepared, "token", "capabilities", "auth/approle/role/web/secret-id", token=token).strip() == "update"
    role_id = bao(prepared, "read", "-field=role_id", "auth/approle/role/web/role-id", token=token)
    words = ["write", "-f", "-wrap-ttl=60s", "-field=wrapping_token", "auth/approle/role/web/secret-id"]
    wrapped = bao(prepared, *words, token=token)
    with pytest.raises(subprocess.CalledProcessError) as caught:  # unwrapped, and of another service
        bao(prepared, "write", "-f", "auth/approle/role/web/secret-id", token=token)
    assert "permission denied" in caught.value.stderr
    secret_id = bao(prepared, "unwrap", "-field=secret_id", wrapped)
    login = ["write", "-field=token", "auth/approle/login", f"role_id={role_id}", f"secret_id={secret_id}"]
    sidecar = bao(prepared, *login)
    assert json.loads(bao(prepared, "token", "lookup", "-format=json", token=sidecar))["data"]["meta"] == {
        "role_name": "web"
    }
    assert "token_duration" in bao(prepared, "token", "renew", token=sidecar)
    assert bao(prepared, "token", "revoke", "-self", token=sidecar).startswith("Success!")


# --- logging in ----------------------------------------------------------------------------------------------------


async def test_a_wrapped_secret_id_becomes_a_leaf(prepared: Prepared) -> None:
    async with issuing(prepared.settings(prepared.approle("web"))) as issuer:
        leaf = await first(issuer)
    assert leaf.spiffe_id == spiffe("web")
    assert timedelta(minutes=55) < leaf.not_after - datetime.now(UTC) < timedelta(minutes=61)
    chain = x509.load_pem_x509_certificates(leaf.chain_pem.encode())
    assert len(chain) == 2, "leaf and intermediate, no root"
    chain[0].verify_directly_issued_by(chain[1])
    assert b"PRIVATE KEY" in leaf.key_pem


async def test_a_plain_secret_id_will_do(prepared: Prepared) -> None:
    login = prepared.approle("web")
    unwrapped = prepared.vault.api("sys/wrapping/unwrap", "PUT", token=Path(login.secret_id_file).read_text().strip())
    Path(login.secret_id_file).write_text(unwrapped["data"]["secret_id"])
    async with issuing(prepared.settings(replace(login, wrapped=False))) as issuer:
        assert (await first(issuer)).spiffe_id == spiffe("web")


async def test_a_token_will_do_and_is_read_from_its_file(prepared: Prepared, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(prepared.token_of("web") + "\n")
    async with issuing(prepared.settings(LoginSettings("token", token_file=str(file)))) as issuer:
        assert (await first(issuer)).spiffe_id == spiffe("web")


def es256(key: ec.EllipticCurvePrivateKey, claims: dict[str, object]) -> str:
    def encode(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = encode(json.dumps({"alg": "ES256", "typ": "JWT"}).encode()) + "." + encode(json.dumps(claims).encode())
    r, s = decode_dss_signature(key.sign(head.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{head}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


@pytest.fixture(scope="module")
def jwt_key(prepared: Prepared) -> ec.EllipticCurvePrivateKey:
    """A mount of the jwt method that trusts this key, and a role whose alias is the claim `sub`."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    vault = prepared.vault
    vault.api("sys/auth/jwt", "PUT", {"type": "jwt"})
    vault.api("auth/jwt/config", "PUT", {"jwt_validation_pubkeys": [public.decode()]})
    role = {
        "role_type": "jwt",
        "user_claim": "sub",
        "bound_audiences": ["vault"],
        "bound_subject": "web",
        "token_policies": ["jwt-web"],
    }
    vault.api("auth/jwt/role/web", "PUT", role)
    uri = str(spiffe("web"))
    vault.api(
        "pki_mesh/roles/jwt-web",
        "PUT",
        {
            "allowed_uri_sans": [uri],
            "require_cn": False,
            "cn_validations": ["hostname"],
            "use_csr_common_name": False,
            "use_csr_sans": True,
            "key_type": "ec",
            "ttl": "1h",
            "no_store": True,
        },
    )
    policy = 'path "pki_mesh/sign/jwt-web" { capabilities = ["update"] }'
    vault.api("sys/policies/acl/jwt-web", "PUT", {"policy": policy})
    return key


ONLY_REAL = pytest.mark.parametrize("vault", ["real"], indirect=True)  # the embedded one has no jwt method


@ONLY_REAL
async def test_a_jwt_will_do(prepared: Prepared, jwt_key: ec.EllipticCurvePrivateKey, tmp_path: Path) -> None:
    file = tmp_path / "jwt"
    file.write_text(es256(jwt_key, {"sub": "web", "aud": "vault", "exp": int(time.time()) + 60}))
    login = LoginSettings("jwt", role="web", jwt_file=str(file))
    async with issuing(prepared.settings(login, role="jwt-web")) as issuer:
        assert (await first(issuer)).spiffe_id == spiffe("web")


# --- Kubernetes: the real method, whose cluster is ours --------------------------------------------------------------

ACCOUNT = {
    "iss": "kubernetes/serviceaccount",
    "sub": "system:serviceaccount:shop:web",
    "kubernetes.io/serviceaccount/namespace": "shop",
    "kubernetes.io/serviceaccount/service-account.name": "web",
    "kubernetes.io/serviceaccount/service-account.uid": "0f1e2d3c",
}


@contextlib.asynccontextmanager
async def cluster(known: str, reviewed: list[str]) -> AsyncIterator[str]:
    """Answer TokenReviews as a cluster's API does: only `known` is a token of its service accounts."""

    async def review(request: web.Request) -> web.Response:
        token = (await request.json())["spec"]["token"]
        reviewed.append(token)
        status: dict[str, Any] = {"authenticated": False, "error": "invalid bearer token"}
        if token == known:
            user = {"username": ACCOUNT["sub"], "uid": "0f1e2d3c", "groups": ["system:serviceaccounts"]}
            status = {"authenticated": True, "user": user}
        page = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}
        return web.json_response(page, status=201)

    async with serving(review, "/apis/authentication.k8s.io/v1/tokenreviews") as address:
        yield address


@contextlib.asynccontextmanager
async def serving(
    respond: Callable[[web.Request], Awaitable[web.Response]], where: str = "/{rest:.*}"
) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", where, respond)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@ONLY_REAL
async def test_a_service_account_of_kubernetes_logs_in_by_its_token(
    prepared: Prepared, jwt_key: ec.EllipticCurvePrivateKey, tmp_path: Path, authority: Authority
) -> None:
    """The server's own kubernetes method asks the cluster about the token that we sent."""
    good, reviewed = es256(jwt_key, {**ACCOUNT, "exp": int(time.time()) + 60}), list[str]()
    file = tmp_path / "service-account"
    file.write_text(good + "\n")
    vault = prepared.vault
    vault.api("sys/auth/kubernetes", "PUT", {"type": "kubernetes"})
    async with cluster(good, reviewed) as address:
        setting = {
            "kubernetes_host": address,
            "token_reviewer_jwt": "reviewer",
            "disable_local_ca_jwt": True,
            "kubernetes_ca_cert": authority.pem,
        }
        await asyncio.to_thread(vault.api, "auth/kubernetes/config", "PUT", setting)
        role = {
            "bound_service_account_names": ["web"],
            "bound_service_account_namespaces": ["shop"],
            "token_policies": ["jwt-web"],
        }
        vault.api("auth/kubernetes/role/web", "PUT", role)
        login = LoginSettings("kubernetes", role="web", jwt_file=str(file))
        async with issuing(prepared.settings(login, role="jwt-web")) as issuer:
            assert (await first(issuer)).spiffe_id == spiffe("web")
        assert reviewed == [good]
        file.write_text(es256(jwt_key, {**ACCOUNT, "exp": int(time.time()) + 61}))
        assert "refuses our token or credentials" in await refusal(prepared.settings(login, role="jwt-web"))


@ONLY_REAL
@pytest.mark.parametrize("claims", [{"sub": "db"}, {"aud": "other"}, {"exp": 1}])
async def test_a_jwt_that_does_not_fit_is_refused(
    prepared: Prepared, jwt_key: ec.EllipticCurvePrivateKey, tmp_path: Path, claims: dict[str, object]
) -> None:
    file = tmp_path / "jwt"
    file.write_text(es256(jwt_key, {"sub": "web", "aud": "vault", "exp": int(time.time()) + 60, **claims}))
    login = LoginSettings("jwt", role="web", jwt_file=str(file))
    assert await refusal(prepared.settings(login, role="jwt-web"))


async def test_a_client_certificate_will_do(tmp_path: Path, authority: Authority) -> None:
    files = {}
    server = authority.leaf("vault", Mistakes(ips=("127.0.0.1",)))
    login = authority.leaf("web", Mistakes(common_name="web"))
    for name, text in (
        ("ca", authority.pem),
        ("cert", server.chain_pem),
        ("key", server.key_pem.decode()),
        ("web", login.chain_pem),
        ("web-key", login.key_pem.decode()),
    ):
        files[name] = str(tmp_path / f"{name}.pem")
        Path(files[name]).write_text(text)
    with vault_server(files) as vault:
        vault.api("sys/auth/cert", "PUT", {"type": "cert"})
        vault.api("auth/cert/certs/web", "PUT", {"certificate": authority.pem, "token_policies": ["web"]})
        vault.api("sys/policies/acl/web", "PUT", {"policy": 'path "pki_mesh/sign/mesh" { capabilities = ["update"] }'})
        vault.api("sys/mounts/pki_mesh", "PUT", {"type": "pki"})
        root = {"common_name": "root", "key_type": "ec", "key_bits": 256, "ttl": "700h"}
        vault.api("pki_mesh/root/generate/internal", "PUT", root)
        role = {"allowed_uri_sans": [str(spiffe("web"))], "require_cn": False, "cn_validations": ["hostname"]}
        role.update(
            {"use_csr_sans": True, "use_csr_common_name": False, "key_type": "ec", "ttl": "1h", "no_store": True}
        )
        vault.api("pki_mesh/roles/mesh", "PUT", role)
        settings = LoginSettings("cert", role="web", cert_file=files["web"], key_file=files["web-key"])
        async with issuing(VaultSettings(vault.address, ca_file=files["ca"], login=settings)) as issuer:
            assert (await first(issuer)).spiffe_id == spiffe("web")
        wrong = LoginSettings("cert", role="web", cert_file=files["cert"], key_file=files["key"])
        async with issuing(VaultSettings(vault.address, ca_file="", login=wrong)) as issuer:
            with pytest.raises(TimeoutError):
                await first(issuer, seconds=1.5)
            assert "Vault cannot be asked" in issuer.status.error, "its CA is not trusted"


async def test_a_vault_that_is_not_there_is_told_in_a_word() -> None:
    (port,) = free_ports(1)
    login = LoginSettings("token", token="t")
    said = await refusal(VaultSettings(f"http://127.0.0.1:{port}", login=login))
    assert said == f"no Vault answers at 127.0.0.1:{port}: Connection refused"
    said = await refusal(VaultSettings("http://nobody.invalid:8200", login=login))
    assert said.startswith("no Vault answers at nobody.invalid:8200: ")


async def refusal(settings: VaultSettings, spiffe_id: SpiffeId | None = None) -> str:
    """Return what the issuer says when it gets no leaf."""
    async with issuing(settings) as issuer:
        waiting = asyncio.create_task(first(issuer, spiffe_id))
        try:
            await eventually(lambda: issuer.status.failures, 8)
            assert not waiting.done()
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        return issuer.status.error


async def test_a_wrapping_token_that_somebody_unwrapped_is_an_alarm(prepared: Prepared) -> None:
    login = prepared.approle("web")
    prepared.vault.api("sys/wrapping/unwrap", "PUT", token=Path(login.secret_id_file).read_text().strip())
    with capture_logs() as logs:
        told = await refusal(prepared.settings(login))
    assert "somebody else may have unwrapped it" in told or "was refused before" in told
    assert [entry["event"] for entry in logs].count("secret_id_intercepted") == 1


async def test_a_wrapping_token_of_another_place_is_refused(prepared: Prepared) -> None:
    login = prepared.approle("web")
    made = _wrapped(prepared, "sys/wrapping/wrap", {"secret_id": "x"})
    Path(login.secret_id_file).write_text(made)
    with capture_logs() as logs:
        await refusal(prepared.settings(login))
    assert "was made at sys/wrapping/wrap" in str(logs)


def _wrapped(prepared: Prepared, path: str, body: dict[str, str]) -> str:
    headers = {"X-Vault-Token": prepared.vault.token, "X-Vault-Wrap-TTL": "60s"}
    return str(http_json(f"{prepared.vault.address}/v1/{path}", "PUT", body, headers)["wrap_info"]["token"])


async def test_refused_credentials_are_not_sent_again_until_their_file_changes(prepared: Prepared) -> None:
    login = prepared.approle("web")
    good = Path(login.secret_id_file).read_text()
    Path(login.secret_id_file).write_text("hvs.nonsense")
    async with issuing(prepared.settings(login)) as issuer:
        waiting = asyncio.create_task(first(issuer, seconds=20))
        await eventually(lambda: "was refused before" in issuer.status.error, 8)
        Path(login.secret_id_file).write_text(good)
        assert (await waiting).spiffe_id == spiffe("web")


async def test_a_file_that_comes_late_is_waited_for(prepared: Prepared, tmp_path: Path) -> None:
    login = prepared.approle("web")
    late = tmp_path / "late"
    async with issuing(prepared.settings(replace(login, secret_id_file=str(late)))) as issuer:
        waiting = asyncio.create_task(first(issuer, seconds=20))
        await eventually(lambda: "No such file" in issuer.status.error, 8)
        late.write_text(Path(login.secret_id_file).read_text())
        assert (await waiting).spiffe_id == spiffe("web")


# --- what the role lets through --------------------------------------------------------------------------------------


def request(
    uris: Sequence[str] = (),
    *,
    common_name: str = "",
    key: Any = None,
    dns: Sequence[str] = (),
    ca: bool = False,
) -> str:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
    names += [x509.DNSName(name) for name in dns]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    key = key or ec.generate_private_key(ec.SECP256R1())
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM).decode()


WEB, DB = str(spiffe("web")), str(spiffe("db"))
HOSTILE = {
    "another-service": {"csr": request([DB])},
    "suffix": {"csr": request([f"{WEB}/x"])},
    "query": {"csr": request([f"{WEB}?x"])},
    "case": {"csr": request([WEB.replace("svc/web", "svc/WEB")])},
    "another-trust-domain": {"csr": request([WEB.replace(TRUST_DOMAIN, "other.consul")])},
    "another-datacenter": {"csr": request([WEB.replace("/dc/dc1/", "/dc/dc2/")])},
    "a-gateway": {"csr": request([f"spiffe://{TRUST_DOMAIN}/gateway/mesh/dc/dc1"])},
    "an-agent": {"csr": request([f"spiffe://{TRUST_DOMAIN}/agent/client/dc/dc1/id/n1"])},
    "both-services": {"csr": request([WEB, DB])},
    "a-name-beside": {"csr": request([WEB], dns=["web.example.com"])},
    "a-common-name": {"csr": request([WEB]), "common_name": "db"},
    "rsa": {"csr": request([WEB], key=rsa.generate_private_key(65537, 2048))},
    "ed25519": {"csr": request([WEB], key=ed25519.Ed25519PrivateKey.generate())},
    "own-end": {"csr": request([WEB]), "not_after": "2036-01-01T00:00:00Z"},
    "no-request": {"csr": "nonsense"},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_request_for_more_than_ones_own_identity_is_refused(prepared: Prepared, name: str) -> None:
    token = prepared.token_of("web")
    with pytest.raises(urllib.error.HTTPError) as caught:
        prepared.vault.api("pki_mesh/sign/mesh", "PUT", {"common_name": "", **HOSTILE[name]}, token=token)
    assert caught.value.code in {400, 403}


@pytest.mark.parametrize("path", ["pki_mesh/sign-verbatim", "pki_mesh/issue/mesh", "pki_mesh/root/sign-intermediate"])
def test_a_sidecar_may_ask_for_nothing_but_its_signature(prepared: Prepared, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        prepared.vault.api(path, "PUT", {"csr": request([WEB])}, token=prepared.token_of("web"))
    assert caught.value.code == 403


def test_a_request_to_be_a_ca_is_signed_as_a_leaf(prepared: Prepared) -> None:
    body = {"csr": request([WEB], ca=True), "common_name": ""}
    data = prepared.vault.api("pki_mesh/sign/mesh", "PUT", body, token=prepared.token_of("web"))["data"]
    certificate = x509.load_pem_x509_certificate(data["certificate"].encode())
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False


async def test_another_services_identity_is_refused_and_the_reason_told(prepared: Prepared) -> None:
    told = await refusal(prepared.settings(prepared.approle("web")), spiffe("db"))
    assert "Vault refuses the request" in told


async def test_a_role_that_is_not_there_is_told(prepared: Prepared) -> None:
    told = await refusal(prepared.settings(prepared.approle("web"), role="nothing"))
    assert "Vault refuses" in told


# --- renewal ---------------------------------------------------------------------------------------------------------


async def test_the_next_leaf_comes_before_the_last_one_ends(prepared: Prepared) -> None:
    async with issuing(prepared.settings(prepared.approle("web"), ttl="8s")) as issuer:
        stream = issuer.leaves(spiffe("web"))
        leaves = []
        async with asyncio.timeout(60):
            async for leaf in stream:
                leaves.append(leaf)
                if len(leaves) == 2:
                    break
        await stream.aclose()
    assert leaves[0].serial != leaves[1].serial
    assert leaves[0].key_pem != leaves[1].key_pem
    assert datetime.now(UTC) < leaves[0].not_after


async def test_a_token_with_a_short_life_is_renewed(prepared: Prepared, tmp_path: Path) -> None:
    parent = prepared.token_of("web")
    del parent
    made = prepared.vault.api(
        "auth/token/create", "PUT", {"policies": ["jwt-short"], "ttl": "4s", "period": "4s", "renewable": True}
    )
    policy = 'path "pki_mesh/sign/short" { capabilities = ["update"] }'
    prepared.vault.api("sys/policies/acl/jwt-short", "PUT", {"policy": policy})
    role = {
        "allowed_uri_sans": [WEB],
        "require_cn": False,
        "cn_validations": ["hostname"],
        "key_type": "ec",
        "ttl": "1h",
    }
    prepared.vault.api("pki_mesh/roles/short", "PUT", {**role, "use_csr_sans": True, "use_csr_common_name": False})
    file = tmp_path / "token"
    file.write_text(made["auth"]["client_token"])
    settings = prepared.settings(LoginSettings("token", token_file=str(file)), role="short", ttl="9s")
    async with issuing(settings) as issuer:
        stream = issuer.leaves(spiffe("web"))
        count = 0
        async with asyncio.timeout(90):
            async for _ in stream:
                count += 1
                if count == 2:
                    break
        await stream.aclose()
        assert issuer.status.failures == 0


async def test_a_sealed_vault_is_waited_for_and_told_once(prepared: Prepared) -> None:
    async with issuing(prepared.settings(prepared.approle("web"))) as issuer:
        with capture_logs() as logs:
            prepared.vault.seal()
            try:
                waiting = asyncio.create_task(first(issuer, seconds=40))
                await eventually(lambda: issuer.status.failures >= 3, 20)
            finally:
                prepared.vault.unseal()
            assert (await waiting).spiffe_id == spiffe("web")
    events = [entry["event"] for entry in logs if entry["event"].startswith("issuer_")]
    assert events == ["issuer_failing", "issuer_recovered"]


@contextlib.contextmanager
def short_lived_tokens(prepared: Prepared, service: str) -> Iterator[None]:
    """Let the tokens of a service end for good after 6 seconds, however often they are renewed."""
    where = f"auth/approle/role/{service}"
    limits = {"token_period": 0, "token_ttl": "4s", "token_max_ttl": "6s", "token_explicit_max_ttl": "6s"}
    prepared.vault.api(where, "PUT", limits)
    try:
        yield
    finally:
        unlimited = {"token_period": "72h", "token_ttl": 0, "token_max_ttl": 0, "token_explicit_max_ttl": 0}
        prepared.vault.api(where, "PUT", unlimited)


@contextlib.asynccontextmanager
async def kept_going(issuer: VaultIssuer, service: str) -> AsyncIterator[None]:
    """Have a first leaf and wait for the next, as a proxy does."""
    stream = issuer.leaves(spiffe(service))
    await anext(stream)
    waiting = asyncio.create_task(anext(stream))
    try:
        yield
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


def value(issuer: VaultIssuer) -> str:
    return issuer.session._token.value if issuer.session._token is not None else ""


async def test_a_token_at_its_greatest_age_is_followed_by_a_login_with_the_next_secret_id(prepared: Prepared) -> None:
    login, later = prepared.approle("db"), prepared.approle("db")  # made before the token's few seconds begin
    with short_lived_tokens(prepared, "db"), capture_logs() as logs:
        async with issuing(prepared.settings(login)) as issuer, kept_going(issuer, "db"):
            old = value(issuer)
            Path(login.secret_id_file).write_text(Path(later.secret_id_file).read_text())
            await eventually(lambda: value(issuer) not in {"", old}, 12)
            assert issuer.status.failures == 0
    assert [entry["event"] for entry in logs] == ["leaf_issued"], "a fresh one lay ready: nothing to tell"


async def test_a_wrapping_token_that_we_have_used_ourselves_is_no_alarm(prepared: Prepared) -> None:
    login = prepared.approle("db")
    with short_lived_tokens(prepared, "db"), capture_logs() as logs:
        async with issuing(prepared.settings(login)) as issuer, kept_going(issuer, "db"):
            old = value(issuer)
            await eventually(lambda: "has served us already" in issuer.status.error, 12)
            await eventually(lambda: issuer.status.failures >= 3, 12)
            Path(login.secret_id_file).write_text(Path(prepared.approle("db").secret_id_file).read_text())
            await eventually(lambda: not issuer.status.failures, 20)
            assert value(issuer) not in {"", old}
    assert [entry["event"] for entry in logs] == ["leaf_issued", "issuer_failing", "issuer_recovered"]


@pytest.mark.parametrize("page", ["", "{}", '{"data": {}}'])
async def test_a_redirect_to_another_host_takes_no_token_along(tmp_path: Path, page: str) -> None:
    """A standby may point elsewhere; so may anybody who stands between."""
    elsewhere, here = list[str](), list[str]()

    async def take(request: web.Request) -> web.Response:
        elsewhere.append(request.path)
        return web.json_response({"auth": {"client_token": "x", "lease_duration": 60, "renewable": False}})

    async with serving(take) as other:

        async def point(request: web.Request) -> web.Response:
            here.append(request.path)
            return web.Response(status=307, text=page, headers={"Location": f"{other}{request.path}"})

        async with serving(point) as address:
            (tmp_path / "token").write_text("s3cret-token")
            (tmp_path / "secret").write_text("s3cret-id")
            plain = {"role_id_file": str(tmp_path / "secret"), "secret_id_file": str(tmp_path / "secret")}
            for login in (
                LoginSettings("token", token_file=str(tmp_path / "token")),
                LoginSettings(wrapped=False, **plain),
                LoginSettings(wrapped=True, **plain),
                LoginSettings("jwt", role="web", jwt_file=str(tmp_path / "token")),
            ):
                told = await refusal(VaultSettings(address, login=login))
                assert "status 307" in told
                assert "s3cret" not in told
    assert here
    assert elsewhere == []


async def test_a_leaf_that_is_dated_back_is_not_asked_for_again_at_once(prepared: Prepared) -> None:
    """The role dates leaves back by 30 s; a leaf of 9 s lives 9 s from now, not 39."""
    with capture_logs() as logs:
        async with issuing(prepared.settings(prepared.approle("web"), ttl="9s")) as issuer, kept_going(issuer, "web"):
            left = (issuer.status.next_renewal or 0.0) - time.time()
            await asyncio.sleep(1)
    assert 3 < left < 6.5
    assert [entry["event"] for entry in logs].count("leaf_issued") == 1


async def test_no_secret_is_logged_or_shown(prepared: Prepared) -> None:
    login = prepared.approle("web")
    secret = Path(login.secret_id_file).read_text().strip()
    with capture_logs() as logs:
        async with issuing(prepared.settings(login)) as issuer:
            await first(issuer)
            shown = repr((issuer.session._token, issuer.status, issuer.session.settings, logs))
            assert issuer.session._token is not None
            assert issuer.session._token.value not in shown
    assert secret not in shown
    assert "PRIVATE" not in shown
