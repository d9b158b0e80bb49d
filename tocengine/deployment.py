"""Owns what follows from a configuration: the roles there are, what partners call the engine, where things lie."""

import hashlib
import os
from enum import StrEnum
from pathlib import Path

from tocengine.config import Config
from tocengine.config_file import domains_by_name
from tocengine.embedded.server import SOCKET_PATH_LIMIT
from tocengine.errors import ConfigurationError
from tocengine.model.profile import EngineIdentity


class Role(StrEnum):
    """What a process does. Scaled out there may be any number of each."""

    INGEST = "ingest"
    ROUTE = "route"
    DELIVER = "deliver"


def fhir_base(config: Config) -> str:
    """The FHIR base as partners reach it."""
    return config.engine.base_url.rstrip("/") + "/fhir"


def engine_identity(config: Config) -> EngineIdentity:
    """Who this engine is to its partners."""
    return EngineIdentity(
        name=config.engine.name,
        base_url=fhir_base(config),
        organization=config.engine.organization,
        facilities={facility.id: facility for facility in config.facilities},
        domains=domains_by_name(config),
    )


def role_socket(config: Config, name: str) -> Path:
    """Where a supervised role serves its admin pages: beside the data, or in /tmp where that path is too long."""
    beside = config.engine.data_dir / "run" / f"{name}.sock"
    if len(os.fsencode(beside)) <= SOCKET_PATH_LIMIT:
        return beside
    digest = hashlib.sha256(os.fsencode(config.engine.data_dir)).hexdigest()[:12]
    return Path("/tmp") / f"tocengine-run-{os.geteuid()}-{digest}" / f"{name}.sock"  # noqa: S108


def checkpoint_dir(config: Config) -> Path:
    """Where signed audit checkpoints are kept: outside the database."""
    return config.audit.checkpoint_dir or config.engine.data_dir / "audit"


def prepare_checkpoint_dir(config: Config) -> None:
    """Makes a directory of its own for them. Raises ConfigurationError where they cannot be kept there.

    For whoever starts the engine. A role that is started again goes on without it, and asks a person.
    """
    directory = config.audit.checkpoint_dir
    if directory is None:  # beside the data, which PostgreSQL could not be started without
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = error.strerror or ""
        raise ConfigurationError(f"audit.checkpoint_dir: {directory} cannot be written", hint=hint) from error
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigurationError(f"audit.checkpoint_dir: {directory} cannot be written")
