"""Owns checkpoints: signed statements, kept outside the database, of how far the audit chain reached and when.

They turn "the chain is consistent" into "the chain is the one that was written": whoever can rewrite the database
can rebuild a chain, but not sign it. A checkpoint is one line of JSON in the file of its day; the files are only
ever appended to (put them on storage that enforces it, or ship them away). Ed25519 signs deterministically, so the
same checkpoint always has the same bytes.
"""

import base64
import binascii
import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tocengine.errors import ConfigurationError

PUBLIC_KEY_FILE = "audit-signing.pub.pem"
_FILE_GLOB = "checkpoints-*.jsonl"
_SEED_BYTES = 32


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Block `block` has hash `hash` (hex) and the log held `records` records up to it, at `at` (UTC, ISO 8601)."""

    version: int = 1
    block: int
    hash: str
    records: int
    at: str

    def signed_bytes(self) -> bytes:
        """What is signed: a purpose, so that the key's signatures mean nothing elsewhere, and the fields in order."""
        return b"tocengine audit checkpoint\n" + msgspec.json.encode(self)


class _Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    checkpoint: Checkpoint
    signature: str  # base64, 64 bytes


class CheckpointLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line read back: where it stands, and the checkpoint if the signature holds, else what is wrong."""

    place: str  # "checkpoints-20260301.jsonl:17"
    checkpoint: Checkpoint | None
    defect: str = ""


def checkpoint_of(block: int, block_hash: bytes, records: int, now: datetime) -> Checkpoint:
    """The checkpoint of one block."""
    at = now.astimezone(UTC).isoformat(timespec="microseconds")
    return Checkpoint(block=block, hash=block_hash.hex(), records=records, at=at)


def append_checkpoint(directory: Path, checkpoint: Checkpoint, key: Ed25519PrivateKey) -> Path:
    """Appends to the file of the checkpoint's day and returns once it is on disk. Raises OSError.

    A line that a crash cut short never was a checkpoint; it is removed before the next one is written, so that every
    complete line that does not verify means tampering.
    """
    day = checkpoint.at[:10].replace("-", "")
    path = directory / f"checkpoints-{day}.jsonl"
    signature = base64.b64encode(key.sign(checkpoint.signed_bytes())).decode()
    line = msgspec.json.encode(_Line(checkpoint=checkpoint, signature=signature)) + b"\n"
    directory.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
    try:
        _drop_torn_line(descriptor)
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        _sync_directory(directory)
    return path


def read_checkpoints(directory: Path, key: Ed25519PublicKey) -> Iterator[CheckpointLine]:
    """Every complete line in the order it was written, one at a time, its signature checked."""
    for path in sorted(directory.glob(_FILE_GLOB)):
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.endswith(b"\n"):
                    yield _check_line(f"{path.name}:{number}", line, key)


def newest_checkpoint(directory: Path, key: Ed25519PublicKey) -> Checkpoint | None:
    """The last valid checkpoint of the newest file that has one: what a restored database is compared with."""
    for path in sorted(directory.glob(_FILE_GLOB), reverse=True):
        newest = None
        with path.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    newest = _check_line(path.name, line, key).checkpoint or newest
        if newest is not None:
            return newest
    return None


def _check_line(place: str, line: bytes, key: Ed25519PublicKey) -> CheckpointLine:
    try:
        read = msgspec.json.decode(line, type=_Line)
        key.verify(base64.b64decode(read.signature, validate=True), read.checkpoint.signed_bytes())
    except msgspec.MsgspecError:
        return CheckpointLine(place=place, checkpoint=None, defect="the line is not a checkpoint")
    except (InvalidSignature, binascii.Error):
        return CheckpointLine(place=place, checkpoint=None, defect="the signature does not match")
    return CheckpointLine(place=place, checkpoint=read.checkpoint)


def _drop_torn_line(descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, 4096, max(0, size - 4096))
    if tail and not tail.endswith(b"\n"):
        os.ftruncate(descriptor, size - len(tail) + tail.rfind(b"\n") + 1)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_signing_key(reference: str) -> Ed25519PrivateKey:
    """The key behind ``file:PATH`` or ``env:NAME``: PEM (PKCS 8), or the 32-byte seed in base64 or hex.

    Raises ConfigurationError without quoting the secret.
    """
    scheme, _, name = reference.partition(":")
    if scheme == "file":
        try:
            raw = Path(name).expanduser().read_bytes()
        except OSError as error:
            raise ConfigurationError(
                f"keys.audit_signing: cannot read {name}: {error.strerror}", hint="openssl genpkey -algorithm ed25519"
            ) from error
    elif scheme == "env":
        raw = os.environ.get(name, "").encode()
        if not raw:
            raise ConfigurationError(f"keys.audit_signing: the environment has no {name}")
    else:
        raise ConfigurationError("keys.audit_signing must start with file: or env:")
    return _parse_key(raw.strip(), reference)


def generate_signing_key(path: Path) -> Ed25519PrivateKey:
    """The key in `path`, made there (mode 0600) if the file does not exist. For the embedded default only."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, pem)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)  # never replaces: of two processes starting at once, the first one's key stands
        draft.unlink()
        _sync_directory(path.parent)
    return load_signing_key(f"file:{path}")


def write_public_key(directory: Path, key: Ed25519PublicKey) -> Path:
    """Leaves the public key beside the checkpoints, for verifiers who hold no private key."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / PUBLIC_KEY_FILE
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    if not path.exists() or path.read_bytes() != pem:
        path.write_bytes(pem)
    return path


def read_public_key(path: Path) -> Ed25519PublicKey:
    """A PEM public key. Raises ConfigurationError."""
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read the audit public key {path}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(f"{path} is not an Ed25519 key")
    return key


def _parse_key(raw: bytes, reference: str) -> Ed25519PrivateKey:
    try:
        if raw.startswith(b"-----BEGIN"):
            key = serialization.load_pem_private_key(raw, password=None)
            if isinstance(key, Ed25519PrivateKey):
                return key
        else:
            seed = bytes.fromhex(raw.decode()) if len(raw) == 2 * _SEED_BYTES else base64.b64decode(raw, validate=True)
            if len(seed) == _SEED_BYTES:
                return Ed25519PrivateKey.from_private_bytes(seed)
    except (ValueError, TypeError):
        pass
    raise ConfigurationError(
        f"keys.audit_signing: {reference} holds no Ed25519 key", hint="PEM, or a 32-byte seed in base64 or hex"
    )
