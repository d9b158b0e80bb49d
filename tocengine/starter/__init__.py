"""Owns `tocengine init`: a configuration and a directory that run as they are, with a word on every key in them."""

import base64
import os
import secrets
from importlib import resources
from pathlib import Path

from tocengine.errors import ConfigurationError

FILES = ("tocengine.toml", "directory.yaml")


def write_starter(folder: Path) -> list[Path]:
    """Writes the two files into `folder`, made if need be, readable to their owner alone, and returns their paths.

    Raises ConfigurationError, having written nothing, where one of them is there already.
    """
    paths = [folder / name for name in FILES]
    for path in paths:
        if path.exists():
            raise ConfigurationError(f"{path} exists already", hint="init never overwrites; name another folder")
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            text = resources.files(__name__).joinpath("templates", path.name).read_text(encoding="utf-8")
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text.replace("WEBHOOK-SECRET", secret))
    except OSError as error:
        raise ConfigurationError(f"cannot write into {folder}: {error.strerror}") from error
    return paths
