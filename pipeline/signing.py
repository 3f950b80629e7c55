"""Ed25519 signatures (RFC 8032) of chain heads: keys in PEM files, named by digest."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pipeline.errors import Misconfigured


class Signer:
    """Signs with a private key; `name` is the public key's digest."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.name = Checker(key.public_key()).name

    @classmethod
    def load(cls, path: Path) -> Signer:
        """The signer of a PEM file; raises Misconfigured naming the file."""
        pem = _read(path, "audit.signing_key_file")
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise Misconfigured(
                f"{path} is not an Ed25519 private key in unencrypted PEM",
                remedy="Make one with `sluice audit signing-key create PATH`",
            )
        return cls(key)

    def sign(self, text: bytes) -> bytes:
        """The signature, 64 bytes."""
        return self._key.sign(text)


class Checker:
    """Checks signatures with a public key; `name` is its digest."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self.name = "sha256:" + hashlib.sha256(_der(key)).hexdigest()

    @classmethod
    def load(cls, path: Path) -> Checker:
        """The checker of a PEM file; raises Misconfigured naming the file."""
        pem = _read(path, "--public-key")
        try:
            key = serialization.load_pem_public_key(pem)
        except ValueError:
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise Misconfigured(
                f"{path} is not an Ed25519 public key in PEM",
                remedy="`sluice audit signing-key create` prints the public key of a new pair",
            )
        return cls(key)

    def accepts(self, signature: bytes, text: bytes) -> bool:
        """Whether the private key belonging to this key signed `text`."""
        try:
            self._key.verify(signature, text)
        except InvalidSignature:
            return False
        return True


def create_key(path: Path) -> tuple[str, str]:
    """Write a new private key that only its owner may read; its public PEM and name.

    Raises Misconfigured when the file exists or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise Misconfigured(
            f"the key file {path} cannot be made ({error.strerror})",
            remedy="Give the path of a new file; an existing key is never overwritten",
        ) from error
    with os.fdopen(handle, "wb") as file:
        file.write(pem)
    public = key.public_key()
    text = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return text.decode(), Checker(public).name


def _der(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _read(path: Path, named: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Misconfigured(
            f"the key {path} cannot be read ({error.strerror})", remedy=f"Correct {named}"
        ) from error
