from __future__ import annotations

import io
import stat
from pathlib import Path

import aiohttp
import pytest

from lictor.up.console import Console
from lictor.up.plan import Gateway, MeshFile, Service
from lictor.up.ports import free_ports
from lictor.up.servers import Embedded, Existing, OnlyTrouble
from policies.errors import ConfigError

WEB = Service("web-1", "web", ("x",), Path("/"))


async def test_embedded_servers_sign_for_everybody_and_give_each_instance_a_way_in(tmp_path: Path) -> None:
    output = io.StringIO()
    http, vault = free_ports(2)
    async with aiohttp.ClientSession() as session:
        mesh = MeshFile((WEB,), Gateway(8080, {"web": ()}, "edge"))
        servers = Embedded.on(mesh, tmp_path, Console(output, {}), session, (http, vault))
        servers.start()
        try:
            await servers.ready()
            for service, identifier in (("web", "web-1"), ("edge", "gateway")):
                prepare = servers.credentials(service, identifier)
                assert prepare is not None
                await prepare()
                link = servers.link(service, identifier)
                for file in ("role_id_file", "secret_id_file"):
                    assert Path(link["vault"]["auth"][file]).read_text()
            token = tmp_path / "root-token"
            assert token.read_text() == servers.root_token != "root"
            assert stat.S_IMODE(token.stat().st_mode) == 0o600
            assert servers.told().startswith(f"export CONSUL_HTTP_ADDR=http://127.0.0.1:{http} ")
            assert servers.agent.address == f"http://127.0.0.1:{http}"
        finally:
            for child in servers.children():
                await child.stop()
    assert output.getvalue() == "", "nothing was wrong"


async def test_existing_ones_are_asked_once_and_told_when_they_are_not_there() -> None:
    (port,) = free_ports(1)
    link = {"consul": {"address": f"http://127.0.0.1:{port}"}, "issuer": "consul"}
    servers = Existing(MeshFile((WEB,), links={"web": link, "operator": link}), {})
    servers.start()
    assert servers.link("web", "web-1") == link
    assert servers.credentials("web", "web-1") is None
    assert servers.children() == []
    assert servers.told() == f"Consul is http://127.0.0.1:{port}"
    with pytest.raises(ConfigError, match=f"http://127.0.0.1:{port}: no Consul agent answers: .*; start an agent"):
        await servers.ready()


def test_of_the_servers_only_trouble_is_told() -> None:
    output = io.StringIO()
    console = OnlyTrouble(Console(output, {}))
    console.line("servers", "This is not for production")
    console.line("servers", "ValueError: x")
    console.warn("servers", "ended")
    console.progress("not ready")
    assert [line.rpartition("  ")[2] for line in output.getvalue().splitlines()] == [
        "servers | ValueError: x",
        "servers | ended",
        "not ready",
    ]
