"""What a real gateway shows, from a real Vault and a real Consul: certificates of the edge, leaves of its links."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from harness.certificates import Authority, Mistakes
from harness.hellos import OF_CURL
from harness.servers import REPOSITORY, eventually
from harness.wire import App, Wire, say
from harness.world import GATEWAY, World, run_script, world
from lictor.up.ports import free_ports
from policies.edge.proxy_protocol import render_proxy_header
from policies.edge.server_certificates import ServerCertificate, read_server_certificate

OUTSIDE = Authority("the outside")
SERVICES = [{"Name": "web", "Hosts": ["web.example.com"]}]


@pytest.fixture(scope="module")
def mesh() -> Iterator[World]:
    with world() as running:
        run_script(
            ["vault/bootstrap.sh", "edge", GATEWAY, "example.com,ingress.consul,ingress.dc1.consul"],
            running.vault.environment,
        )
        running.proxies[GATEWAY].program.stop()
        yield running


def ingress(mesh: World, *listeners: dict[str, Any]) -> None:
    mesh.consul.write({"Kind": "ingress-gateway", "Name": GATEWAY, "Listeners": list(listeners)})


def listener(port: int, tls: dict[str, Any]) -> dict[str, Any]:
    return {"Port": port, "Protocol": "http", "TLS": tls, "Services": SERVICES}


@contextlib.contextmanager
def gateway(
    mesh: World, tls: dict[str, Any], kind: str = "ingress", more: Mapping[str, Any] = MappingProxyType({})
) -> Iterator[None]:
    """Run the gateway with this `tls`, and more, in its file."""
    (port,) = free_ports(1)
    settings = {"gateway": {"kind": kind, "service": GATEWAY, "address": f"127.0.0.1:{port}"}, "tls": tls, **more}
    proxy = mesh.start_proxy(GATEWAY, "gateway", settings, GATEWAY)
    try:
        proxy.wait_ready()
        yield
    finally:
        proxy.program.stop()


def shown(port: int, name: str, authority_pem: str) -> tuple[ServerCertificate, int, bytes]:
    """Return the certificate that a caller is shown, and status and body of the answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority_pem)
    with (
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        context.wrap_socket(plain, server_hostname=name) as sock,
    ):
        pem = ssl.DER_cert_to_PEM_cert(sock.getpeercert(binary_form=True) or b"")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.sock = sock
        connection.request("GET", "/", headers={"Host": "web.example.com"})
        answer = connection.getresponse()
        return read_server_certificate(pem, b"", "the gateway"), answer.status, answer.read()


def certificate() -> ServerCertificate:
    """Return one with a common name too, without which Consul takes no inline-certificate."""
    return OUTSIDE.server("web.example.com", mistakes=Mistakes(common_name="web.example.com"))


def of(mesh: World, reference: str) -> dict[str, Any]:
    """Return what /certs says of a certificate."""
    rows: Any = mesh.proxies[GATEWAY].admin("certs")
    return next((row for row in rows["edge"] if row["certificate"] == reference), {})


def nothing_secret(mesh: World) -> None:
    """No page of the admin endpoint and no log holds a key."""
    proxy = mesh.proxies[GATEWAY]
    pages = json.dumps([proxy.admin(page) for page in ("certs", "config_dump", "ready")])
    assert "PRIVATE" not in pages
    assert "PRIVATE" not in proxy.program.log


def test_vault_signs_what_the_file_names_and_what_consul_would_name(mesh: World) -> None:
    named, default = free_ports(2)
    tls = {"SDS": {"ClusterName": "any", "CertResource": "named"}}
    ingress(mesh, listener(named, tls), listener(default, {"SDS": {"ClusterName": "any", "CertResource": "default"}}))
    certificates = [
        {"name": "named", "vault_role": "edge", "names": ["web.example.com", "*.example.com"], "ttl": "10s"},
        {"name": "default", "vault_role": "edge"},
    ]
    root = mesh.vault.api("pki_edge/cert/ca")["data"]["certificate"]
    with gateway(mesh, {"certificates": certificates}):
        first, status, body = shown(named, "web.example.com", root)
        assert (first.names, status) == (("web.example.com", "*.example.com"), 200)
        assert b"web" in body
        consul, _, _ = shown(default, "anything.ingress.consul", root)
        assert set(consul.names) == {"*.ingress.consul", "*.ingress.dc1.consul", "web.example.com"}
        mesh.proxies[GATEWAY].program.wait_until(
            lambda: shown(named, "other.example.com", root)[0].serial != first.serial, 15
        )
        facts = of(mesh, "own named")
        assert (facts["names"], facts["ports"], facts["error"]) == (["web.example.com", "*.example.com"], [named], "")
        nothing_secret(mesh)


