"""Where an engine puts the sockets of its roles, and what it says of a folder it cannot use."""

import os
from pathlib import Path

import pytest

from tocengine.commands.run import _make_private
from tocengine.config import AuditSettings, Config, EngineSettings
from tocengine.deployment import prepare_checkpoint_dir, role_socket
from tocengine.embedded.server import SOCKET_PATH_LIMIT
from tocengine.errors import ConfigurationError


@pytest.mark.parametrize("length", [10, 200])
def test_a_role_socket_fits_whatever_the_data_directory(length: int) -> None:
    config = Config(engine=EngineSettings(data_dir=Path("/srv") / ("d" * length)))
    ingest, route = role_socket(config, "ingest"), role_socket(config, "route-deliver")
    assert len(os.fsencode(route)) <= SOCKET_PATH_LIMIT
    assert ingest != route
    other = Config(engine=EngineSettings(data_dir=Path("/srv") / ("e" * length)))
    assert role_socket(other, "ingest") != ingest


def test_a_data_directory_that_is_a_file_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError):
        _make_private(tmp_path / "file" / "run")


def test_a_directory_that_takes_no_checkpoints_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file" / "audit"):
        with pytest.raises(ConfigurationError, match=r"audit\.checkpoint_dir: .* cannot be written"):
            prepare_checkpoint_dir(Config(audit=AuditSettings(checkpoint_dir=directory)))
    prepare_checkpoint_dir(Config(audit=AuditSettings(checkpoint_dir=tmp_path / "new" / "audit")))
    assert (tmp_path / "new" / "audit").is_dir()
    prepare_checkpoint_dir(Config(engine=EngineSettings(data_dir=tmp_path / "data")))
    assert not (tmp_path / "data").exists()


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to("elsewhere")
    with pytest.raises(ConfigurationError):
        _make_private(tmp_path / "run")
