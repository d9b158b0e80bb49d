"""When a checkpoint is due."""

from datetime import timedelta

import pytest

from tocengine.audit.sealer import checkpoint_due
from tocengine.config import AuditSettings

SETTINGS = AuditSettings(checkpoint_records=1000, checkpoint_s=300)


@pytest.mark.parametrize(
    ("records", "seconds", "due"),
    [(0, 10_000, False), (1, 299, False), (1, 300, True), (999, 0, False), (1000, 0, True), (-5, 400, False)],
)
def test_checkpoint_due(records: int, seconds: int, due: bool) -> None:
    assert checkpoint_due(records, timedelta(seconds=seconds), SETTINGS) is due
