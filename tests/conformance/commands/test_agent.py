"""How the agent is reached: TLS, addresses, tokens, and no agent at all."""

from __future__ import annotations

import contextlib
import ssl
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.certificates import Authority, Mistakes
from harness.command_lines import BOTH, FILES, ours, stock
from harness.servers import ConsulServer, Program
from lictor.up.ports import free_ports


@contextlib.contextmanager
def encrypted(server: ConsulServer, authority: Authority, folder: Path) -> Iterator[str]:
    """Put TLS before a server; yield the address. `folder` gets ca.pem."""
    leaf = authority.leaf("consul", Mistakes(dns=("localhost",), ips=("127.0.0.1",)))
    (folder / "ca.pem").write_text(authority.pem)
    (folder / "leaf.pem").write_text(leaf.chain_pem)
    (folder / "key.pem").write_bytes(leaf.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "leaf.pem", folder / "key.pem")

    class Relay(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with urllib.request.urlopen(server.http_addr + self.path) as answer:
                body = answer.read()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Relay) as relay:
        relay.socket = context.wrap_socket(relay.socket, server_side=True)
        thread = threading.Thread(target=relay.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{relay.server_port}"
        finally:
            relay.shutdown()
            thread.join()


LISTING = "config list -kind service-defaults"


def test_an_https_agent_is_reached_with_the_flags_of_the_stock_command_line(
    server: ConsulServer, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    Path("stranger.pem").write_text(stranger.pem)
    plain = stock(server, LISTING)
    with encrypted(server, authority, tmp_path) as address:
        good = [f"-http-addr=https://{address} -ca-file=ca.pem", f"--http-addr https://{address} --ca-file ca.pem"]
        for flags in (*good, f"-http-addr=https://{address} -ca-file=ca.pem -tls-server-name=localhost"):
            assert stock(server, f"{LISTING} {flags}") == ours(server, f"{LISTING} {flags}") == plain
        for flags in ("-ca-file=stranger.pem", "-ca-file=ca.pem -tls-server-name=other", "", "-ca-file=nosuch.pem"):
            for run in BOTH:
                ran = run(server, f"{LISTING} -http-addr=https://{address} {flags}")
                assert (ran.code, ran.out, bool(ran.err)) == (1, "", True), (run, flags, ran)


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_an_address_is_taken_with_and_without_its_scheme(scheme: str, server: ConsulServer) -> None:
    words = f"{LISTING} -http-addr={scheme}127.0.0.1:{server.http_port}"
    elsewhere = replace(server, http_port=1)
    assert stock(elsewhere, words) == ours(elsewhere, words) == stock(server, LISTING)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("config list -kind mesh", 1),
        ("config read -kind mesh -name mesh", 1),
        ("config delete -kind mesh -name mesh", 1),
        ("config write a.hcl", 1),
        ("intention check a b", 2),
        ("intention create a b", 1),
        ("intention match b", 1),
        ("intention list", 1),
        ("intention get a b", 1),
        ("intention delete a b", 1),
        ("services register -name cmd-s", 1),
        ("services deregister -id cmd-s", 1),
    ],
)
def test_without_a_server_each_word_ends_as_the_stock_one(words: str, code: int) -> None:
    Path("a.hcl").write_text(FILES["a.hcl"])
    nowhere = ConsulServer(Program("nothing", [], Path()), free_ports(1)[0], 0)
    for run in BOTH:
        ran = run(nowhere, words)
        assert (ran.code, ran.out) == (code, "")
        assert "refused" in ran.err.lower() or "connect" in ran.err.lower()


@pytest.mark.parametrize(
    "words",
    [
        "config list -kind service-defaults",
        "config read -kind service-defaults -name cmd-a",
        "config write a.hcl",
        "config delete -kind service-defaults -name cmd-a",
        "intention check cmd-a cmd-b",
        "intention create cmd-a cmd-b",
        "intention create -replace cmd-a cmd-b",
        "intention get cmd-a cmd-b",
        "intention match cmd-b",
        "intention list",
        "intention delete cmd-a cmd-b",
        "services register -name cmd-s",
        "services deregister -id cmd-s",
    ],
)
def test_a_wrong_token_is_refused_as_the_stock_command_line_tells_it(
    words: str, consul_with_acls: ConsulServer
) -> None:
    Path("a.hcl").write_text(FILES["a.hcl"])
    Path("token").write_text("11111111-0000-0000-0000-000000000000")
    word, action, rest = words.split(" ", 2) if words.count(" ") > 1 else (*words.split(), "")
    anonymous = replace(consul_with_acls, token="")
    for flag in ("-token-file=token", ""):
        left, right = (run(anonymous, f"{word} {action} {flag} {rest}") for run in BOTH)
        assert (left.code, left.out, bool(left.err)) == (right.code, right.out, bool(right.err))
        assert ("403" in left.err) is ("403" in right.err)


def test_a_token_of_a_file_is_used_and_never_shown(consul_with_acls: ConsulServer) -> None:
    Path("token").write_text(f"{consul_with_acls.token}\n")
    Path("a.hcl").write_text(FILES["a.hcl"])
    anonymous = replace(consul_with_acls, token="")
    for run in BOTH:
        assert (
            run(anonymous, "config write -token-file=token a.hcl").out
            == "Config entry written: service-defaults/cmd-a\n"
        )
        assert run(anonymous, "config delete -token-file token -filename a.hcl").code == 0
    refused = ours(anonymous, f"config list -kind mesh -token={consul_with_acls.token}")
    assert refused.code == 1
    assert consul_with_acls.token not in refused.err


@pytest.mark.parametrize(
    "flags", ["-token-file=nosuch", "-ca-file=nosuch", "-http-addr=ftp://x", "-client-cert=nosuch", "-http-addr=:::"]
)
def test_a_flag_that_names_nothing_is_refused_by_both(flags: str, server: ConsulServer) -> None:
    for run in BOTH:
        ran = run(server, f"config list {flags} -kind mesh")
        assert (ran.code, ran.out, bool(ran.err)) == (1, "", True)


def test_a_warning_is_no_part_of_the_output(consul_with_acls: ConsulServer) -> None:
    Path("token").write_text("")
    ran = ours(replace(consul_with_acls, token=""), "config list -token-file=token -kind mesh")
    assert (ran.code, ran.out) == (0, "")
    assert "token_file_failing" in ran.err
