from __future__ import annotations

import contextlib
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lictor.up.file import read_mesh, unfit
from lictor.up.plan import Gateway, MeshFile, Service
from policies.errors import ConfigError

PARTS = """\
mesh.yaml:3: services.web.command: no-such-program is not found; install it, mend the spelling, or give its path
mesh.yaml:4: services.web.prot: is not a known field; did you mean `port`?
mesh.yaml:5: services.web.port: 70000 is not a port; give a number from 1 to 65535
mesh.yaml:6: services.web.health: 'up' is no path; write `health: /health`, or `none` to look at nothing
mesh.yaml:7: services.web.protocol: 'udp' is not one of http, tcp; write `protocol: http` or `protocol: tcp`
mesh.yaml:8: services.web.folder: nowhere is no folder; make it, or name another; it is relative to this file
mesh.yaml:9: services.web.upstreams.api: expected a whole number, found 'x'; write `upstreams: {api: 9191}`
mesh.yaml:9: services.web.upstreams.api: stands here twice; keep one of them
mesh.yaml:9: services.web.upstreams.api: is no service of this file; there are a b, empty, nothing, quoted, script, tcp, web, words
mesh.yaml:10: services.web.environment: expected a mapping of names to text; write `environment: {NAME: value}`
mesh.yaml:11: services.web.meta.a: stands here twice; keep one of them
mesh.yaml:12: services.web: stands here twice; keep one of them
mesh.yaml:13: services.a b: 'a b' cannot name a service: no blanks, slashes, dots alone; use letters, digits, - and _
mesh.yaml:14: services.words: expected a mapping; write `services: {web: {command: ...}}`
mesh.yaml:15: services.nothing.command: is missing; add `command: ...`
mesh.yaml:16: services.quoted.command: cannot be read: No closing quotation; close every quote, or write a list of words
mesh.yaml:17: services.script.command: script may not be executed; type: chmod +x script
mesh.yaml:18: services.empty.command: is empty; say what to run: `command: ./web --port $PORT`
mesh.yaml:19: services.tcp.health: a path is asked over HTTP, and this is a tcp service; leave it out: an open port is enough
mesh.yaml:20: gateway.hosts.tcp: is a tcp service, and the gateway speaks HTTP; take it out, or give it `protocol: http`
mesh.yaml:20: gateway.hosts.ghost: is no service of this file; there are a b, empty, nothing, quoted, script, tcp, web, words
mesh.yaml:20: gateway.port: 0 is not a port; give a number from 1 to 65535
mesh.yaml:20: gateway.name: tcp is a service of this file; give the gateway a name of its own: `gateway: {name: edge, ...}`
mesh.yaml:21: vault: needs a `consul` block; add `consul: {address: ...}`, or take it out: the embedded servers have a Vault of their own
mesh.yaml:22: consol: is not a known field; did you mean `consul`?
"""  # noqa: E501 - as they are told
TOGETHER = """\
mesh.yaml:2: services.a.upstreams.b: call each other in a circle: a -> b -> a; none of them could start first; take one of these upstreams out
mesh.yaml:3: services.b1.port: port 24601 is that of services.a.upstreams.b too; give each a port of its own
mesh.yaml:4: services.b2.protocol: b is tcp here and http in b1; a service has one protocol: say the same in both
mesh.yaml:5: gateway.port: port 24602 is that of services.b2.upstreams.a too; give each a port of its own
"""  # noqa: E501 - as they are told


def read(folder: Path, text: str) -> MeshFile:
    (folder / "mesh.yaml").write_text(text)
    return read_mesh(folder / "mesh.yaml", {"PATH": "/usr/bin:/bin"})


def told(folder: Path, text: str) -> list[str]:
    """The problems, without the folder."""
    with pytest.raises(ConfigError) as raised:
        read(folder, text)
    return [str(problem).replace(f"{folder}/", "") for problem in raised.value.problems]