def test_a_role_that_does_not_sign_is_told_and_the_mesh_goes_on(mesh: World) -> None:
    closed, opened = free_ports(2)
    sds = [{"SDS": {"ClusterName": "any", "CertResource": name}} for name in ("wrong", "good")]
    ingress(mesh, listener(closed, sds[0]), listener(opened, sds[1]))
    certificates = [
        {"name": "wrong", "vault_role": "edge", "mount": "pki_of_others", "names": ["web.example.com"]},
        {"name": "good", "vault_role": "edge", "names": ["web.example.com"]},
    ]
    root = mesh.vault.api("pki_edge/cert/ca")["data"]["certificate"]
    with gateway(mesh, {"certificates": certificates}):
        assert shown(opened, "web.example.com", root)[1] == 200
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", closed), 1)
        assert "does not let us update pki_of_others/sign/edge" in of(mesh, "own wrong")["error"]
        ready: Any = mesh.proxies[GATEWAY].admin("ready")
        assert any("certificate own wrong" in problem for problem in ready["problems"])
        assert ready["leaf"] == "fresh"


def test_consuls_certificates_are_followed(mesh: World, tmp_path: Path) -> None:
    inline, files = free_ports(2)
    in_entry, in_files, next_one = (certificate() for _ in range(3))

    def put(name: str, pair: ServerCertificate) -> None:
        (tmp_path / f"{name}.pem").write_text(pair.chain_pem)
        (tmp_path / f"{name}.key").write_bytes(pair.key_pem)

    put("web", in_files)
    entry = {"Kind": "inline-certificate", "Name": "entry"}
    mesh.consul.write({**entry, "Certificate": in_entry.chain_pem, "PrivateKey": in_entry.key_pem.decode()})
    paths = {"Certificate": str(tmp_path / "web.pem"), "PrivateKey": str(tmp_path / "web.key")}
    mesh.consul.write({"Kind": "file-system-certificate", "Name": "files", **paths})
    mesh.consul.api(f"config/ingress-gateway/{GATEWAY}", "DELETE")
    listeners = [
        {"Name": kind, "Port": port, "Protocol": "http", "TLS": {"Certificates": [{"Kind": kind, "Name": name}]}}
        for kind, port, name in (("inline-certificate", inline, "entry"), ("file-system-certificate", files, "files"))
    ]
    mesh.consul.write({"Kind": "api-gateway", "Name": GATEWAY, "Listeners": listeners})
    route = {"Kind": "http-route", "Name": "all", "Parents": [{"Kind": "api-gateway", "Name": GATEWAY}]}
    mesh.consul.write({**route, "Rules": [{"Services": [{"Name": "web"}]}]})
    with gateway(mesh, {}, "api"):
        mesh.proxies[GATEWAY].program.wait_until(
            lambda: shown(inline, "web.example.com", OUTSIDE.pem)[0].serial == in_entry.serial, 10
        )
        found, status, _ = shown(files, "web.example.com", OUTSIDE.pem)
        assert (found.serial, status) == (in_files.serial, 200)
        put("web", next_one)
        mesh.consul.write({**entry, "Certificate": next_one.chain_pem, "PrivateKey": next_one.key_pem.decode()})
        running = mesh.proxies[GATEWAY].program
        running.wait_until(lambda: shown(inline, "web.example.com", OUTSIDE.pem)[0].serial == next_one.serial, 10)
        running.wait_until(lambda: shown(files, "web.example.com", OUTSIDE.pem)[0].serial == next_one.serial, 10)
        with urllib.request.urlopen(f"http://127.0.0.1:{mesh.proxies[GATEWAY].admin_port}/metrics", timeout=5) as page:
            text = page.read().decode()
        assert 'lictor_edge_certificate_seconds_left{certificate="inline-certificate entry"}' in text
        nothing_secret(mesh)


