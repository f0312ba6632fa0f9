"""What a sidecar whose leaf comes from Consul must not load: facts that its memory rests on (docs/benchmarks.md)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]

# A proxy in a process of its own, as far as it gets without an agent: everything is loaded, nothing is running.
STARTED = """
import sys
import uvloop
from lictor import cli

uvloop.run = lambda work: work.close()
code = cli.main({words}, {{}})
assert code == 0, code
"""


def said(words: list[str], question: str, **environment: str) -> str:
    program = STARTED.format(words=words) + question
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    return set(said(["sidecar", "-sidecar-for", "web-1"], "print(*sys.modules)").split())


@pytest.mark.parametrize(
    "module",
    [
        "requests",  # imported by python-consul2
        "urllib3",
        "cryptography",  # keys and requests for Vault
        "hvac",
        "yaml",  # without a file
        "re2",  # without a regular expression
        "prometheus_client",
        "frozenlist._frozenlist",
        "urllib.request",  # these three are imported by aiohttp, as is html, which developers' tools bring anyway
        "http.client",
        "email.policy",
        "consul.aio",
        "lictor.commands.config",
        "lictor.dev",
        "policies.entries",
        "policies.discovery",
        # what is at the edge
        "gateway",
        "dataplane.edge",
        "policies.edge",
        "controlplane.certificates",
        # what leads out of the mesh
        "dataplane.egress",
        "policies.egress",
        "pycares",
        "controlplane.issuer.linked",
    ],
)
def test_a_sidecar_does_not_load_what_it_does_not_use(loaded: set[str], module: str) -> None:
    assert not {name for name in loaded if name == module or name.startswith(f"{module}.")}


def test_the_libraries_that_do_its_work_are_loaded(loaded: set[str]) -> None:
    assert {"consul.base", "aiohttp", "structlog", "tenacity", "uvloop", "httptools"} <= loaded


def test_no_context_of_aiohttp_holds_the_certificates_of_the_machine() -> None:
    question = """
import ssl
from aiohttp import connector
made = [one for one in vars(connector).values() if isinstance(one, ssl.SSLContext)]
print([context.cert_store_stats()["x509"] for context in made])
"""
    assert said(["sidecar", "-sidecar-for", "web-1"], question) == "[0, 0]"


def test_what_was_left_out_is_there_for_whoever_wants_it() -> None:
    question = """
import os, consul, requests
assert os.environ["SSL_CERT_FILE"] == "/somewhere" and "FROZENLIST_NO_EXTENSIONS" not in os.environ
print(type(consul.Consul().http.session) is requests.Session)
"""
    assert said(["sidecar", "-sidecar-for", "web-1"], question, SSL_CERT_FILE="/somewhere") == "True"


def test_what_aiohttp_was_given_in_the_place_of_a_module_does_that_module_s_work() -> None:
    question = """
import mimetypes
from aiohttp import helpers, web_protocol
print(web_protocol.html_escape("<b>"), sorted(helpers.getproxies()), not helpers.proxy_bypass("elsewhere.example"))
print(helpers.parse_content_type('text/plain; Charset="utf-8"; a=b'), mimetypes.inited)
"""
    environment = {"http_proxy": "http://proxy.example", "no_proxy": "other.example"}
    assert said(["sidecar", "-sidecar-for", "web-1"], question, **environment).splitlines() == [
        "&lt;b&gt; ['http', 'no'] True",
        "('text/plain', mappingproxy({'charset': 'utf-8', 'a': 'b'})) False",
    ]


def test_a_gateway_is_as_lean() -> None:
    words = ["gateway", "-gateway=ingress", "-proxy-id", "edge"]
    assert said(words, "print({'requests', 'cryptography', 'hvac', 'yaml', 're2'} & set(sys.modules))") == "set()"


def test_a_file_brings_the_yaml_reader_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "web.yaml"
    file.write_text("service: {name: web, port: 80, connect: {sidecar_service: {port: 81}}}\n")
    words = ["sidecar", "-config", str(file)]
    assert said(words, "print({'requests', 'cryptography', 'hvac', 'yaml', 're2'} & set(sys.modules))") == "{'yaml'}"
