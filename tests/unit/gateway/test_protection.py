from __future__ import annotations

import ipaddress
import math
from pathlib import Path

import pytest

from gateway.config import read_gateway
from policies.edge.forwarding import Forwarding
from policies.edge.proxy_protocol import ProxyProtocol
from policies.edge.rate_limit import Rate
from policies.edge.settings import NO_EDGE, EdgeSettings
from policies.errors import ConfigError
from policies.protection import Protection

GATEWAY = "gateway: {service: edge, address: '192.0.2.10:8443'}\nissuer: consul\n"


def read(folder: Path, text: str) -> EdgeSettings:
    file = folder / "edge.yaml"
    file.write_text(GATEWAY + text)
    edge = read_gateway(file, {}).edge
    assert edge is not None
    return edge


def test_a_file_without_these_words_has_the_defaults(tmp_path: Path) -> None:
    edge = read(tmp_path, "")
    assert (edge.proxy_protocol, edge.forwarding, edge.protection) == (
        NO_EDGE.proxy_protocol,
        NO_EDGE.forwarding,
        NO_EDGE.protection,
    )


def test_all_of_it_is_read(tmp_path: Path) -> None:
    edge = read(
        tmp_path,
        """
proxy_protocol: {accept_from: [10.0.0.0/8, "2001:db8::/32"], ports: [8080], send_to: [db], version: 1}
forwarding: {trusted_proxies: [192.0.2.1], forwarded: true, request_id: false, traceparent: false, sampled: 0.5}
protection:
  max_connections: 5
  max_connections_per_address: 0
  head_timeout: 2s
  idle_timeout: 0
  min_rate: 7
  slow_after: 1m
  max_body: 1000
  max_requests_per_connection: 9
  rate_limit: {per_address: {rate: 2.5}, per_identity: {rate: 50, burst: 100}}
""",
    )
    networks = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32"))
    assert edge.proxy_protocol == ProxyProtocol(networks, (8080,), ("db",), 1)
    proxies = (ipaddress.ip_network("192.0.2.1"),)
    assert edge.forwarding == Forwarding(proxies, forwarded=True, request_id=False, traceparent=False, sampled=0.5)
    assert edge.protection == Protection(5, 0, 2.0, math.inf, 7, 60.0, 1000, 9, Rate(2.5, 3), Rate(50.0, 100))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("proxy_protocol: {accept_from: [10.0.0.1/8], ports: [1]}", "has host bits set"),
        ("proxy_protocol: {accept_from: [10.0.0.0/8]}", "of no use without each other"),
        ("proxy_protocol: {ports: [8080]}", "of no use without each other"),
        ("proxy_protocol: {accept_from: [10.0.0.0/8], ports: [http]}", "'http' is not a port"),
        ("proxy_protocol: {send_to: [a/b]}", "a/b"),
        ("proxy_protocol: {version: 3}", "not one of 1, 2"),
        ("forwarding: {trusted_proxies: [proxy.example]}", "does not appear to be"),
        ("forwarding: {sampled: 101}", "no percentage"),
        ("forwarding: {sampled: all}", "not a number"),
        ("forwarding: {hops: 2}", "is not a known field"),
        ("protection: {max_connections: -1}", "below 0"),
        ("protection: {idle_timeout: -1s}", "below 0"),
        ("protection: {rate_limit: {per_address: {burst: 3}}}", "not above 0"),
        ("protection: {rate_limit: {per_address: {rate: 1, burst: 0}}}", "below 1"),
        ("protection: {rate_limit: {per_user: {rate: 1}}}", "is not a known field"),
    ],
)
def test_a_mistake_is_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read(tmp_path, text)