def test_passthrough_and_proxy_headers_reach_real_services(mesh: World) -> None:
    """By the gateway's file alone: the services are its upstreams, and their intentions hold for it."""
    plain, secret = free_ports(2)
    ingress(mesh, http_listener(plain))
    more = {
        "passthrough": [{"port": secret, "sni": "db.example.com", "service": "db"}],
        "proxy_protocol": {"accept_from": ["127.0.0.0/8"], "ports": [plain, secret], "send_to": ["db"], "version": 1},
    }
    header = render_proxy_header(2, ("198.51.100.7", 4711), ("192.0.2.80", 443))
    with gateway(mesh, {}, more=more):
        mesh.proxies[GATEWAY].program.wait_until(lambda: spoken(plain, header + ASKS).startswith(b"HTTP/1.1 200 "), 15)
        limits = Path(f"/proc/{mesh.proxies[GATEWAY].program.pid}/limits").read_text()
        (files,) = (line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files"))
        assert files[0] == files[1]
        told = spoken(plain, header + ASKS).lower()
        assert b'["x-forwarded-for", "198.51.100.7"]' in told
        assert spoken(plain, ASKS) == b""
        assert spoken(secret, header + OF_CURL) == b""  # the gateway may not call db yet
        sources = [{"Name": name, "Action": "allow"} for name in ("web", GATEWAY)]
        mesh.consul.write({"Kind": "service-intentions", "Name": "db", "Sources": sources})
        expected = f"db: PROXY TCP4 198.51.100.7 127.0.0.1 4711 {secret}\r\ndb: ".encode() + OF_CURL[:5]
        mesh.proxies[GATEWAY].program.wait_until(lambda: spoken(secret, header + OF_CURL).startswith(expected), 15)


ASKS = b"GET /tell HTTP/1.1\r\nHost: web.example.com\r\nConnection: close\r\n\r\n"


def http_listener(port: int) -> dict[str, Any]:
    return {"Port": port, "Protocol": "http", "Services": SERVICES}


def spoken(port: int, data: bytes) -> bytes:
    """Return all that is answered to these bytes. HTTP ends by itself; of tcp this end must say that it is done."""
    found = b""
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.sendall(data)
        if not data.endswith(ASKS):
            sock.shutdown(socket.SHUT_WR)
        while piece := sock.recv(65536):
            found += piece
    return found


# --- leaves of the services that a terminating gateway stands for ----------------------------------------------------


def prepare_egress(mesh: World) -> None:
    """Give the terminating gateway `out` a role of Vault's and a token of Consul's, as an operator does."""
    scripts = (
        ["vault/bootstrap.sh", "mesh", mesh.trust_domain, "dc1", "out"],
        ["vault/bootstrap.sh", "egress", mesh.trust_domain, "dc1", "out", "ext"],
    )
    for script in scripts:
        run_script(script, {**mesh.vault.environment, "LEAF_TTL": "20s"})
    rules = (REPOSITORY / "consul" / "policies" / "gateway.hcl.tmpl").read_text().replace("SERVICE", "out")
    mesh.consul.api("acl/policy", "PUT", {"Name": "out", "Rules": rules})
    made = mesh.consul.api("acl/token", "PUT", {"Policies": [{"Name": "out"}]})
    mesh.token_file("out").write_text(made["SecretID"])


async def test_leaves_of_linked_services_come_from_vault_and_one_that_does_not_costs_only_itself(mesh: World) -> None:
    """`ext` is in the gateway's role, `other` is not."""
    prepare_egress(mesh)
    (port,) = free_ports(1)
    async with App(say(b"outside")).running() as app:
        for name in ("ext", "other"):
            service = {"ID": name, "Service": name, "Port": app.port}
            mesh.consul.api("catalog/register", "PUT", {"Node": "outside", "Address": "127.0.0.1", "Service": service})
            mesh.consul.write({"Kind": "service-defaults", "Name": name, "Protocol": "http"})
            sources = [{"Name": "web", "Action": "allow"}]
            mesh.consul.write({"Kind": "service-intentions", "Name": name, "Sources": sources})
        links = [{"Name": "ext"}, {"Name": "other"}]
        mesh.consul.write({"Kind": "terminating-gateway", "Name": "out", "Services": links})
        settings = {"gateway": {"kind": "terminating", "service": "out", "address": f"127.0.0.1:{port}"}}
        proxy = mesh.start_proxy("out", "gateway", settings, "out", "egress-out")
        proxy.wait_ready()
        ready: Any = proxy.admin("ready")
        assert ["leaf of other" in problem for problem in ready["problems"]] == [True]

        upstreams = {"ext": free_ports(1)[0], "other": free_ports(1)[0]}
        stanzas = [{"DestinationName": name, "LocalBindPort": bind} for name, bind in upstreams.items()]
        registered = mesh.consul.api("agent/service/web-1-sidecar-proxy")
        definition = {
            **{key: registered[key] for key in ("Kind", "ID", "Address", "Port")},
            "Name": registered["Service"],
            "Proxy": {**registered["Proxy"], "Upstreams": [*registered["Proxy"]["Upstreams"], *stanzas]},
        }
        mesh.consul.api("agent/service/register", "PUT", definition)
        await eventually(lambda: answer(upstreams["ext"]), 20)
        assert await answer(upstreams["ext"]) == (200, b"outside")
        first = serial(proxy)
        await eventually(lambda: serial(proxy) != first, 20, every=0.5)
        assert await answer(upstreams["ext"]) == (200, b"outside")
        assert (await answer(upstreams["other"]) or (0,))[0] == 503
        assert len(app.requests) == 3
        assert "PRIVATE" not in proxy.program.log
        proxy.program.stop()


def serial(proxy: Any) -> str:
    certificates: Any = proxy.admin("certs")
    assert set(certificates["linked"]) == {"ext"}
    return str(certificates["linked"]["ext"]["serial"])


async def answer(port: int) -> tuple[int, bytes] | None:
    with contextlib.suppress(ConnectionError):
        async with await Wire.open(port) as wire:
            said = await wire.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            return said.status, said.body
    return None
