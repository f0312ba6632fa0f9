from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.consul.settings import Token
from controlplane.registration import seed
from lictor.cli import COMMANDS, PROXIES, _settings, build_parser, main
from lictor.flags import ignored, pair, unsigned
from policies.errors import ConfigError
from policies.proxies import parse_registration
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


def test_a_flag_wins_over_the_file_and_the_file_over_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "edge.yaml"
    file.write_text("gateway: {service: edge, address: '192.0.2.1:8443'}\nconsul: {address: 'b:1'}\n")
    words = ("gateway", "--config", str(file))
    assert settings(*words, "--http-addr", "c:1", CONSUL_HTTP_ADDR="a:1").consul.base_url == "http://c:1"
    assert settings(*words, CONSUL_HTTP_ADDR="a:1").consul.base_url == "http://b:1"
    with pytest.raises(ConfigError, match="CONSUL_HTTP_ADDR: '::::' is not an address"):
        settings(*words, "--http-addr", "::::")


def test_what_a_file_says_is_not_said_by_flags_too(tmp_path: Path) -> None:
    words = ("gateway", "--config", str(tmp_path / "edge.yaml"), "--gateway=api", "--register", "--admin-bind=off")
    with pytest.raises(ConfigError) as caught:
        settings(*words)
    assert [problem.where for problem in caught.value.problems] == ["--gateway", "--register"]


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
    assert "TaggedAddresses" not in definition


def test_a_gateway_listens_where_it_is_told_to() -> None:
    words = ("gateway", "-gateway=ingress", "-register", "-address=192.0.2.1:8443")
    (definition,) = settings(*words, "-bind-address=a=0.0.0.0:8443", "-bind-address", "b=[::1]:1").definitions
    registration = parse_registration(seed(definition, "dc1", ""))
    assert (registration.address, registration.gateway_addresses) == ("192.0.2.1", ("0.0.0.0", "::1"))
    assert settings(*words).definitions[0].get("Proxy") is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("-register", "-address=192.0.2.1:8443", "-bind-address=0.0.0.0:8443"),
            "has no name; write public=0.0.0.0:8443",
        ),
        (("-register", "-address=192.0.2.1:8443", "-bind-address=a=0.0.0.0"), "is not host:port"),
        (("-bind-address=a=0.0.0.0:1",), "is part of what an ingress or api gateway registers"),
        (("-gateway=terminating", "-register", "-address=192.0.2.1:1", "-bind-address=a=0.0.0.0:1"), "is part of what"),
    ],
)
def test_addresses_to_listen_on_that_cannot_be_are_told(words: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        settings("gateway", "-gateway=ingress", *words)


def test_a_gateway_tells_its_address_to_other_datacenters() -> None:
    words = ["gateway", "-gateway=ingress", "-register=true", "-address", "192.0.2.1:8443"]
    (definition,) = settings(*words, "-wan-address=198.51.100.1:443", "-deregister-after-critical=1h").definitions
    assert definition["TaggedAddresses"]["wan"] == {"Address": "198.51.100.1", "Port": 443}
    assert definition["TaggedAddresses"]["lan"] == {"Address": "192.0.2.1", "Port": 8443}
    assert definition["Checks"][0]["DeregisterCriticalServiceAfter"] == "1h"


def test_what_is_meant_for_envoy_behind_two_dashes_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sidecar", "-proxy-id", "p", "-check", "--", "-l", "debug"], {}) == 0
    assert "good" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sidecar",), "which sidecar is this to be"),
        (("sidecar", "--sidecar-for", "a", "--proxy-id", "b"), "which sidecar is this to be"),
        (("gateway",), "--gateway: is missing"),
        (("gateway", "-gateway", "ingress", "-register"), "--address: is needed to register"),
        (("gateway", "-gateway", "ingress", "-register", "-address", "x"), "'x' is not host:port"),
        (("gateway", "-gateway", "ingress", "-register", "-address", "{{GetPrivateIP}}:1"), "is not host:port"),
        (("sidecar", "-proxy-id", "p", "-bootstrap"), "there is no Envoy to write a configuration for"),
        (("gateway", "-gateway", "ingress", "-mesh-gateway"), "mesh gateways are not supported"),
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


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('Kind = "service-spliter"', ":1: invalid config entry kind: service-spliter; did you mean service-splitter?"),
        ('Name = "a"', ': Payload does not contain a kind/Kind key at the top level; write Kind = "service-defaults"'),
        (
            'Kind = "service-splitter"\nSplits = [{ Weight = 50 },\n{ Wieght = 50 }]',
            ':3: invalid config key "Splits[1].Wieght"; did you mean Weight?',
        ),
        (
            'Kind = "service-resolver"\nSubsets = { "v1.x" = { only_pasing = true } }',
            ':2: invalid config key "Subsets[v1.x].only_pasing"; did you mean OnlyPassing?',
        ),
        ('Kind = "mesh"\nwhatever = 1', ':2: invalid config key "whatever"; known here: TransparentProxy, Allow'),
        (
            'Kind = "ingress-gateway"\nListeners = [{ Services = [{ Namespace = "x" }] }]',
            ':2: invalid config key "Listeners[0].Services[0].Namespace", namespaces are a consul enterprise feature\n',
        ),
    ],
)
def test_what_is_misspelt_in_an_entry_is_told_with_its_place_and_what_was_meant(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, told: str
) -> None:
    file = tmp_path / "entry.hcl"
    file.write_text(text)
    assert main(["config", "write", str(file)], {}) == 1
    assert f"{file}{told}" in capsys.readouterr().err


