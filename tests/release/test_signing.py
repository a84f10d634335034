"""Signatures: by each kind of key, strict about every byte, and mends for what cannot be used."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from safegen.errors import SafegenError
from safegen.release.signing import (
    PASSWORD,
    SIGNATURE,
    STATEMENT,
    BrokenSealError,
    Identity,
    check_signature,
    keyless,
    sign,
    with_key,
)

TOLD = b'{"a": 1}'
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
OTHER_KINDS = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
}


def write_keys(folder: Path, key: Any, password: bytes | None = None) -> tuple[Path, Path]:
    hidden = form.BestAvailableEncryption(password) if password else form.NoEncryption()
    pem = form.Encoding.PEM
    folder.mkdir(exist_ok=True)
    private, public = folder / "key.pem", folder / "key.pub"
    private.write_bytes(key.private_bytes(pem, form.PrivateFormat.PKCS8, hidden))
    public.write_bytes(key.public_key().public_bytes(pem, form.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A key pair on the curve P-256."""
    return write_keys(tmp_path_factory.mktemp("keys"), ec.generate_private_key(ec.SECP256R1()))


@pytest.mark.parametrize("curve", CURVES)
def test_what_a_key_signs_its_public_half_checks(tmp_path: Path, curve: Any) -> None:
    private, public = write_keys(tmp_path, ec.generate_private_key(curve()))
    signature = sign(TOLD, with_key(private))
    check_signature(TOLD, signature, public)
    _, other = write_keys(tmp_path / "other", ec.generate_private_key(curve()))
    with pytest.raises(BrokenSealError, match=f"{SIGNATURE}: was changed, or is not of .*other"):
        check_signature(TOLD, signature, other)


def test_every_changed_byte_is_found_in_its_file(keys: tuple[Path, Path]) -> None:
    private, public = keys
    signature = sign(TOLD, with_key(private))
    for place in range(len(TOLD)):
        broken = TOLD[:place] + bytes([TOLD[place] ^ 1]) + TOLD[place + 1 :]
        with pytest.raises(BrokenSealError, match=f"{STATEMENT}: was changed after"):
            check_signature(broken, signature, public)
    for place in range(0, len(signature), 3):
        broken = signature[:place] + bytes([signature[place] ^ 1]) + signature[place + 1 :]
        with pytest.raises(BrokenSealError, match=f"{SIGNATURE}: was changed"):
            check_signature(TOLD, broken, public)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b"[" * 10_000, b'{"mediaType": 1}'])
def test_what_is_no_signature_is_said(keys: tuple[Path, Path], data: bytes) -> None:
    with pytest.raises(BrokenSealError, match=f"{SIGNATURE}: was changed, or is not of"):
        check_signature(TOLD, data, keys[1])


def test_nobody_signed_without_a_signature(keys: tuple[Path, Path]) -> None:
    with pytest.raises(BrokenSealError, match=f"is not signed: there is no {SIGNATURE}"):
        check_signature(TOLD, None, keys[1])


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_keys_of_other_kinds_are_refused(tmp_path: Path, kind: str) -> None:
    private, public = write_keys(tmp_path, OTHER_KINDS[kind]())
    with pytest.raises(SafegenError, match=r"key\.pem: is no private key on the curve P-256"):
        with_key(private)
    with pytest.raises(SafegenError, match=r"key\.pub: is no public key on the curve P-256"):
        check_signature(TOLD, b"", public)


def test_a_key_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = write_keys(tmp_path, ec.generate_private_key(ec.SECP256R1()), b"secret")
    monkeypatch.delenv(PASSWORD, raising=False)
    with pytest.raises(SafegenError, match=r"key\.pem: is no private key .*SAFEGEN_KEY_PASSWORD"):
        with_key(private)
    monkeypatch.setenv(PASSWORD, "secret")
    check_signature(TOLD, sign(TOLD, with_key(private)), public)
    with pytest.raises(SafegenError, match=r"key\.pem: is no public key"):
        check_signature(TOLD, b"", private)
    with pytest.raises(SafegenError, match=r"key\.pub: is no private key"):
        with_key(public)
    with pytest.raises(SafegenError, match="no such file"):
        with_key(tmp_path / "none.pem")


def test_an_identity_needs_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SafegenError, match="--keyless: sigstore cannot be reached"):
        keyless()
    with pytest.raises(SafegenError, match="--identity: sigstore cannot be reached"):
        check_signature(TOLD, b"", Identity("me@example.org", "https://example.org"))
