"""The files `tocengine init` writes."""

from pathlib import Path

import pytest
import yaml

from tocengine.config_file import load_config, sources
from tocengine.errors import ConfigurationError
from tocengine.starter import write_starter


def test_what_init_writes_can_be_used_as_it_is(tmp_path: Path) -> None:
    settings, directory = write_starter(tmp_path / "new")
    config = load_config(settings, {})
    assert config.is_embedded
    assert set(sources(config)) == {"stj-adt", "stj-fhir"}
    endpoint = yaml.safe_load(directory.read_text())["facilities"][0]["endpoints"][0]
    assert endpoint["secret"].startswith("whsec_")
    assert directory.stat().st_mode & 0o777 == 0o600


def test_every_commented_setting_is_known(tmp_path: Path) -> None:
    """What stands behind a comment sign in the template is true too."""
    settings, _ = write_starter(tmp_path)
    (tmp_path / "keys").mkdir()
    for name in ("patient_hash", "audit_signing.pem"):
        (tmp_path / "keys" / name).touch()
    lines = settings.read_text().replace("# [", "[").replace('kind = "postgres"', 'kind = "kafka"').splitlines()
    opened = [line.removeprefix("# ") if " = " in line and "tls = " not in line else line for line in lines]
    settings.write_text("\n".join(opened))
    assert load_config(settings, {}).event_log.kafka.sasl_password == "env:KAFKA_PASSWORD"


def test_init_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "directory.yaml").write_text("mine")
    with pytest.raises(ConfigurationError, match="exists already"):
        write_starter(tmp_path)
    assert not (tmp_path / "tocengine.toml").exists()
