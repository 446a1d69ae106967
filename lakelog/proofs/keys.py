"""Ed25519 keys in PEM files, which are never in a lake.

A private key is PKCS #8 without a passphrase, in a file that only its owner may read; the public
key beside it, FILE.pub, is a SubjectPublicKeyInfo. Its id is the SHA-256 of that in DER, in hex.
Text before the PEM block is a comment, as OpenSSL reads it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakelog.errors import AlreadyExists, InvalidKey, MissingPackage
from lakelog.keys import key_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

# Group and others.
_OTHERS = 0o077
# Of SubjectPublicKeyInfo before the 32 bytes of an Ed25519 key (RFC 8410).
_SPKI = bytes.fromhex("302a300506032b6570032100")
_MARK, _COMMENT = b"-----BEGIN ", "Comment: "
_PEM_MAX = 1 << 16


@dataclass(frozen=True)
class PublicKey:
    """A key by which signatures are checked; `id` is 64 hex digits."""

    raw: bytes
    comment: str = ""

    @property
    def id(self) -> str:
        """SHA-256 of the key as a SubjectPublicKeyInfo in DER."""
        return hashlib.sha256(_SPKI + self.raw).hexdigest()

    @property
    def pem(self) -> str:
        """The key in PEM, its comment first."""
        body = base64.b64encode(_SPKI + self.raw).decode()
        comment = f"{_COMMENT}{self.comment}\n" if self.comment else ""
        return f"{comment}-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether the key made a signature of these bytes. Raises MissingPackage."""
        ed25519 = _ed25519()
        from cryptography.exceptions import InvalidSignature

        key: Ed25519PublicKey = ed25519.Ed25519PublicKey.from_public_bytes(self.raw)
        try:
            key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    @staticmethod
    def load(encoded: str) -> PublicKey:
        """Read a public key: the name of a PEM file, of a private key too, or the 32 bytes of a key
        in base64. Raises InvalidKey, MissingPackage, OSError."""
        if not os.path.exists(encoded) and (raw := _from_base64(encoded)) is not None:
            return PublicKey(raw)
        ed25519 = _ed25519()
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        data = _read(encoded)
        # The public key is part of the private one.
        if b"PRIVATE KEY" in data:
            return PrivateKey.load(encoded).public
        try:
            key: object = load_pem_public_key(data)
        except Exception:  # whatever the library says of what is no key
            raise InvalidKey(f"{encoded} is no public key in PEM: give FILE.pub") from None
        if not isinstance(key, ed25519.Ed25519PublicKey):
            raise InvalidKey(f"{encoded} is no Ed25519 key: see `lakelog key generate`")
        return PublicKey(key.public_bytes_raw(), _comment(data))


@dataclass(frozen=True)
class PrivateKey:
    """A key that signs, and its public one."""

    public: PublicKey
    _key: Ed25519PrivateKey

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of a signature."""
        return self._key.sign(data)

    @staticmethod
    def generate(path: str, comment: str = "") -> PublicKey:
        """Write a new private key to a file of mode 0600, and its public key to FILE.pub.

        Raises AlreadyExists where either is there, InvalidKey in a lake, MissingPackage, OSError.
        """
        key = _ed25519().Ed25519PrivateKey.generate()
        key_file.refuse_in_lake(path, "private keys")
        public = PublicKey(key.public_key().public_bytes_raw(), " ".join(comment.split()))
        # Both, before either is written.
        for name in (path, f"{path}.pub"):
            if os.path.lexists(name):
                raise AlreadyExists(f"{name} exists: choose another file, keys are not overwritten")
        head = f"{_COMMENT}{public.comment}\n" if public.comment else ""
        # The private key first: a public one alone would be of no use.
        key_file.create(path, head.encode() + _private_pem(key), 0o600)
        key_file.create(f"{path}.pub", public.pem.encode(), 0o644)
        return public

    @staticmethod
    def load(path: str) -> PrivateKey:
        """Read a private key. Raises InvalidKey, MissingPackage, OSError."""
        ed25519 = _ed25519()
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        data = _read(path)
        if b"PRIVATE KEY" not in data:
            raise InvalidKey(f"{path} is no private key in PEM: see `lakelog key generate`")
        # As OpenSSH does: a key that others may read proves nothing.
        mode = os.stat(path).st_mode
        if mode & _OTHERS:
            raise InvalidKey(f"{path}: other users may read this private key: run chmod 600 on it")
        try:
            key: object = load_pem_private_key(data, None)
        except TypeError:
            raise InvalidKey(f"{path}: the key has a passphrase: give one without") from None
        except Exception:  # whatever the library says of what is no key
            raise InvalidKey(f"{path} is damaged: its private key cannot be read") from None
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise InvalidKey(f"{path} is no Ed25519 key: see `lakelog key generate`")
        return PrivateKey(PublicKey(key.public_key().public_bytes_raw(), _comment(data)), key)

    @staticmethod
    def is_in(path: str) -> bool:
        """Whether a file holds a private key. Raises InvalidKey, OSError."""
        return b"PRIVATE KEY" in _read(path)


def _ed25519() -> Any:
    with MissingPackage.unless("sign", "signatures need the package cryptography"):
        from cryptography.hazmat.primitives.asymmetric import ed25519
    return ed25519


def _private_pem(key: Ed25519PrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        data = file.read(_PEM_MAX + 1)
    # A file of another kind may be of any length.
    if len(data) > _PEM_MAX:
        raise InvalidKey(f"{path} is too long for a key")
    return data


def _comment(data: bytes) -> str:
    head = data.partition(_MARK)[0].decode("utf-8", "replace")
    lines = (line for line in head.splitlines() if line.startswith(_COMMENT))
    return next(lines, "").removeprefix(_COMMENT)


def _from_base64(encoded: str) -> bytes | None:
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == 32 else None
