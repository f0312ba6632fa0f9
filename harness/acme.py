"""A real ACME server: OpenBao's PKI, which finds the names that it is to prove in a DNS server of our own.

What a CA proves it proves on ports 80 and 443: gateways of these tests listen there, on loopback addresses other than
127.0.0.1, which Linux has without being told. Ports below 1024 need root, as CI and containers have it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from harness.certificates import Authority, Mistakes
from harness.servers import VaultServer, vault_server

_A, _IN = 1, 1
_NO_SUCH_NAME = 3


class Names:
    """A DNS server for A records, over UDP. `addresses` may change while it runs."""

    def __init__(self, **addresses: str) -> None:
        self.addresses = {name.replace("_", "."): address for name, address in addresses.items()}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, name="names")

    @property
    def address(self) -> str:
        """Return host:port."""
        return "{}:{}".format(*self._socket.getsockname())

    @contextlib.contextmanager
    def running(self) -> Iterator[Names]:
        """Answer until the end of the block."""
        self._thread.start()
        try:
            yield self
        finally:
            self._socket.sendto(b"", self._socket.getsockname())  # the end
            self._thread.join()
            self._socket.close()

    def _serve(self) -> None:
        while query := self._socket.recvfrom(4096):
            data, asker = query
            if not data:
                return
            self._socket.sendto(self.answer(data), asker)

    def answer(self, query: bytes) -> bytes:
        """Return the answer to a query of one question."""
        labels, at = [], 12
        while size := query[at]:
            labels.append(query[at + 1 : at + 1 + size].decode().lower())
            at += 1 + size
        (kind,) = struct.unpack_from("!H", query, at + 1)
        question = query[12 : at + 5]
        address = self.addresses.get(".".join(labels))
        found = b""
        if address is not None and kind == _A:
            found = b"\xc0\x0c" + struct.pack("!HHIH", _A, _IN, 0, 4) + IPv4Address(address).packed
        flags = 0x8580 | (0 if address is not None else _NO_SUCH_NAME)
        return query[:2] + struct.pack("!HHHHH", flags, 1, bool(found), 0, 0) + question + found


@dataclass(slots=True)
class AcmeServer:
    """The CA. `root` is the PEM of who signs; `ca_file` that of the directory's own TLS."""

    vault: VaultServer
    names: Names
    root: str
    ca_file: str

    def directory(self, ttl: str) -> str:
        """Return the directory whose certificates live for so long."""
        role = {"allow_any_name": True, "key_type": "any", "ttl": ttl, "max_ttl": ttl, "not_before_duration": "1s"}
        self.vault.api(f"pki/roles/for-{ttl}", "POST", role)
        return f"{self.vault.address}/v1/pki/roles/for-{ttl}/acme/directory"

    def signed(self) -> int:
        """Return how many certificates there are."""
        return len(self.vault.api("pki/certs?list=true")["data"]["keys"])

    def bind_accounts(self, directory: str) -> tuple[str, str]:
        """Demand external account binding; return a key's id and the key."""
        self._configure("always-required")
        made = self.vault.api(directory.partition("/v1/")[2].replace("/directory", "/new-eab"), "POST", {})["data"]
        return made["id"], made["key"]

    def bind_no_accounts(self) -> None:
        """Demand none."""
        self._configure("not-required")

    def _configure(self, policy: str) -> None:
        settings: dict[str, Any] = {"enabled": True, "dns_resolver": self.names.address, "eab_policy": policy}
        self.vault.api("pki/config/acme", "POST", settings)


@contextlib.contextmanager
def acme_server(folder: Path, **addresses: str) -> Iterator[AcmeServer]:
    """Run the CA. `addresses` are the names that it finds, with `_` for each dot."""
    own = Authority("directory")
    shown = own.server("localhost", mistakes=Mistakes(ips=("127.0.0.1",)))
    files = {"ca": folder / "ca.pem", "cert": folder / "cert.pem", "key": folder / "key.pem"}
    for name, text in (("ca", own.pem), ("cert", shown.chain_pem), ("key", shown.key_pem.decode())):
        files[name].write_text(text)
    with Names(**addresses).running() as names, vault_server({name: str(f) for name, f in files.items()}) as vault:
        headers = ["Last-Modified", "Location", "Replay-Nonce", "Link"]
        config = {"max_lease_ttl": "87600h", "allowed_response_headers": headers}
        vault.api("sys/mounts/pki", "POST", {"type": "pki", "config": config})
        made = vault.api(
            "pki/root/generate/internal", "POST", {"common_name": "Edge CA", "ttl": "87600h", "key_type": "ec"}
        )
        vault.api("pki/config/cluster", "POST", {"path": f"{vault.address}/v1/pki"})
        server = AcmeServer(vault, names, made["data"]["certificate"], str(files["ca"]))
        server.bind_no_accounts()
        yield server