def test_every_misspelt_field_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "entry.hcl"
    file.write_text('Kind = "service-splitter"\nNmae = "api"\nSplitz = []')
    assert main(["config", "write", str(file)], {}) == 1
    assert [line.rpartition("; ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "did you mean Name?",
        "did you mean Splits?",
    ]


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


def every_word(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from every_word(below)


WORDS = {parser.prog: parser for parser in every_word(build_parser())}


def examples(parser: argparse.ArgumentParser) -> list[str]:
    """Return the command lines under a help, without what is said about them."""
    lines = [re.split(r"\s{2,}| > ", line.strip())[0] for line in (parser.epilog or "").splitlines()[1:]]
    return [command for line in lines for command in line.split(" && ")]


@pytest.mark.parametrize("prog", WORDS)
def test_every_help_has_examples_and_every_flag_a_text(prog: str) -> None:
    parser = WORDS[prog]
    assert parser.description
    assert (parser.epilog or "").startswith("examples:\n")
    silent = [
        action.option_strings or action.dest
        for action in parser._actions
        if not action.help and not isinstance(action, argparse._SubParsersAction)
    ]
    assert silent == []
    assert prog in parser.format_help()


@pytest.mark.parametrize("prog", WORDS)
def test_every_example_is_a_line_that_can_be_typed(prog: str) -> None:
    lines = examples(WORDS[prog])
    assert lines
    for line in lines:
        first, *words = shlex.split(line)
        assert first == "lictor"
        assert build_parser(words[0]).parse_args(words).word == words[0]
    assert prog == "lictor" or any(line.startswith(prog) for line in lines)


def test_a_known_first_word_brings_the_same_word_as_all_of_them_together() -> None:
    tops = [prog.split()[1] for prog in WORDS if prog.count(" ") == 1]
    assert set(tops) == {*PROXIES, *COMMANDS}
    for top in tops:
        alone = {parser.prog: parser.format_help() for parser in every_word(build_parser(top))}
        for prog in [prog for prog in WORDS if prog.split()[1:2] == [top]]:
            assert alone[prog] == WORDS[prog].format_help()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["frobnicate"], 2),
        (["sidecar", "--frobnicate"], 2),
        (["config"], 1),
        (["config", "frobnicate"], 1),
        (["config", "list", "--frobnicate"], 1),
        (["config", "list", "-token", "secret", "-kind", "mesh"], 1),
        (["intention", "check", "--frobnicate"], 2),
        (["intention", "check", "a", "b", "-http-addr", "ftp://x"], 2),
        (["services", "register", "-meta", "nope"], 1),
    ],
)
def test_wrong_words_end_with_the_code_of_the_stock_command_line(
    words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        ended = main(words, {})
    except SystemExit as left:
        ended = int(left.code or 0)
    told = capsys.readouterr()
    assert (ended, told.out) == (code, "")
    assert told.err.startswith("lictor")
    assert "secret" not in told.err


@pytest.mark.parametrize("help_flag", ["-h", "--help", "-help"])
def test_help_is_output_and_no_error(help_flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["config", "write", help_flag], {})
    assert left.value.code == 0
    assert "examples:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", False),
        ("-cas", True),
        ("--cas", True),
        ("-cas=true", True),
        ("--cas=T", True),
        ("-cas=1", True),
        ("-cas=false", False),
        ("--cas=F", False),
        ("-cas -cas=0", False),
        ("-cas=false --cas=True", True),
    ],
)
def test_a_switch_is_set_as_go_sets_it(text: str, *, value: bool) -> None:
    assert build_parser("config").parse_args(["config", "write", *text.split(), "a.hcl"]).cas is value


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("42", 42), ("0x10", 16)])
def test_an_index_is_a_number_from_0_on(text: str, number: int) -> None:
    assert unsigned(text) == number


@pytest.mark.parametrize("text", ["", "-1", "x", "1.5"])
def test_what_is_no_index_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        unsigned(text)


def test_a_pair_is_cut_at_its_first_sign() -> None:
    assert [pair("a=b=c"), pair("=b"), pair("a=")] == [("a", "b=c"), ("", "b"), ("a", "")]
    with pytest.raises(argparse.ArgumentTypeError, match="'a' is not key=value"):
        pair("a")
