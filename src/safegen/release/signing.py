"""Signature of a release's statement: model-signing makes and checks it.

model-signing (https://github.com/sigstore/model-transparency) writes a sigstore bundle. It signs
with a key on an elliptic curve, or without one for an identity that sigstore vouches for.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from safegen.errors import MissingExtraError, SafegenError, first_line
from safegen.files import check_regular

PASSWORD = "SAFEGEN_KEY_PASSWORD"
"""Variable of the environment with the password of an encrypted private key."""
STATEMENT = "statement.json"
SIGNATURE = f"{STATEMENT}.sig"
_UNREACHED = "sigstore cannot be reached ({}); go where there is a network, or use a key (--key)"


class Identity(NamedTuple):
    """Publisher who signs without a key.

    Attributes:
        name: e-mail address, or address of a workflow.
        issuer: address of the OpenID Connect issuer that knows the name.
    """

    name: str
    issuer: str

    def __str__(self) -> str:
        return f"{self.name} ({self.issuer})"


class BrokenSealError(SafegenError):
    """A statement is not as it was written, or not signed by its publisher."""

    def __init__(self, file: str, what: str) -> None:
        super().__init__(f"{file}: {what}")


def with_key(path: Path) -> Any:
    """Prepare signing with a private key (PEM).

    Returns:
        What ``sign`` takes.

    Raises:
        SafegenError: the file is no such key, or encrypted with another password than that of the
            environment variable ``PASSWORD``.
    """
    signing, _ = _model_signing()
    check_regular(path)
    password = os.environ.get(PASSWORD)
    secret = password.encode() if password else None  # bytes, whatever its annotation says
    try:
        return signing.Config().use_elliptic_key_signer(private_key=path, password=secret)
    except Exception as error:
        raise SafegenError(
            f"{path}: is no private key on the curve P-256, P-384 or P-521 ({first_line(error)}); "
            "give one of 'openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256', with "
            f"its password, if any, in {PASSWORD}"
        ) from error


def keyless() -> Any:
    """Prepare signing by an identity, that of a workflow or of who logs in.

    Returns:
        What ``sign`` takes.

    Raises:
        SafegenError: sigstore cannot be reached.
    """
    signing, _ = _model_signing()
    try:
        return signing.Config().use_sigstore_signer(use_ambient_credentials=True)
    except Exception as error:
        raise SafegenError(f"--keyless: {_UNREACHED.format(first_line(error))}") from error


def sign(statement: bytes, signer: Any) -> bytes:
    """Sign a statement.

    Args:
        statement: content of its file.
        signer: what ``with_key`` or ``keyless`` returns.

    Returns:
        Content of the signature's file.

    Raises:
        SafegenError: sigstore does not vouch for the identity.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file, signature = Path(scratch, STATEMENT), Path(scratch, SIGNATURE)
        file.write_bytes(statement)
        try:
            signer.sign(file, signature)
        except Exception as error:
            raise SafegenError(
                f"the statement was not signed ({first_line(error)}); give the command once more"
            ) from error
        return signature.read_bytes()


def check_signature(statement: bytes, signature: bytes | None, publisher: Path | Identity) -> None:
    """Check that a publisher signed a statement.

    Args:
        statement: content of its file.
        signature: content of the signature's file; None if there is none.
        publisher: file of the public key (PEM), or the identity.

    Raises:
        BrokenSealError: the statement was changed, or is not signed by the publisher.
        SafegenError: the key cannot be used, or sigstore cannot be reached.
    """
    verifier = _verifier(publisher)
    if signature is None:
        raise BrokenSealError(STATEMENT, f"is not signed: there is no {SIGNATURE}")
    with tempfile.TemporaryDirectory() as scratch:
        copies = Path(scratch, STATEMENT), Path(scratch, SIGNATURE)
        for path, content in zip(copies, (statement, signature), strict=True):
            path.write_bytes(content)
        try:
            verifier.verify(*copies)
            same = _canonical(signature)
        except Exception as error:  # a changed byte may break any part of it
            if str(error).startswith("Signature mismatch"):
                raise BrokenSealError(STATEMENT, "was changed after it was signed") from error
            raise BrokenSealError(
                SIGNATURE, f"was changed, or is not of {publisher} ({first_line(error)})"
            ) from error
    if not same:
        raise BrokenSealError(SIGNATURE, "was changed after it was written")


def _verifier(publisher: Path | Identity) -> Any:
    _, verifying = _model_signing()
    if isinstance(publisher, Identity):
        name, issuer = publisher
        try:
            return verifying.Config().use_sigstore_verifier(identity=name, oidc_issuer=issuer)
        except Exception as error:
            raise SafegenError(f"--identity: {_UNREACHED.format(first_line(error))}") from error
    check_regular(publisher)
    try:
        return verifying.Config().use_elliptic_key_verifier(public_key=publisher)
    except Exception as error:
        raise SafegenError(
            f"{publisher}: is no public key on the curve P-256, P-384 or P-521 "
            f"({first_line(error)}); give the publisher's, as of 'openssl pkey -pubout'"
        ) from error


def _canonical(signature: bytes) -> bool:
    """Test whether a bundle is in the one form that is written.

    Base64 has spare bits, which may change unseen.
    """
    from sigstore_models.bundle.v1 import Bundle

    written: str = Bundle.from_json(signature).to_json()
    return written.encode() == signature


def _model_signing() -> tuple[Any, Any]:
    try:
        from model_signing import signing, verifying
    except ImportError as error:
        raise MissingExtraError("a signature", "release") from error
    return signing, verifying
