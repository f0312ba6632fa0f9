"""A service of somebody else, for the demo: outside of the mesh, over TLS, with a CA of its own.

python3 partner.py --port 8443 --name partner.example.com --ca /outside/ca.pem

Makes the CA and the certificate when it starts and leaves the CA's certificate in a file, as one gets it by mail.
"""

from __future__ import annotations

import argparse
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAYS = 30


def certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """Return a certificate of a name; one that signs itself is a CA."""
    is_ca, now = name == issuer, datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=0 if is_ca else None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not is_ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def context(name: str, ca_file: Path) -> ssl.SSLContext:
    """Return a server's context with a certificate of the name, once the CA's is in its file."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = certificate("Partner CA", ca_key, "Partner CA", ca_key)
    own = certificate(name, key, "Partner CA", ca_key)
    pem = serialization.Encoding.PEM
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(own.public_bytes(pem))
        file.write(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        file.flush()
        made.load_cert_chain(file.name)
    new = ca_file.with_name(f".{ca_file.name}.new")
    new.write_bytes(ca.public_bytes(pem))
    new.replace(ca_file)
    return made


class Handler(BaseHTTPRequestHandler):
    """Says who asked for what, and how."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer one line."""
        assert isinstance(self.connection, ssl.SSLSocket)  # noqa: S101 - the server's socket is one
        said = f"partner: {self.path} of {self.headers.get('host')} over {self.connection.version()}\n".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


class Server(ThreadingHTTPServer):
    """Shakes hands in the thread of the connection: a silent client must not hold up the others."""

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext) -> None:
        super().__init__(address, Handler)
        self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 - it is the outside: anybody may come
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", default="partner.example.com")
    parser.add_argument("--ca", type=Path, required=True, help="where to leave the CA's certificate")
    arguments = parser.parse_args()
    Server((arguments.host, arguments.port), context(arguments.name, arguments.ca)).serve_forever()


if __name__ == "__main__":
    main()
