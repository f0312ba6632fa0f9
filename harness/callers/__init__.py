"""Everyday HTTP clients as callers of an ingress gateway: a table of client x case, over plaintext and over TLS.

`node.js`, `golang.go` and `python.py` do the same cases and print a line for each: its name and `ok`, or `failed` and
why. Each is started twice: for a sequence of requests, which has to stay on one connection, and for eight requests at
once, which have to be on eight. curl is asked for the same from here; wrk and h2load, which only load, for what they
can. The app tells in `x-framing` how a body reached it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.certificates import Authority
from harness.halves import Half, edge
from harness.wire import App, Message, Side
from lictor.up.ports import free_ports
from policies.edge.server_certificates import CertificateReference, CertificateUpdate
from policies.edge.settings import EdgeSettings
from policies.edge.tls import EdgeTls, FileCertificate

HERE = Path(__file__).parent
LARGE = b"0123456789abcdef" * 65536
CASES = (
    "get", "head", "204", "chunked-answer", "large", "post", "post-chunked", "expect", "keep-alive", "connections",
)  # fmt: skip
PYTHON = ("http.client", "requests", "aiohttp")
CLIENTS = ("curl", *PYTHON, "node", "go", "wrk", "h2load")
PARALLEL = 8
REQUESTS = 400  # of a load
SECONDS = 60


async def tell(side: Side, message: Message) -> bytes:
    """Answer as the cases expect it."""
    del side
    framing = "chunked" if message.get("transfer-encoding") else "length" if message.get("content-length") else "none"
    fields = b"x-framing: %b\r\n" % framing.encode()
    if message.target == "/empty":
        return b"HTTP/1.1 204 No Content\r\n%b\r\n" % fields
    if message.target == "/chunked":
        parts = b"5\r\nparts\r\n6\r\n of it\r\n0\r\n\r\n"
        return b"HTTP/1.1 200 OK\r\n%btransfer-encoding: chunked\r\n\r\n%b" % (fields, parts)
    if message.target == "/slow":
        await asyncio.sleep(0.3)  # so that the next caller is there before this one is done
    body = LARGE if message.target == "/large" else message.body or b"hello"
    head = b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n" % (fields, len(body))
    return head if message.first[0] == "HEAD" else head + body


@dataclass(slots=True)
class Gateway:
    """A gateway's two listeners."""

    half: Half
    urls: dict[str, str]  # plaintext, TLS
    ca: Path
    folder: Path

    def accepted(self) -> int:
        """Return how many connections have come to its listeners."""
        return sum(counts.accepted for counts in self.half.metrics.listeners.values())


@contextlib.asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[Gateway]:
    """Run an ingress gateway in front of a sidecar and the app."""
    authority = Authority("callers")
    ca = folder / "ca.pem"
    ca.write_text(authority.pem)
    plain, secure = free_ports(2)
    services = [{"Name": "web", "Hosts": ["*"]}]
    listeners = [
        {"Port": plain, "Protocol": "http", "Services": services},
        {"Port": secure, "Protocol": "http", "Services": services, "TLS": {"Enabled": True}},
    ]
    updates = [CertificateUpdate(CertificateReference("own", "own"), authority.server("localhost"))]
    settings = EdgeSettings(tls=EdgeTls({"own": FileCertificate("own", "own")}))
    async with (
        App(tell).running() as app,
        edge(authority, listeners, {"web": app.port}, "http", settings, updates) as half,
    ):
        urls = {"plaintext": f"http://localhost:{plain}", "TLS": f"https://localhost:{secure}"}
        yield Gateway(half, urls, ca, folder)


async def output(*words: str) -> str:
    """Return all that a client prints; a line more if it fails."""
    running = await asyncio.create_subprocess_exec(
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(HERE.parent.parent), "no_proxy": "*"},
    )
    try:
        async with asyncio.timeout(SECONDS):
            text, _ = await running.communicate()
    except TimeoutError:
        running.kill()
        await running.wait()
        return f"client failed {SECONDS} s"
    return text.decode(errors="replace") + (f"\nclient failed {running.returncode}" if running.returncode else "")


