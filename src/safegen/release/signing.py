"""Signature of a statement: a DSSE envelope, signed with a key pair in PEM files.

DSSE (https://github.com/secure-systems-lab/dsse) is the envelope of in-toto and sigstore. The keys
are Ed25519, ECDSA or RSA. An envelope without signatures is one that nobody signed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.errors import MissingExtraError, SafegenError, first_line
from safegen.files import check_regular

if TYPE_CHECKING:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner, SSlibKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
PASSWORD = "SAFEGEN_KEY_PASSWORD"
"""Variable of the environment with the password of an encrypted private key."""


class BrokenSealError(SafegenError):
    """An envelope is not as it was written, or not signed with the key."""


def seal(payload: bytes, key: Path | None) -> bytes:
    """Wrap a payload in an envelope.

    Args:
        payload: what is signed.
        key: file of the private key (PEM); None leaves the envelope unsigned.

    Raises:
        SafegenError: the key cannot be used.
    """
    envelope = _envelope_class()(payload, PAYLOAD_TYPE, {})
    if key is not None:
        envelope.sign(private_key(key))
    return _written(envelope)


def unseal(data: bytes, key: Path | None) -> bytes:
    """Return the payload of an envelope.

    Args:
        data: the envelope's file.
        key: file of the public key (PEM); None does not check the signature.

    Raises:
        BrokenSealError: the envelope differs from what ``seal`` writes, or is not signed with the
            key.
        SafegenError: the key cannot be used.
    """
    envelope_class = _envelope_class()
    public = None if key is None else public_key(key)
    try:
        envelope = envelope_class.from_dict(json.loads(data))
        same = _written(envelope) == data and envelope.payload_type == PAYLOAD_TYPE
    except Exception as error:  # a changed byte may break any part of it
        raise BrokenSealError(f"is no signed statement ({first_line(error)})") from error
    if not same:
        raise BrokenSealError("was changed after it was written")
    if public is not None:
        _check_signature(envelope, public)
    payload: bytes = envelope.payload
    return payload


def is_signed(data: bytes) -> bool:
    """Test whether an envelope that ``unseal`` reads has a signature."""
    return bool(json.loads(data)["signatures"])


def require_signing() -> None:
    """Refuse to begin what cannot be signed in the end.

    Raises:
        SafegenError: the optional packages for signatures are missing.
    """
    _envelope_class()


def private_key(path: Path) -> CryptoSigner:
    """Read a private key (PEM).

    Raises:
        SafegenError: the file is no such key, or encrypted with another password than that of the
            environment variable ``PASSWORD``.
    """
    _envelope_class()
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    check_regular(path)
    password = os.environ.get(PASSWORD)
    try:
        key = load_pem_private_key(path.read_bytes(), password.encode() if password else None)
        return CryptoSigner(key)
    except Exception as error:
        raise SafegenError(
            f"{path}: is no private key ({first_line(error)}); give one of 'openssl genpkey "
            f"-algorithm ed25519', with its password, if any, in {PASSWORD}"
        ) from error


def public_key(path: Path) -> SSlibKey:
    """Read a public key (PEM).

    Raises:
        SafegenError: the file is no such key.
    """
    _envelope_class()
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    check_regular(path)
    try:
        return SSlibKey.from_crypto(load_pem_public_key(path.read_bytes()))
    except Exception as error:
        raise SafegenError(
            f"{path}: is no public key ({first_line(error)}); give the publisher's, as of 'openssl "
            "pkey -pubout'"
        ) from error


def _check_signature(envelope: Envelope, key: SSlibKey) -> None:
    from securesystemslib.exceptions import VerificationError

    if not envelope.signatures:
        raise BrokenSealError("is not signed")
    try:
        envelope.verify([key], 1)
    except VerificationError as error:
        raise BrokenSealError("is not signed with this key, or was changed") from error


def _written(envelope: Envelope) -> bytes:
    """Write an envelope in its one form, so that no changed byte goes unseen."""
    return (json.dumps(envelope.to_dict(), sort_keys=True) + "\n").encode()


def _envelope_class() -> Any:
    try:
        import cryptography  # noqa: F401
        from securesystemslib.dsse import Envelope
    except ImportError as error:
        raise MissingExtraError("a release", "release") from error
    return Envelope
