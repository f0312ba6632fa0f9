from __future__ import annotations

from pathlib import Path

import pytest

from policies.errors import ConfigError
from sidecar.config import read_sidecar
from sidecar.settings import parse_address

GOOD = """
service:
  name: web
  id: web-1
  port: 9090
  address: 192.0.2.1
  tags: [a, b]
  meta: {version: v1, build: 7}
  weights: {passing: 5, warning: 2}
  check: {http: "http://127.0.0.1:9090/health", interval: 2s, deregister_critical_service_after: 10m}
  connect:
    sidecar_service:
      port: 21000
      proxy:
        config: {local_connect_timeout_ms: 100}
        upstreams:
          - {destination_name: api, local_bind_port: 9191, config: {protocol: http}}
consul: {address: "https://consul.example:8501", tls_server_name: server.dc1.consul}
issuer: vault
vault:
  address: https://vault.example:8200
  role: mesh
  auth: {method: approle, role_id_file: /run/role-id, secret_id_file: /run/secret-id}
admin: 127.0.0.1:19001
drain: 1m
log: {level: debug, json: false}
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "web.yaml"
    file.write_text(text)
    return file


def problems(folder: Path, text: str, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_sidecar(written(folder, text), environment or {})
    return [str(problem) for problem in caught.value.problems]


def test_everything_is_read(tmp_path: Path) -> None:
    settings = read_sidecar(written(tmp_path, GOOD), {})
    service, proxy = settings.definitions
    assert (service["ID"], service["Port"], service["Meta"]) == ("web-1", 9090, {"version": "v1", "build": "7"})
    assert service["Checks"] == [
        {"HTTP": "http://127.0.0.1:9090/health", "Interval": "2s", "DeregisterCriticalServiceAfter": "10m"}
    ]
    assert (proxy["ID"], proxy["Port"], proxy["Address"]) == ("web-1-sidecar-proxy", 21000, "192.0.2.1")
    assert proxy["Weights"] == {"Passing": 5, "Warning": 2}
    assert proxy["Tags"] == ["a", "b"]
    assert proxy["Proxy"]["DestinationServiceID"] == "web-1"
    assert proxy["Proxy"]["Config"] == {"local_connect_timeout_ms": 100}
    assert proxy["Proxy"]["Upstreams"][0]["Config"] == {"protocol": "http"}
    assert settings.consul.base_url == "https://consul.example:8501"
    assert settings.vault is not None
    assert settings.vault.login.method == "approle"
    assert (settings.admin, settings.drain_seconds) == (("127.0.0.1", 19001), 60.0)
    assert (settings.log_level, settings.log_json) == ("debug", False)


def test_a_little_is_enough(tmp_path: Path) -> None:
    text = "service: {name: web, port: 9090, connect: {sidecar_service: {port: 21000}}}\n"
    settings = read_sidecar(written(tmp_path, text), {"CONSUL_HTTP_ADDR": "127.0.0.1:8501"})
    assert settings.vault is None
    assert settings.definitions[0]["ID"] == "web"
    assert settings.consul.base_url == "http://127.0.0.1:8501"
    assert settings.admin == ("127.0.0.1", 19000)


def test_the_admin_endpoint_may_be_off(tmp_path: Path) -> None:
    text = "service: {name: web, port: 9090, connect: {sidecar_service: {port: 21000}}}\nadmin: off\n"
    assert read_sidecar(written(tmp_path, text), {}).admin is None


def test_every_mistake_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    told = problems(
        tmp_path,
        """
service:
  name: we b
  port: 99999
  prot: http
  meta: [1]
  weights: {passing: many}
  connect:
    sidecar_service:
      port: yes
      proxy:
        upstreams:
          - {destination_name: api}
          - {local_bind_port: 0}
          - text
consul: {address: "::::", ca_file: /nowhere/ca.pem}
issuer: vault
admin: everywhere
drain: soon
log: {level: loud, json: maybe}
surplus: 1
""",
    )
    text = "\n".join(told)
    for word in (
        "web.yaml:3: service.name: 'we b' cannot name a service",
        "web.yaml:4: service.port: 99999 is not a port",
        "did you mean `port`",
        "service.meta: expected a mapping",
        "service.weights.passing: expected a whole number, found 'many'",
        "service.connect.sidecar_service.port",
        "local_bind_port: is missing",
        "destination_name: is missing",
        "consul.address: '::::' is not an address",
        "consul.ca_file: /nowhere/ca.pem is not there",
        "issuer: is vault, but there is no `vault` block",
        "admin: 'everywhere' is not host:port",
        "drain: 'soon' is not a duration",
        "log.level: 'loud' is not one of",
        "log.json: expected true or false",
        "surplus",
    ):
        assert word in text, f"{word!r} is not told in:\n{text}"
    assert all(problem.startswith(str(tmp_path)) for problem in told), text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a mapping"),
        ("- a\n- b\n", "expected a mapping"),
        ("service: {name: [}\n", "this is not YAML"),
        ("service: {name: web\n", "this is not YAML"),
        ("a: \x07b\n", "not YAML"),
    ],
)
def test_what_is_no_mapping_or_no_yaml_is_told(tmp_path: Path, text: str, message: str) -> None:
    (told,) = problems(tmp_path, text)
    assert message in told


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_sidecar(tmp_path / "nothing.yaml", {})


def test_what_vault_needs_depends_on_the_method(tmp_path: Path) -> None:
    base = "service: {name: web, port: 1, connect: {sidecar_service: {port: 2}}}\nissuer: vault\n"
    for method, missing in (
        ("jwt", "jwt_file"),
        ("kubernetes", "role"),
        ("cert", "cert_file"),
        ("token", "token_file"),
    ):
        told = problems(tmp_path, base + f"vault: {{address: 'http://v:8200', auth: {{method: {method}}}}}\n")
        assert any(missing in problem for problem in told), (method, told)
    assert (
        "is not a URL"
        in problems(tmp_path, base + "vault: {address: nonsense, auth: {method: token, token_file: /x}}\n")[0]
    )


def test_two_upstreams_cannot_share_a_port(tmp_path: Path) -> None:
    rows = "[{destination_name: a, local_bind_port: 1}, {destination_name: b, local_bind_port: 1}]"
    text = f"service: {{name: web, port: 1, connect: {{sidecar_service: {{port: 2, proxy: {{upstreams: {rows}}}}}}}}}\n"
    assert "127.0.0.1:1 is bound twice" in problems(tmp_path, text)[0]


def test_an_address_that_nobody_can_dial_is_told(tmp_path: Path) -> None:
    text = "service: {name: web, port: 1, address: 0.0.0.0, connect: {sidecar_service: {port: 2}}}\n"
    assert any("cannot be dialled" in problem for problem in problems(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        (":19000", ("127.0.0.1", 19000)),
        ("[::1]:80", ("::1", 80)),
        ("h:65535", ("h", 65535)),
    ],
)
def test_addresses_are_read(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["", "127.0.0.1", "h:0", "h:65536", "h:x"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=".*"):
        parse_address(text)