async def table(
    made: Gateway, clients: Iterable[str], listeners: Iterable[str] = ("plaintext", "TLS")
) -> dict[tuple[str, str, str], str]:
    """Return what came of each (client, listener, case) that is there: "ok", or "failed" and why."""
    found: dict[tuple[str, str, str], str] = {}
    for client in clients:
        for listener in listeners:
            for case, result in (await results(made, client, made.urls[listener])).items():
                found[client, listener, case] = result
    return found


async def results(made: Gateway, client: str, url: str) -> dict[str, str]:
    """Return what came of each case of a client."""
    if client in {"wrk", "h2load"}:
        return await (wrk if client == "wrk" else h2load)(made, url)
    found: dict[str, str] = {}
    before = made.accepted()
    found |= await (curl(made, url) if client == "curl" else script(made, client, url, "sequence"))
    used = made.accepted() - before
    found["keep-alive"] = "ok" if used == 1 else f"failed {used} connections"
    before = made.accepted()
    found |= await (curl_at_once(url, made) if client == "curl" else script(made, client, url, "connections"))
    used = made.accepted() - before
    if used != PARALLEL:
        found["connections"] = f"failed {used} connections"
    return found


async def script(made: Gateway, client: str, url: str, what: str) -> dict[str, str]:
    """Run one of the programs beside this file."""
    if client == "go":
        program = [str(await compiled(made.folder))]
    elif client == "node":
        program = ["node", str(HERE / "node.js")]
    else:
        program = [sys.executable, str(HERE / "python.py")]
    text = await output(*program, url, str(made.ca), what, *([client] if client in PYTHON else []))
    told = dict(re.findall(r"^(\S+) (ok|failed.*)$", text, re.MULTILINE))
    if not told or "client" in told:
        return {"client": f"failed {text[-300:]}"}
    return told


async def compiled(folder: Path) -> Path:
    """Return the Go program, built once."""
    program = folder / "golang"
    if not program.exists():
        text = await output("go", "build", "-o", str(program), str(HERE / "golang.go"))
        assert program.exists(), text
    return program


async def curl(made: Gateway, url: str) -> dict[str, str]:
    """Ask for the sequence with one curl."""
    large, short = made.folder / "large", made.folder / "short"
    large.write_bytes(LARGE)
    short.write_bytes(b"waits")
    send = ("--data-binary", f"@{large}")
    asked: dict[str, tuple[tuple[str, ...], str, tuple[str, str], bytes]] = {
        "get": ((), "/", ("200", "none"), b"hello"),
        "head": (("--head",), "/", ("200", "none"), b""),
        "204": ((), "/empty", ("204", "none"), b""),
        "chunked-answer": ((), "/chunked", ("200", "none"), b"parts of it"),
        "large": ((), "/large", ("200", "none"), LARGE),
        "post": (send, "/echo", ("200", "length"), LARGE),
        "post-chunked": ((*send, "-H", "Transfer-Encoding: chunked"), "/echo", ("200", "chunked"), LARGE),
        "expect": (
            ("--data-binary", f"@{short}", "-H", "Expect: 100-continue", "--expect100-timeout", "5"),
            "/echo",
            ("200", "length"),
            b"waits",
        ),
    }
    words = ["curl"]
    for case, (options, path, _, _) in asked.items():
        out = [
            "-o",
            str(made.folder / f"curl-{case}"),
            "-w",
            f"{case} %{{http_code}} %header{{x-framing}} %{{time_total}}\\n",
        ]
        words += ["-sS", "-m", "10", "--http1.1", "--cacert", str(made.ca), *options, *out, url + path, "--next"]
    text = await output(*words[:-1])
    told = {line.split()[0]: line.split()[1:] for line in text.splitlines() if len(line.split()) == 4}
    found = {}
    for case, (_, _, expected, body) in asked.items():
        right = tuple(told.get(case, [])[:2]) == expected
        file = made.folder / f"curl-{case}"
        got = file.read_bytes() if file.exists() else b""
        right = right and (b"content-length: 5\r\n" in got.lower() if case == "head" else got == body)
        right = right and (case != "expect" or float(told[case][2]) < 4)
        found[case] = "ok" if right else f"failed {told.get(case)} {len(got)} {text[-200:]}"
        file.unlink(missing_ok=True)
    return found


