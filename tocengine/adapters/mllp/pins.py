"""Owns which client certificates a feed lets in: those that are named by fingerprint or by a name in them."""

from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

FINGERPRINT: Final = "sha256:"


def names_of(certificate: bytes) -> frozenset[str]:
    """All by which a certificate (DER) may be known: its fingerprint, common names, and alternative names."""
    parsed = x509.load_der_x509_certificate(certificate)
    names = {FINGERPRINT + parsed.fingerprint(SHA256()).hex()}
    names.update(str(each.value) for each in parsed.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME))
    try:
        alternative = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        pass
    else:
        for kind in (x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier):
            names.update(alternative.get_values_for_type(kind))
    return frozenset(map(_folded, names))


def _folded(name: str) -> str:
    folded = name.strip().casefold()
    return folded.replace(":", "").replace("sha256", FINGERPRINT, 1) if folded.startswith(FINGERPRINT) else folded


def is_pinned(certificate: bytes | None, pins: Sequence[str]) -> bool:
    """Whether a client's certificate (DER) is one of those a feed is for; `pins` are ``sha256:HEX`` or names.

    Without pins every certificate of the authority is.
    """
    if not pins:
        return True
    return certificate is not None and not names_of(certificate).isdisjoint(map(_folded, pins))
