from __future__ import annotations

from pathlib import Path

from controlplane.consul.settings import ConsulSettings
from lictor.up.links import agent_settings, link_of, read_links
from sidecar.yaml_reader import read_document


def read(folder: Path, text: str, *services: str) -> tuple[dict[str, dict[str, object]], list[str]]:
    (folder / "mesh.yaml").write_text(text)
    document = read_document(folder / "mesh.yaml")
    links = read_links(document, folder, services)
    document.done()
    return links, sorted({str(problem).replace(f"{folder}/", "") for problem in document.problems})


def test_without_a_consul_there_are_no_links(tmp_path: Path) -> None:
    assert read(tmp_path, "x: 1", "web")[0] == {}
    links, (problem,) = read(tmp_path, "vault: {address: 'http://v'}", "web")
    assert links == {}
    assert problem.startswith(
        "mesh.yaml:1: vault: needs a `consul` block; add `consul: {address: ...}`, or take it out"
    )


def test_each_service_has_files_of_its_own_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    for name in ("web", "edge", "operator"):
        (tmp_path / "tokens" / name).touch()
    text = """
consul: {address: 127.0.0.1:1, token_file: tokens/$SERVICE}
vault:
  address: http://v:1
  auth: {method: approle, role_id_file: v/$SERVICE/role, secret_id_file: /abs/$SERVICE, wrapped: false}
"""
    links, problems = read(tmp_path, text, "web", "edge")
    assert problems == []
    assert links["web"] == {
        "consul": {"address": "127.0.0.1:1", "token_file": f"{tmp_path}/tokens/web"},
        "vault": {
            "address": "http://v:1",
            "auth": {
                "method": "approle",
                "role_id_file": f"{tmp_path}/v/web/role",
                "secret_id_file": "/abs/web",
                "wrapped": False,
            },
        },
        "issuer": "vault",
    }
    assert links["edge"]["consul"] == {"address": "127.0.0.1:1", "token_file": f"{tmp_path}/tokens/edge"}
    assert links["operator"] == {
        "consul": {"address": "127.0.0.1:1", "token_file": f"{tmp_path}/tokens/operator"},
        "issuer": "consul",
    }


def test_mistakes_are_those_of_a_sidecars_file_with_lines(tmp_path: Path) -> None:
    text = (
        "consul:\n  address: 'http://'\n  tokenfile: x\n  ca_file: none\nvault:\n  adress: v\n  auth: {method: jwt}\n"
    )
    _, problems = read(tmp_path, text, "web")
    assert [problem.split(":")[1] for problem in problems] == ["2", "3", "4", "6", "6"], problems
    assert "did you mean `token_file`?" in problems[1]


def test_the_operator_speaks_with_the_links_settings_over_those_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    link = {"consul": {"address": "http://c:1", "token_file": str(tmp_path / "token")}}
    settings = agent_settings(link, {"CONSUL_HTTP_ADDR": "elsewhere", "CONSUL_HTTP_TOKEN": "x"})
    assert (settings.address, settings.token_file) == ("http://c:1", str(tmp_path / "token"))
    assert agent_settings({}, {"CONSUL_HTTP_ADDR": "here:1"}).address == "here:1"


def test_flags_make_a_link_whose_leaf_is_the_agents() -> None:
    settings = ConsulSettings(address="c:1", token="secret", token_file="t", tls=True, ca_file="/ca")
    assert link_of(settings) == {
        "consul": {"address": "https://c:1", "token_file": str(Path("t").absolute()), "ca_file": "/ca"},
        "issuer": "consul",
    }
    assert link_of(ConsulSettings(address="unix:///run/c"))["consul"] == {"address": "unix:///run/c"}
