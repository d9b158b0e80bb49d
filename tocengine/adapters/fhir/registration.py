"""Owns what an operator hands in to register a client: certificates, public keys and scopes, checked before use."""

import json
from pathlib import Path

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key

from tocengine.adapters.fhir.smart import valid_scope
from tocengine.errors import ConfigurationError

MIN_RSA_BITS = 2048
_PRIVATE = ("d", "p", "q", "k")


def read_certificates(path: Path) -> tuple[bytes, ...]:
    """The first certificate of a PEM file, in DER: what follows it are its issuers. Raises ConfigurationError."""
    try:
        found = x509.load_pem_x509_certificates(_read(path))
    except ValueError:
        raise ConfigurationError("no PEM certificate", file=str(path)) from None
    return (found[0].public_bytes(Encoding.DER),)


def read_jwks(path: Path) -> bytes:
    """A JWK Set with the client's public keys in JSON, from such a file or from a PEM public key.

    Raises ConfigurationError: no usable key, a weak one, or a private one, which is nobody's business.
    """
    text = _read(path)
    keys = [_of_pem(text, path)] if text.lstrip().startswith(b"-----") else _of_set(text, path)
    for key in keys:
        if any(name in key for name in _PRIVATE):
            raise ConfigurationError("holds a private key", file=str(path), hint="register the public key alone")
        try:
            public = jwt.PyJWK(key).key
        except (jwt.PyJWTError, ValueError):
            raise ConfigurationError("holds a key that cannot be read", file=str(path)) from None
        if isinstance(public, RSAPublicKey):
            if public.key_size < MIN_RSA_BITS:
                raise ConfigurationError(f"holds an RSA key of fewer than {MIN_RSA_BITS} bits", file=str(path))
        elif not isinstance(public, EllipticCurvePublicKey) or public.curve.name != "secp384r1":
            raise ConfigurationError("holds a key for neither RS384 nor ES384", file=str(path))
    return json.dumps({"keys": keys}).encode()


def read_scopes(text: str) -> str:
    """Scopes, checked. Raises ConfigurationError."""
    for scope in text.split():
        if not valid_scope(scope):
            raise ConfigurationError(f"{scope!r} is no system scope", hint="such as system/*.c or system/Bundle.c")
    if not text.split():
        raise ConfigurationError("a client needs a scope", hint="system/*.c")
    return " ".join(text.split())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", file=str(path)) from None


def _of_set(text: bytes, path: Path) -> list[dict[str, object]]:
    try:
        content = json.loads(text)
        found = [dict(key) for key in content.get("keys", [content])]
    except (ValueError, TypeError, AttributeError):
        raise ConfigurationError("neither a JWK Set nor a PEM public key", file=str(path)) from None
    if not found:
        raise ConfigurationError("a JWK Set without keys", file=str(path))
    return found


def _of_pem(text: bytes, path: Path) -> dict[str, object]:
    if b"PRIVATE KEY" in text:
        raise ConfigurationError("holds a private key", file=str(path), hint="register the public key alone")
    try:
        public = load_pem_public_key(text)
    except ValueError:
        raise ConfigurationError("no PEM public key", file=str(path)) from None
    if isinstance(public, RSAPublicKey):
        return jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True)
    if isinstance(public, EllipticCurvePublicKey):
        return jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True)
    raise ConfigurationError("holds a key for neither RS384 nor ES384", file=str(path))
