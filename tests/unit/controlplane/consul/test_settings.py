from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from controlplane.consul.settings import ConsulSettings, Token, consul_settings
from harness.certificates import Authority
from policies.errors import ConfigError


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, "http://127.0.0.1:8500"),
        ({"CONSUL_HTTP_ADDR": "consul.example"}, "http://consul.example:8500"),
        ({"CONSUL_HTTP_ADDR": "10.0.0.1:8501", "CONSUL_HTTP_SSL": "true"}, "https://10.0.0.1:8501"),
        ({"CONSUL_HTTP_ADDR": "https://c:8501/"}, "https://c:8501"),
        ({"CONSUL_HTTP_ADDR": "http://c"}, "http://c"),
        ({"CONSUL_HTTP_ADDR": "unix:///run/consul.sock"}, "http://localhost"),
    ],
)
def test_addresses_are_read_as_consul_reads_them(environment: dict[str, str], url: str) -> None:
    assert consul_settings(environment).base_url == url


def test_a_unix_socket_is_local() -> None:
    settings = consul_settings({"CONSUL_HTTP_ADDR": "unix:///run/consul.sock"})
    assert (settings.socket_path, settings.is_local) == ("/run/consul.sock", True)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1:8500", True),
        ("localhost:8500", True),
        ("[::1]:8500", True),
        ("10.0.0.1:8500", False),
        ("c:8500", False),
    ],
)
def test_what_only_this_machine_reaches_is_known(address: str, local: bool) -> None:  # noqa: FBT001
    assert ConsulSettings(address).is_local is local


def test_every_mistake_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        consul_settings(
            {
                "CONSUL_HTTP_ADDR": "ftp://x",
                "CONSUL_HTTP_TOKEN_FILE": str(tmp_path / "none"),
                "CONSUL_CACERT": str(tmp_path / "none"),
                "CONSUL_NAMESPACE": "team",
                "CONSUL_PARTITION": "other",
            }
        )
    assert [problem.where for problem in caught.value.problems] == [
        "CONSUL_HTTP_ADDR",
        "CONSUL_HTTP_TOKEN_FILE",
        "CONSUL_CACERT",
        "CONSUL_NAMESPACE",
        "CONSUL_PARTITION",
    ]


def test_a_token_file_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    token = Token(consul_settings({"CONSUL_HTTP_TOKEN_FILE": str(file), "CONSUL_HTTP_TOKEN": "other"}))
    assert token.current() == "one"
    file.write_text("two")
    assert token.current() == "two"


def empty(file: Path) -> None:
    file.write_text(" \n")


def remove(file: Path) -> None:
    file.unlink()


def make_unreadable(file: Path) -> None:
    file.unlink()
    file.mkdir()


def fill_with_no_text(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")


@pytest.mark.parametrize("spoil", [empty, remove, make_unreadable, fill_with_no_text])
def test_a_token_file_that_fails_leaves_the_last_token_and_is_told_once(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    token = Token(ConsulSettings(token_file=str(file)))
    assert token.current() == "one"
    with capture_logs() as logs:
        spoil(file)
        assert [token.current() for _ in range(3)] == ["one"] * 3
        if file.is_dir():
            file.rmdir()
        file.write_text("two")
        assert [token.current() for _ in range(3)] == ["two"] * 3
    assert [entry["event"] for entry in logs] == ["token_file_failing", "token_file_recovered"]
    assert logs[0]["effect"] == "the last token stays"
    assert "one" not in str(logs)


def test_a_token_file_that_is_empty_from_the_start_is_told(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.touch()
    with capture_logs() as logs:
        assert Token(ConsulSettings(token_file=str(file))).current() == ""
    assert logs[0]["effect"] == "requests go without a token"


def test_no_secret_is_shown() -> None:
    settings = consul_settings({"CONSUL_HTTP_TOKEN": "s3cret", "CONSUL_HTTP_AUTH": "user:s3cret"})
    token = Token(settings)
    assert token.current() == "s3cret"
    assert "s3cret" not in repr((settings, token))


def test_tls_files_are_loaded_or_told(tmp_path: Path, authority: Authority) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text(authority.pem)
    assert consul_settings({}).ssl_context() is None
    context = consul_settings({"CONSUL_HTTP_ADDR": "https://c:1", "CONSUL_CACERT": str(ca)}).ssl_context()
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    careless = consul_settings({"CONSUL_HTTP_ADDR": "https://c:1", "CONSUL_HTTP_SSL_VERIFY": "false"}).ssl_context()
    assert careless is not None
    assert careless.verify_mode is ssl.CERT_NONE
    ca.write_text("garbage")
    with pytest.raises(ConfigError, match="CONSUL_CACERT"):
        consul_settings({"CONSUL_HTTP_ADDR": "https://c:1", "CONSUL_CACERT": str(ca)}).ssl_context()
    with pytest.raises(ConfigError):
        consul_settings({"CONSUL_HTTP_ADDR": "https://c:1", "CONSUL_CLIENT_CERT": str(ca)}).ssl_context()
