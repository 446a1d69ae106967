"""Real Redis servers on free loopback ports, and certificates for them."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.requirements import need, need_module


def free_port() -> int:
    """A loopback port that nobody listens on, below those that the system gives to clients: one of
    them could take it before the server does."""
    while True:
        port = 15_000 + secrets.randbelow(17_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Authority:
    """Signs certificates, as a company's own authority does."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._signed(self._name, self._key, None, 30))

    def issue(self, host: str, days: int = 30) -> tuple[Path, Path]:
        """Return files with a certificate for a host, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        files = self.folder / f"{host}-{days}.crt", self.folder / f"{host}-{days}.key"
        files[0].write_bytes(self._signed(name, key, host, days))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def _signed(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, host: str | None, days: int
    ) -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=60))
            .not_valid_after(now + timedelta(days=days, hours=1))
            .add_extension(x509.BasicConstraints(host is None, None), critical=True)
            # Python 3.13 wants certificates to name keys, and those of authorities their use.
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=host is None,
                    crl_sign=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        )
        if host is not None:
            known: list[x509.GeneralName] = [x509.DNSName(host)]
            if host == "localhost":
                known.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
            builder = builder.add_extension(x509.SubjectAlternativeName(known), critical=False)
        made = builder.sign(self._key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM)


@dataclass
class RedisServer:
    """A server process with options as in redis.conf."""

    folder: Path
    port: int = field(default_factory=free_port)
    tls: tuple[Path, Path, Path] | None = None
    """Certificate, key, and file of the authority."""
    options: tuple[str, ...] = ()

    def start(self) -> RedisServer:
        """Start it and wait until it listens; skip the test where server or client is missing."""
        need_module("redis")
        program = need("redis-server")
        self.folder.mkdir(parents=True, exist_ok=True)
        ports = ["--port", str(self.port)]
        if self.tls is not None:
            names = ("--tls-cert-file", "--tls-key-file", "--tls-ca-cert-file")
            files = [part for pair in zip(names, map(str, self.tls), strict=True) for part in pair]
            ports = [
                "--port",
                "0",
                "--tls-port",
                str(self.port),
                "--tls-auth-clients",
                "no",
                *files,
            ]
        command = [program, *ports, "--bind", "127.0.0.1", "--dir", str(self.folder), *self.options]
        log = ["--logfile", str(self.folder / "redis.log"), "--enable-debug-command", "yes"]
        self.process = subprocess.Popen([*command, *log])
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            assert self.process.poll() is None, (self.folder / "redis.log").read_text()
            time.sleep(0.02)
        raise AssertionError("redis-server does not listen")

    def stop(self) -> None:
        """Kill it: nothing is said to its clients."""
        self.process.kill()
        self.process.wait()


@contextmanager
def running(server: RedisServer) -> Iterator[RedisServer]:
    """A server for the time of a block."""
    server.start()
    try:
        yield server
    finally:
        server.stop()
