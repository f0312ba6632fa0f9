from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.consul_settings import Token
from lictor.cli import _settings, build_parser, main
from lictor.flags import ignored
from policies.errors import ConfigError
from policies.snapshot import Role
from sidecar.settings import ProcessSettings


def settings(*words: str, **environment: str) -> ProcessSettings:
    return _settings(build_parser().parse_args(words), environment)


@pytest.mark.parametrize(
    "words",
    [
        ("-sidecar-for", "web-1"),
        ("--sidecar-for", "web-1"),
        ("-sidecar-for=web-1",),
        ("--sidecar-for=web-1",),
    ],
)
def test_flags_are_taken_as_consuls_command_line_takes_them(words: tuple[str, ...]) -> None:
    assert settings("sidecar", *words).sidecar_for == "web-1"


def test_the_environment_of_consul_is_taken(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    found = settings(
        "sidecar",
        "-sidecar-for",
        "web-1",
        CONSUL_HTTP_ADDR="10.0.0.1:8500",
        CONSUL_HTTP_TOKEN_FILE=str(token),
        CONSUL_HTTP_SSL="true",
    )
    assert found.consul.base_url == "https://10.0.0.1:8500"
    assert Token(found.consul).current() == "secret"
    assert "secret" not in repr(found)


def test_a_flag_wins_over_the_environment() -> None:
    found = settings("sidecar", "--proxy-id", "p", "--http-addr", "b:1", CONSUL_HTTP_ADDR="a:1")
    assert found.consul.base_url == "http://b:1"


def test_a_gateway_is_registered_with_consuls_flags() -> None:
    found = settings(
        "gateway",
        "-gateway=ingress",
        "-service",
        "edge",
        "-register",
        "-address",
        "192.0.2.1:8443",
        "-admin-bind",
        ":19005",
    )
    (definition,) = found.definitions
    assert (found.role, definition["Name"], definition["Port"]) == (Role.INGRESS, "edge", 8443)
    assert found.admin == ("127.0.0.1", 19005)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sidecar",), "which sidecar is this to be"),
        (("sidecar", "--sidecar-for", "a", "--proxy-id", "b"), "which sidecar is this to be"),
        (("gateway",), "--gateway: is missing"),
        (("gateway", "-gateway", "ingress", "-register"), "--address: is needed to register"),
        (("gateway", "-gateway", "ingress", "-register", "-address", "x"), "'x' is not host:port"),
        (("sidecar", "-proxy-id", "p", "-admin-bind", "x"), "--admin-bind"),
        (("sidecar", "-proxy-id", "p", "-token", "secret"), "can be read by every user"),
        (("sidecar", "-proxy-id", "p", "-http-addr", "::::"), "is not an address"),
        (("sidecar", "-proxy-id", "p", "-namespace", "other"), "Consul Enterprise"),
        (("sidecar", "-proxy-id", "p", "-issuer", "vault"), "vault is not configured"),
    ],
)
def test_wrong_flags_are_told_with_a_cure(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(*words)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_exit_code_of_wrong_input_is_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "web.yaml"
    file.write_text("service: {name: web}\n")
    assert main(["sidecar", "--config", str(file)], {}) == 2
    told = capsys.readouterr().err
    assert f"lictor: {file}:1: service.port: is missing" in told


def test_settings_can_be_checked_without_running(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "web.yaml"
    file.write_text("service: {name: web, port: 1, connect: {sidecar_service: {port: 2}}}\n")
    assert main(["sidecar", "--config", str(file), "--check"], {}) == 0
    assert "good" in capsys.readouterr().out


def test_vault_in_the_environment_is_used_only_when_it_is_meant_for_us() -> None:
    assert settings("sidecar", "-proxy-id", "p", VAULT_ADDR="http://v:8200").vault is None
    meant = {
        "VAULT_ADDR": "http://v:8200",
        "LICTOR_VAULT_ROLE": "mesh",
        "LICTOR_VAULT_AUTH": "token",
        "VAULT_TOKEN": "s3cret",
    }
    found = settings("sidecar", "-proxy-id", "p", **meant)
    assert found.vault is not None
    assert "s3cret" not in repr(found)
    assert settings("sidecar", "-proxy-id", "p", "-issuer", "consul", **meant).vault is None
    with pytest.raises(ConfigError, match="role_id_file"):
        settings("sidecar", "-proxy-id", "p", VAULT_ADDR="http://v:8200", LICTOR_VAULT_ROLE="mesh")


def test_what_only_envoy_understands_is_taken_and_told() -> None:
    arguments = build_parser().parse_args(
        ["sidecar", "-proxy-id", "p", "-grpc-addr", "x:1", "-ignore-envoy-compatibility"]
    )
    assert ignored(arguments) == ["--grpc-addr", "--ignore-envoy-compatibility"]


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"], {})
    assert capsys.readouterr().out.startswith("lictor ")
