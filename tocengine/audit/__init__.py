"""The audit log: rows written with what they record, chained in sealed blocks, checkpointed outside the database."""

from tocengine.audit.checkpoints import (
    Checkpoint,
    generate_signing_key,
    load_signing_key,
    newest_checkpoint,
    read_public_key,
)
from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.audit.sealer import Sealer
from tocengine.audit.verify import Finding, Tampering, VerifyReport, checkpoint_ahead, verify

__all__ = [
    "Checkpoint",
    "Finding",
    "PostgresAuditTrail",
    "Sealer",
    "Tampering",
    "VerifyReport",
    "checkpoint_ahead",
    "generate_signing_key",
    "load_signing_key",
    "newest_checkpoint",
    "read_public_key",
    "verify",
]