def test_a_whole_file(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    mesh = read(
        tmp_path,
        """
services:
  web:
    command: sh -c 'echo "a b"'
    port: 24501
    folder: app
    environment: {A: 1, B: true}
    health: /health
    upstreams: {api: 24502}
  api-v1: {service: api, command: [sh, -c, x], protocol: http, meta: {version: v1}}
  job: {command: sh, health: none}
gateway: {port: 24503, name: edge, hosts: {web: localhost, api: [a.test, b.test]}}
""",
    )
    assert mesh.services == (
        Service(
            "web",
            "web",
            ("sh", "-c", 'echo "a b"'),
            tmp_path / "app",
            24501,
            {"A": "1", "B": "true"},
            "http",
            "/health",
            {"api": 24502},
        ),
        Service("api-v1", "api", ("sh", "-c", "x"), tmp_path, meta={"version": "v1"}),
        Service("job", "job", ("sh",), tmp_path, health="none"),
    )
    assert mesh.gateway == Gateway(24503, {"web": ("localhost",), "api": ("a.test", "b.test")}, "edge")


def test_every_mistake_of_the_parts_is_told_with_line_and_cure(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    text = """services:
  web:
    command: no-such-program
    prot: 1
    port: 70000
    health: up
    protocol: udp
    folder: nowhere
    upstreams: {api: x, api: y}
    environment: [a]
    meta: {a: 1, a: 2}
  web: {command: sh}
  a b: {command: sh}
  words: just text
  nothing:
  quoted: {command: "echo 'x"}
  script: {command: ./script}
  empty: {command: []}
  tcp: {command: sh, protocol: tcp, health: /x}
gateway: {port: 0, name: tcp, hosts: {tcp: [a], ghost: [b]}}
vault: {address: x}
consol: 1
"""
    assert told(tmp_path, text) == PARTS.splitlines()


def test_what_the_parts_say_together(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        text = f"""services:
  a: {{command: sh, port: {port}, upstreams: {{b: 24601}}}}
  b1: {{service: b, command: sh, port: 24601}}
  b2: {{service: b, command: sh, protocol: tcp, upstreams: {{a: 24602}}}}
gateway: {{port: 24602, hosts: {{a: [x]}}}}
"""
        found = told(tmp_path, text)
    (taken,) = [line for line in found if "cannot be had" in line]
    assert taken.startswith(f"mesh.yaml:2: services.a.port: port {port} cannot be had: address already in use by ")
    assert taken.endswith("; stop who listens there, or give another port")
    assert [line for line in found if line != taken] == TOGETHER.splitlines()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "mesh.yaml:1: expected a mapping at the top of the file; begin with"),
        (b"words", "mesh.yaml:1: expected a mapping at the top of the file; begin with"),
        (b"\xff\xfe\x00\x81", "mesh.yaml: is no text in UTF-8; name a YAML file"),
        (
            b"services:\n\tweb: 1",
            "mesh.yaml:2: this is not YAML: found character '\\t' that cannot start any token; indent",
        ),
        (b"services: [", "mesh.yaml:1: this is not YAML: "),
        (b"services: {}", "mesh.yaml:1: services: there is none; add `services: {web: {command: ...}}`"),
        (b"a: " + b"[" * 3000, "mesh.yaml: nests too deep; no field of ours needs that"),
        (b"services: &x {web: *x}", "mesh.yaml:1: holds itself; write it out"),
        (b"services: {web: {command: sh, meta: {[a]: b}}}", "mesh.yaml:1: a key must be a single word"),
    ],
)
def test_what_is_no_mesh_at_all(tmp_path: Path, content: bytes, line: str) -> None:
    (tmp_path / "mesh.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        read_mesh(tmp_path / "mesh.yaml")
    assert str(raised.value.problems[0]).replace(f"{tmp_path}/", "").startswith(line)


def test_a_file_that_is_not_there_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none.yaml: is not there; `lictor init` writes a file to begin with"):
        read_mesh(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a folder; name a file; `lictor init` writes one"):
        read_mesh(tmp_path)
    (tmp_path / "some.yaml").touch()
    with pytest.raises(ConfigError, match=f"is a folder; name the file: lictor up {tmp_path}/some.yaml"):
        read_mesh(tmp_path)


@given(st.text(alphabet="services:web{}[],&*<!|>-'\"#? \n\tcommand0", max_size=60))
@settings(max_examples=300)
def test_any_text_is_a_mesh_or_told(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(text)
    with contextlib.suppress(ConfigError):
        read_mesh(file)


def test_a_program_is_looked_for_where_it_will_be(tmp_path: Path) -> None:
    file = tmp_path / "own"
    file.write_text("#!/bin/sh\n")
    assert unfit("./own", tmp_path, "") == (f"{file} may not be executed", f"type: chmod +x {file}")
    file.chmod(stat.S_IRWXU)
    assert unfit("./own", tmp_path, "") is None
    assert unfit("own", tmp_path, str(tmp_path)) is None
    assert unfit(str(tmp_path), tmp_path, "") is not None, "a folder is no program"


def test_a_variable_may_name_the_program(tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("services: {web: {command: $SHELL -c x, environment: {SHELL: sh}}}")
    assert read_mesh(tmp_path / "mesh.yaml").services[0].command == ("$SHELL", "-c", "x")
