"""Owns how secrets are read: by reference, never with a value in a log or an error."""

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from tocengine.config import Config
from tocengine.errors import ConfigurationError

KEY_BYTES = 32


def resolve_secret(reference: str, *, environ: Mapping[str, str] | None = None) -> str:
    """The text behind ``env:NAME`` or ``file:PATH`` (final line ends dropped); anything else is the secret itself.

    Raises ConfigurationError naming the reference, never the secret.
    """
    kind, _, place = reference.partition(":")
    if kind == "env":
        value = (os.environ if environ is None else environ).get(place, "")
        if not value:
            raise ConfigurationError(f"the environment variable {place} is not set")
        return value
    if kind == "file":
        try:
            value = Path(place).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"the secret file {place} cannot be read") from error
        if not value:
            raise ConfigurationError(f"the secret file {place} is empty")
        return value
    return reference


def patient_hash_key(config: Config) -> bytes:
    """The key of the keyed hash that stands for a patient in topics; the same for every process of the engine.

    On the embedded default it is generated in ``DATA_DIR/keys`` when it is first needed. Raises ConfigurationError.
    """
    if not config.keys.patient_hash and config.is_embedded:
        return _generated(config.engine.data_dir / "keys" / "patient_hash").encode()
    key = resolve_secret(config.keys.patient_hash).encode()
    if len(key) < KEY_BYTES:
        raise ConfigurationError(f"keys.patient_hash is {len(key)} bytes long, {KEY_BYTES} are needed")
    return key


def _generated(path: Path) -> str:
    """What stands in `path`, put there if it is new; of two processes starting at once the first one's stands."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return resolve_secret(f"file:{path}")
