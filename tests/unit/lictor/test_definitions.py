"""Service definitions of files: what the agent's own configuration has, with every mistake and its line."""

from __future__ import annotations

from typing import Any

import pytest

from lictor.definitions import read_definitions
from lictor.documents import read_document
from policies.errors import ConfigError


def services(text: str) -> list[dict[str, Any]]:
    return list(read_definitions(read_document(text, "web.hcl")).services)


def test_a_service_has_the_names_of_the_api() -> None:
    text = """service {
  name = "web"
  port = 80
  tagged_addresses { lan { address = "192.0.2.1" port = 81 } }
  meta { a_b = "c" }
  check { id = "c" http = "http://x/" interval = "10s" header { A = ["b"] } args = ["x"] service_id = "dropped" }
  connect {
    sidecar_service {
      proxy {
        upstreams { destination_name = "db" local_bind_port = 9191 config { a { b = [1] } c = [2] d = [[3]] } }
        upstreams { destination_name = "api" local_bind_port = 9192 }
      }
    }
  }
}"""
    upstreams = [
        {"DestinationName": "db", "LocalBindPort": 9191, "Config": {"a": {"b": 1}, "c": 2, "d": [3]}},
        {"DestinationName": "api", "LocalBindPort": 9192},
    ]
    assert services(text) == [
        {
            "Name": "web",
            "Port": 80,
            "TaggedAddresses": {"lan": {"Address": "192.0.2.1", "Port": 81}},
            "Meta": {"a_b": "c"},
            "Check": {"CheckID": "c", "HTTP": "http://x/", "Interval": "10s", "Header": {"A": ["b"]}, "Args": ["x"]},
            "Connect": {"SidecarService": {"Proxy": {"Upstreams": upstreams}}},
        }
    ]


def test_several_services_come_before_the_one() -> None:
    text = 'service { name = "a" }\nservices { name = "b" }\nservices = [{ name = "c" }]\nnode_name = "n"'
    found = read_definitions(read_document(text, "web.hcl"))
    assert [service["Name"] for service in found.services] == ["b", "c", "a"]
    assert found.others == ("node_name",)


def test_the_spelling_of_the_api_is_taken_too() -> None:
    assert services('Service { Name = "a" EnableTagOverride = true Checks { TTL = "1s" } }') == [
        {"Name": "a", "EnableTagOverride": True, "Checks": [{"TTL": "1s"}]}
    ]


@pytest.mark.parametrize(
    ("weights", "sent"),
    [
        ("weights { passing = 5 }", {"Passing": 5, "Warning": 1}),
        ("weights { warning = 5 }", {"Passing": 1, "Warning": 5}),
        ("weights {}", {"Passing": 1, "Warning": 1}),
    ],
)
def test_a_weight_that_is_not_given_is_1(weights: str, sent: dict[str, int]) -> None:
    assert services(f'service {{ name = "a" {weights} }}')[0]["Weights"] == sent


def test_whole_numbers_may_have_a_point() -> None:
    assert services('service { name = "a" port = 80.0 }') == [{"Name": "a", "Port": 80}]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("prt = 80", "service.prt: is not a known field; known are Address, Check, "),
        ('port = "80"', "service.port: a number was expected, not '80'"),
        ("port = true", "service.port: a number was expected, not True"),
        ("port = 80.5", "service.port: a number was expected, not 80.5"),
        ("name = 5", "service.name: a text in quotes was expected, not 5"),
        ("enable_tag_override = 1", "service.enable_tag_override: true or false was expected, not 1"),
        ('tags = "a"', "service.tags: a list was expected, not 'a'"),
        ('tags = ["a", 5]', "service.tags[1]: a text in quotes was expected, not 5"),
        ("meta { a = 5 }", "service.meta.a: a text in quotes was expected, not 5"),
        ('meta = "a"', "service.meta: a block was expected, not 'a'"),
        ('check { ttl = "10x" }', "service.check.ttl: '10x' is not a duration; write \"10s\""),
        ("check { ttl = 10 }", "service.check.ttl: 10 is not a duration"),
        ("check {}", "service.check: is a check of nothing"),
        ('check { token = "x" script = "x" }', "service.check.script: is not a known field"),
        ('kind = "bogus"', "service.kind: 'bogus' is not a kind; write one of connect-proxy, "),
        ("proxy { config = 5 }", "service.proxy.config: a block was expected, not 5"),
        ('checks { ttl = "1s" } checks { tll = "1s" }', "service.checks[1].tll: is not a known field"),
        ('meta { a = "b" } meta { c = "d" }', "service.meta: stands more than once"),
    ],
)
def test_a_mistake_is_told_with_its_line(line: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        services(f"service {{\n  {line}\n}}\n")
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"web.hcl:2: {told}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            'service { name = "a" }\nservice { name = "b" }',
            "web.hcl:1: service: stands more than once; write a `services`",
        ),
        ('service = "a"', "web.hcl:1: service: a block was expected, not 'a'"),
        ('{"services": {"name": "a"}}', "web.hcl:1: services: a list was expected"),
        ('node_name = "a"', "web.hcl: defines no service"),
        ("", "web.hcl: defines no service"),
    ],
)
def test_a_file_that_defines_no_services_is_told(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        services(text)
    assert str(caught.value).startswith(told)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        services('services { nme = "a" }\nservices {\n  port = "x"\n  tags = 5\n}\n')
    assert [problem.where for problem in caught.value.problems] == [
        "web.hcl:1: services[0].nme",
        "web.hcl:3: services[1].port",
        "web.hcl:4: services[1].tags",
    ]
