"""Envelopes: signed with each kind of key, strict about every byte, and mends for bad keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from safegen.errors import SafegenError
from safegen.release.signing import PASSWORD, BrokenSealError, is_signed, seal, unseal

PAYLOAD = b'{"a": 1}'
KINDS = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
}


def write_keys(folder: Path, key: Any, password: bytes | None = None) -> tuple[Path, Path]:
    hidden = form.BestAvailableEncryption(password) if password else form.NoEncryption()
    pem = form.Encoding.PEM
    private, public = folder / "key.pem", folder / "key.pub"
    private.write_bytes(key.private_bytes(pem, form.PrivateFormat.PKCS8, hidden))
    public.write_bytes(key.public_key().public_bytes(pem, form.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_key_signs_its_public_half_opens(tmp_path: Path, kind: str) -> None:
    private, public = write_keys(tmp_path, KINDS[kind]())
    sealed = seal(PAYLOAD, private)
    assert is_signed(sealed)
    assert unseal(sealed, public) == unseal(sealed, None) == PAYLOAD
    (tmp_path / "other").mkdir()
    _, other = write_keys(tmp_path / "other", KINDS[kind]())
    with pytest.raises(BrokenSealError, match="not signed with this key"):
        unseal(sealed, other)


def test_every_changed_byte_breaks_the_seal(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path, KINDS["ecdsa"]())
    sealed = seal(PAYLOAD, private)
    for place in range(len(sealed)):
        for changed in (sealed[place] ^ 1, sealed[place] ^ 0x20):
            broken = sealed[:place] + bytes([changed]) + sealed[place + 1 :]
            with pytest.raises(BrokenSealError):
                unseal(broken, public)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b"[" * 10_000, b'{"payload": 1}'])
def test_what_is_no_envelope_is_said(data: bytes) -> None:
    with pytest.raises(BrokenSealError, match="is no signed statement"):
        unseal(data, None)


def test_nobody_signed_without_a_key(tmp_path: Path) -> None:
    sealed = seal(PAYLOAD, None)
    assert not is_signed(sealed)
    assert unseal(sealed, None) == PAYLOAD
    _, public = write_keys(tmp_path, KINDS["ed25519"]())
    with pytest.raises(BrokenSealError, match="is not signed"):
        unseal(sealed, public)


def test_a_key_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = write_keys(tmp_path, KINDS["ed25519"](), b"secret")
    monkeypatch.delenv(PASSWORD, raising=False)
    with pytest.raises(SafegenError, match=r"key\.pem: is no private key .*SAFEGEN_KEY_PASSWORD"):
        seal(PAYLOAD, private)
    monkeypatch.setenv(PASSWORD, "secret")
    assert unseal(seal(PAYLOAD, private), public) == PAYLOAD
    with pytest.raises(SafegenError, match=r"key\.pem: is no public key"):
        unseal(seal(PAYLOAD, private), private)
    with pytest.raises(SafegenError, match=r"key\.pub: is no private key"):
        seal(PAYLOAD, public)
    with pytest.raises(SafegenError, match="no such file"):
        seal(PAYLOAD, tmp_path / "none.pem")
