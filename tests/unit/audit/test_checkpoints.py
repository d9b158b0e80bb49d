"""Checkpoint files: appended, signed, torn lines repaired, keys read and made."""

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tocengine.audit.checkpoints import (
    append_checkpoint,
    checkpoint_of,
    generate_signing_key,
    load_signing_key,
    newest_checkpoint,
    read_checkpoints,
    read_public_key,
    write_public_key,
)
from tocengine.errors import ConfigurationError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
FIRST = checkpoint_of(1, b"\x01" * 32, 10, datetime(2026, 3, 1, 23, 59, tzinfo=UTC))
SECOND = checkpoint_of(2, b"\x02" * 32, 20, datetime(2026, 3, 2, 0, 1, tzinfo=UTC))


def test_checkpoints_are_appended_to_the_file_of_their_day(tmp_path: Path) -> None:
    for checkpoint in (FIRST, SECOND):
        append_checkpoint(tmp_path, checkpoint, KEY)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "checkpoints-20260301.jsonl",
        "checkpoints-20260302.jsonl",
    ]
    assert [line.checkpoint for line in read_checkpoints(tmp_path, KEY.public_key())] == [FIRST, SECOND]
    assert newest_checkpoint(tmp_path, KEY.public_key()) == SECOND


def test_the_same_checkpoint_has_the_same_bytes(tmp_path: Path) -> None:
    one = append_checkpoint(tmp_path / "one", FIRST, KEY)
    two = append_checkpoint(tmp_path / "two", FIRST, KEY)
    assert one.read_bytes() == two.read_bytes()


def test_a_line_cut_short_by_a_crash_is_no_checkpoint_and_is_replaced(tmp_path: Path) -> None:
    path = append_checkpoint(tmp_path, FIRST, KEY)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    assert [line.checkpoint for line in read_checkpoints(tmp_path, KEY.public_key())] == [FIRST]
    append_checkpoint(tmp_path, FIRST, KEY)
    assert path.read_bytes() == whole * 2


def test_nothing_written_means_nothing_known(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "absent", KEY.public_key()) is None
    assert list(read_checkpoints(tmp_path / "absent", KEY.public_key())) == []


def test_a_generated_key_is_private_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "audit-signing.pem"
    key = generate_signing_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert generate_signing_key(path).private_bytes_raw() == key.private_bytes_raw()
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_key_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    for name, value in {"SEED": base64.b64encode(bytes(32)).decode(), "HEX": "00" * 32, "PEM": pem.decode()}.items():
        monkeypatch.setenv(name, value)
    for reference in (f"file:{tmp_path / 'key.pem'}", "env:SEED", "env:HEX", "env:PEM"):
        assert load_signing_key(reference).private_bytes_raw() == bytes(32)


@pytest.mark.parametrize("reference", ["", "secret", "env:ABSENT_KEY", "file:/nonexistent/key", "env:GARBAGE"])
def test_an_unusable_key_says_so_without_quoting_it(reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARBAGE", "hunter2-hunter2")
    with pytest.raises(ConfigurationError, match="audit_signing") as refusal:
        load_signing_key(reference)
    assert "hunter2" not in str(refusal.value)


def test_the_public_key_is_left_for_verifiers(tmp_path: Path) -> None:
    path = write_public_key(tmp_path, KEY.public_key())
    assert read_public_key(path).public_bytes_raw() == KEY.public_key().public_bytes_raw()
    path.write_text("nonsense")
    with pytest.raises(ConfigurationError):
        read_public_key(path)
