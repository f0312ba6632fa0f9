from __future__ import annotations

from pathlib import PurePath

from lictor.up.plan import (
    Gateway,
    MeshFile,
    Ports,
    Service,
    callers_of,
    entries_of,
    expanded,
    gateway_settings,
    in_order,
    made_entries,
    ports_wanted,
    sidecar_settings,
    ways_to,
)


def service(name: str, *calls: str, port: int = 0, protocol: str = "http", health: str = "", of: str = "") -> Service:
    upstreams = {called: 9100 + number for number, called in enumerate(calls)}
    return Service(name, of or name, ("x",), PurePath(), port, protocol=protocol, health=health, upstreams=upstreams)


def test_who_is_called_comes_before_who_calls() -> None:
    services = [service("web", "api", "elsewhere"), service("api-v1", "db", of="api"), service("db"), service("other")]
    assert [[one.id for one in wave] for wave in in_order(services)] == [["db", "other"], ["api-v1"], ["web"]]


def test_a_circle_is_one_wave() -> None:
    assert [len(wave) for wave in in_order([service("a", "b"), service("b", "a")])] == [2]


def test_variables_in_a_command() -> None:
    variables = {"PORT": "80", "A": "x"}
    assert expanded("--listen=:$PORT", variables) == "--listen=:80"
    assert expanded("${PORT}0$A", variables) == "800x"
    assert expanded("$PORTS $1 $$ ${NONE}", variables) == "$PORTS $1 $$ ${NONE}"


def test_ports_that_the_file_names() -> None:
    mesh = MeshFile((service("web", "api", port=9090), service("api")), Gateway(8080, {}))
    assert ports_wanted(mesh) == {9090, 9100, 8080}


def test_entries_are_made_for_what_is_called_and_for_nothing_else() -> None:
    mesh = MeshFile(
        (service("web", "api"), service("api"), service("alone", protocol="tcp")),
        Gateway(8080, {"web": ("localhost",), "api": ()}, "edge"),
    )
    allowed = {"Action": "allow", "Description": "made by lictor up"}
    assert made_entries(mesh) == [
        {"Kind": "service-defaults", "Name": "web", "Protocol": "http"},
        {"Kind": "service-defaults", "Name": "api", "Protocol": "http"},
        {"Kind": "service-defaults", "Name": "alone", "Protocol": "tcp"},
        {"Kind": "service-intentions", "Name": "web", "Sources": [{"Name": "edge", **allowed}]},
        {
            "Kind": "service-intentions",
            "Name": "api",
            "Sources": [{"Name": "edge", **allowed}, {"Name": "web", **allowed}],
        },
        {
            "Kind": "ingress-gateway",
            "Name": "edge",
            "Listeners": [
                {
                    "Port": 8080,
                    "Protocol": "http",
                    "Services": [{"Name": "web", "Hosts": ["localhost"]}, {"Name": "api"}],
                }
            ],
        },
    ]


def test_what_the_file_writes_is_not_made_and_protocols_come_first() -> None:
    written = ({"Kind": "service-splitter", "Name": "api", "Splits": []}, {"Kind": "service-defaults", "Name": "api"})
    entries = entries_of(MeshFile((service("api"),), entries=written))
    assert entries == [written[1], written[0]]


def test_an_upstream_that_a_chain_leads_elsewhere_lets_its_caller_in_there() -> None:
    splitter = {
        "Kind": "service-splitter",
        "Name": "shop",
        "Splits": [{"Weight": 50, "Service": "a"}, {"Weight": 50, "Service": "b"}],
    }
    http = {"Kind": "service-defaults", "Name": "shop", "Protocol": "http"}
    mesh = MeshFile((service("web", "shop"), service("a"), service("b")), entries=(http, splitter))
    assert callers_of(mesh) == {"a": {"web"}, "b": {"web"}}


def test_a_chain_that_cannot_be_compiled_lets_its_caller_in_by_name() -> None:
    circle = tuple(
        {"Kind": "service-resolver", "Name": name, "Redirect": {"Service": other}}
        for name, other in (("db", "store"), ("store", "db"))
    )
    mesh = MeshFile((service("web", "db"), service("db", protocol="tcp")), entries=circle)
    assert callers_of(mesh) == {"db": {"web"}}


PORTS = Ports(9090, 21000, 19000)


def test_a_sidecars_file() -> None:
    shared = {"consul": {"address": "x"}}
    web = Service(
        "web-1", "web", (), PurePath(), health="/up", upstreams={"api": 1, "db": 2, "other": 3}, meta={"a": "b"}
    )
    assert sidecar_settings(web, PORTS, {"api": "http", "db": "tcp"}, shared) == {
        "service": {
            "name": "web",
            "id": "web-1",
            "port": 9090,
            "address": "127.0.0.1",
            "meta": {"a": "b"},
            "connect": {
                "sidecar_service": {
                    "port": 21000,
                    "proxy": {
                        "upstreams": [
                            {"destination_name": "api", "local_bind_port": 1},
                            {"destination_name": "db", "local_bind_port": 2, "config": {"protocol": "tcp"}},
                            {"destination_name": "other", "local_bind_port": 3},
                        ]
                    },
                }
            },
            "check": {
                "name": "alive",
                "interval": "1s",
                "timeout": "1s",
                "status": "critical",
                "http": "http://127.0.0.1:9090/up",
            },
        },
        "consul": {"address": "x"},
        "admin": "127.0.0.1:19000",
        "drain": "5s",
        "log": {"level": "warning"},
    }


def test_the_checks_of_a_sidecars_file() -> None:
    def check(health: str) -> object:
        return sidecar_settings(service("a", health=health), PORTS, {}, {})["service"].get("check")

    open_port = check("")
    assert isinstance(open_port, dict)
    assert open_port["tcp"] == "127.0.0.1:9090"
    assert check("none") is None


def test_a_gateways_file() -> None:
    mesh = MeshFile((), Gateway(8080, {}, "edge"))
    assert gateway_settings(mesh, 19001, {"issuer": "vault"}) == {
        "gateway": {"kind": "ingress", "service": "edge", "id": "edge", "address": "127.0.0.1:8080"},
        "issuer": "vault",
        "admin": "127.0.0.1:19001",
        "drain": "5s",
        "log": {"level": "warning"},
    }
    assert gateway_settings(MeshFile(()), 1, {}) == {}


def test_what_to_type() -> None:
    web, api, db = service("web", "api", "db"), service("api"), service("db", protocol="tcp")
    job, own = service("job", health="none"), service("own")
    mesh = MeshFile(
        (web, api, db, job, own), Gateway(8080, {"web": ("localhost",), "own": (), "api": ("*.test", "b.test")})
    )
    assert ways_to(mesh, web, PORTS) == "curl http://localhost:8080/"
    assert ways_to(mesh, own, PORTS) == "curl -H 'Host: own.ingress.local' http://127.0.0.1:8080/"
    assert ways_to(mesh, api, PORTS) == "curl -H 'Host: any.test' http://127.0.0.1:8080/"
    assert ways_to(mesh, db, PORTS) == "nc 127.0.0.1 9101   (as web calls it)"
    assert ways_to(mesh, job, PORTS) == "runs; it is not called"
    assert ways_to(MeshFile((own,)), own, PORTS) == "curl http://127.0.0.1:9090/   (past the mesh)"
