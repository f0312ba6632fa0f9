from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.config import read_gateway
from policies.edge.rate_limit import Rate
from policies.errors import ConfigError
from policies.protection import INSIDE
from policies.snapshot import Role


def written(folder: Path, text: str) -> Path:
    file = folder / "edge.yaml"
    file.write_text(text)
    return file


def test_a_gateway_is_read(tmp_path: Path) -> None:
    file = written(tmp_path, "gateway: {service: edge, id: edge-1, address: '192.0.2.10:8443'}\nissuer: consul\n")
    settings = read_gateway(file, {})
    (definition,) = settings.definitions
    assert settings.role is Role.INGRESS
    assert (definition["Kind"], definition["ID"], definition["Name"]) == ("ingress-gateway", "edge-1", "edge")
    assert (definition["Address"], definition["Port"]) == ("192.0.2.10", 8443)
    assert definition["Checks"][0]["Status"] == "passing"


def test_an_api_gateway_is_read_and_has_no_check(tmp_path: Path) -> None:
    settings = read_gateway(written(tmp_path, "gateway: {kind: api, service: shop, address: '192.0.2.10:8443'}\n"), {})
    (definition,) = settings.definitions
    assert settings.role is Role.API
    assert (definition["Kind"], definition["ID"], definition["Checks"]) == ("api-gateway", "shop", [])


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    file = written(tmp_path, "gateway: {kind: mesh, service: a/b, address: nowhere, adress: x}\nissuer: pope\n")
    with pytest.raises(ConfigError) as caught:
        read_gateway(file, {})
    told = "\n".join(str(problem) for problem in caught.value.problems)
    for word in ("'mesh' is not one of ingress", "a/b", "adress", "'pope' is not one of vault, consul"):
        assert word in told


def test_an_address_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'nowhere' is not host:port"):
        read_gateway(written(tmp_path, "gateway: {service: edge, address: nowhere}\n"), {})


def test_an_address_that_nobody_can_dial_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be dialled"):
        read_gateway(written(tmp_path, "gateway: {service: edge, address: '0.0.0.0:8443'}\n"), {})


def test_the_config_of_the_registration_is_passed_on_as_it_is(tmp_path: Path) -> None:
    text = "gateway: {kind: terminating, service: egress, address: '192.0.2.10:8443', config: {forward_proxy: true}}\n"
    (definition,) = read_gateway(written(tmp_path, text), {}).definitions
    assert definition["Proxy"] == {"Config": {"forward_proxy": True}}


def test_a_terminating_gateway_takes_from_the_mesh_what_it_is_given_unless_its_file_limits_it(tmp_path: Path) -> None:
    text = "gateway: {kind: terminating, service: out, address: '192.0.2.10:8443'}\n"
    limited = "protection: {max_connections_per_address: 50, rate_limit: {per_identity: {rate: 5}}}\n"
    for more, limits in (
        ("", INSIDE),
        (limited, replace(INSIDE, max_connections_per_address=50, per_identity=Rate(5, 5))),
    ):
        edge = read_gateway(written(tmp_path, text + more), {}).edge
        assert edge is not None
        assert edge.protection == limits


@pytest.mark.parametrize("word", ["tls", "passthrough", "proxy_protocol", "forwarding"])
def test_what_is_of_the_way_in_is_not_for_a_terminating_gateway(tmp_path: Path, word: str) -> None:
    text = "gateway: {kind: terminating, service: out, address: '192.0.2.10:8443'}\nissuer: consul\n"
    with pytest.raises(ConfigError, match="is not for a terminating gateway"):
        read_gateway(written(tmp_path, f"{text}{word}: {'[]' if word == 'passthrough' else '{}'}\n"), {})