async def curl_at_once(url: str, made: Gateway) -> dict[str, str]:
    """Ask in parallel with one curl."""
    options = ("-sS", "-f", "-m", "10", "--http1.1", "--cacert", str(made.ca), "-Z", "--parallel-immediate")
    text = await output("curl", *options, *[f"{url}/slow"] * PARALLEL)  # and its progress, whatever it is told
    right = text.count("hello") == PARALLEL and "curl: (" not in text and "client failed" not in text
    return {"connections": "ok" if right else f"failed {text[-200:]}"}


async def wrk(made: Gateway, url: str) -> dict[str, str]:
    """Load for a second at a time, over connections that are kept. Of an answer to HEAD it would await the body."""
    found: dict[str, str] = {}
    lua = made.folder / "wrk.lua"
    kinds = {
        "get": ("/", ""),
        "204": ("/empty", ""),
        "chunked-answer": ("/chunked", ""),
        "large": ("/large", ""),
        "post": ("/echo", 'wrk.method = "POST" wrk.body = string.rep("x", 10000)'),
    }
    for case, (path, told) in kinds.items():
        lua.write_text(told)
        before = made.accepted()
        text = await output("wrk", "-t1", f"-c{PARALLEL}", "-d1s", "-s", str(lua), url + path)
        done = re.search(r"(\d+) requests in", text)
        bad = "Socket errors" in text or "Non-2xx" in text or done is None or int(done[1]) < PARALLEL
        found[case] = f"failed {text[-300:]}" if bad else "ok"
        probes = (
            1 if url.startswith("http:") else 0
        )  # it connects once to see whether it can; over TLS that is no caller
        note_kept(found, made.accepted() - before - probes, case)
    return found


async def h2load(made: Gateway, url: str) -> dict[str, str]:
    """Ask a number of times over connections that are kept. Of an answer to HEAD it would await the body."""
    found: dict[str, str] = {}
    body = made.folder / "body"
    body.write_bytes(b"x" * 10000)
    kinds: dict[str, tuple[str, tuple[str, ...]]] = {
        "get": ("/", ()),
        "204": ("/empty", ()),
        "chunked-answer": ("/chunked", ()),
        "large": ("/large", ()),
        "post": ("/echo", ("-d", str(body))),
    }
    for case, (path, options) in kinds.items():
        before = made.accepted()
        words = ("--h1", "-n", str(REQUESTS), "-c", str(PARALLEL), "-m", "1", "-T", "10", *options)
        text = await output("h2load", *words, url + path)
        right = f"{REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout" in text and f"{REQUESTS} 2xx" in text
        found[case] = "ok" if right else f"failed {text[-500:]}"
        note_kept(found, made.accepted() - before, case)
    return found


def note_kept(found: dict[str, str], used: int, case: str) -> None:
    """Say of a load, over all its cases, whether each of its connections was there and was kept."""
    for word in ("keep-alive", "connections"):
        if used != PARALLEL:
            found[word] = f"failed {case}: {used} connections"
        found.setdefault(word, "ok")


def versions() -> dict[str, str]:
    """Return what the programs say of themselves, by client."""
    asked = {
        "curl": ("curl", "--version"),
        "node": ("node", "--version"),
        "go": ("go", "version"),
        "wrk": ("wrk", "-v"),
        "h2load": ("h2load", "--version"),
    }
    found = {}
    for client, words in asked.items():
        if shutil.which(words[0]) is not None:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            version = re.search(r"\d+\.[\d.]+\d", done.stdout + done.stderr)
            found[client] = version[0] if version else "?"
    return found
