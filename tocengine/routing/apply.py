"""Owns applying a directory: the plan a person is shown, and the transaction that does it, keeping history."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from enum import StrEnum

import msgspec

from tocengine.errors import ConfigurationError
from tocengine.model.audit import AuditAction, AuditRecord
from tocengine.model.directory import OPT_OUT, Recipient
from tocengine.model.ids import RecipientId
from tocengine.ports import AuditTrail, Transaction
from tocengine.routing.directory_file import DirectoryFile
from tocengine.routing.panels import (
    PanelFile,
    PanelPlan,
    apply_stage,
    csv_rows,
    member_rows,
    stage,
    staged_changes,
)
from tocengine.routing.postgres import QUERIES

_decoder = msgspec.json.Decoder(Recipient)


class Action(StrEnum):
    """What happens to an object of the directory."""

    ADD = "add"
    CHANGE = "change"
    RETIRE = "retire"
    MISSING = "missing"  # in force and not in the file: retired only with prune


class Change(msgspec.Struct, frozen=True):
    """One object; `fields` are the names of what changes, never values (they may be secrets)."""

    action: Action
    recipient_id: RecipientId
    name: str
    fields: tuple[str, ...] = ()
    recipient: Recipient | None = None  # as it will be
    version: int = 0  # the newest one before


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What applying `file` would do. `base` is the directory version it was made against."""

    file: DirectoryFile | PanelFile
    changes: tuple[Change, ...]
    panels: tuple[PanelPlan, ...]
    base: int
    prune: bool
    warnings: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Applying would change nothing."""
        objects = any(change.action is not Action.MISSING for change in self.changes)
        return not objects and not any(panel.changes for panel in self.panels)


async def plan(connection: Transaction, file: DirectoryFile, prune: bool = False) -> Plan:
    """What applying `file` would add, change and retire. Changes nothing.

    Raises ConfigurationError where a panel names someone who is neither in the file nor in the directory.
    """
    async with _rolled_back(connection):
        return await _plan(connection, file, prune)


async def plan_panel(connection: Transaction, file: PanelFile, prune: bool = False) -> Plan:
    """What applying a panel in CSV would do. Raises ConfigurationError with the line of a bad row."""
    async with _rolled_back(connection):
        return await _plan_panel(connection, file, prune)


async def apply(connection: Transaction, planned: Plan, actor: str, now: datetime, audit: AuditTrail) -> Plan:
    """Does what `planned` says, in one transaction with its audit record, and returns what was done.

    A running engine follows within `routing.directory_refresh_s`. Raises ConfigurationError where the directory was
    changed since the plan was made.
    """
    async with connection.transaction():
        base = await connection.fetchval(QUERIES["lock_directory"])
        if base != planned.base:
            raise ConfigurationError("the directory was changed since this plan was made", hint="plan again")
        if isinstance(planned.file, PanelFile):
            done = await _plan_panel(connection, planned.file, planned.prune)
        else:
            done = await _plan(connection, planned.file, planned.prune)
        if done.is_empty:
            return done
        await _apply_objects(connection, done.changes, actor, now)
        await apply_stage(connection, [panel.recipient_id for panel in done.panels], done.prune, now)
        await audit.record(connection, [_audit_record(done, actor, now)])
        return done


@asynccontextmanager
async def _rolled_back(connection: Transaction) -> AsyncIterator[None]:
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


async def _plan(connection: Transaction, file: DirectoryFile, prune: bool) -> Plan:
    base = await connection.fetchval(QUERIES["directory_version"])
    rows = await connection.fetch(QUERIES["object_versions"])
    in_force = {
        RecipientId(f"{row['kind']}:{row['id']}"): _decoder.decode(row["body"]) for row in rows if row["in_force"]
    }
    versions = {RecipientId(f"{row['kind']}:{row['id']}"): row["version"] for row in rows}
    listed = {recipient.recipient_id: recipient for recipient in file.recipients}
    changes = [
        change
        for recipient in file.recipients
        if (change := _change(recipient, in_force.get(recipient.recipient_id), versions)) is not None
    ]
    gone = Action.RETIRE if prune else Action.MISSING
    changes += [
        Change(gone, recipient_id, recipient.name, version=versions[recipient_id])
        for recipient_id, recipient in in_force.items()
        if recipient_id not in listed
    ]
    for panel in file.panels:
        recipient_id = RecipientId(panel.recipient_id.removeprefix(OPT_OUT))
        if recipient_id and recipient_id not in listed and (prune or recipient_id not in in_force):
            raise ConfigurationError(
                f"there is no {recipient_id.replace(':', ' ')}", file=str(file.path), line=panel.line
            )
    owners = [panel.recipient_id for panel in file.panels]
    if file.opt_outs:
        rows = await connection.fetch(QUERIES["opt_outs_in_force"])
        owners += [RecipientId(row["recipient_id"]) for row in rows if row["recipient_id"] not in owners]
    members = (member for panel in file.panels for member in panel.members)
    await stage(connection, member_rows(members), str(file.path))
    panels = await staged_changes(connection, owners, prune) if owners else ()
    return Plan(file=file, changes=tuple(changes), panels=panels, base=base, prune=prune, warnings=file.warnings)


def _change(recipient: Recipient, known: Recipient | None, versions: dict[RecipientId, int]) -> Change | None:
    version = versions.get(recipient.recipient_id, 0)
    if known is None:
        return Change(Action.ADD, recipient.recipient_id, recipient.name, (), recipient, version)
    fields = tuple(name for name in recipient.__struct_fields__ if getattr(recipient, name) != getattr(known, name))
    if not fields:
        return None
    return Change(Action.CHANGE, recipient.recipient_id, recipient.name, fields, recipient, version)


async def _plan_panel(connection: Transaction, file: PanelFile, prune: bool) -> Plan:
    base = await connection.fetchval(QUERIES["directory_version"])
    rows = await connection.fetch(QUERIES["object_versions"])
    if not any(row["in_force"] and f"{row['kind']}:{row['id']}" == file.recipient_id for row in rows):
        raise ConfigurationError(
            f"there is no {file.recipient_id.replace(':', ' ')}", hint="apply the directory that names it first"
        )
    await stage(connection, csv_rows(file), str(file.path))
    panels = await staged_changes(connection, [file.recipient_id], prune)
    return Plan(file=file, changes=(), panels=panels, base=base, prune=prune)


async def _apply_objects(connection: Transaction, changes: Sequence[Change], actor: str, now: datetime) -> None:
    replaced = [change for change in changes if change.action in (Action.CHANGE, Action.RETIRE)]
    written = [change for change in changes if change.recipient is not None]
    if replaced:
        await connection.execute(
            QUERIES["retire_objects"],
            [change.recipient_id.partition(":")[0] for change in replaced],
            [change.recipient_id.partition(":")[2] for change in replaced],
            now,
        )
    if written:
        await connection.execute(
            QUERIES["add_objects"],
            [change.recipient_id.partition(":")[0] for change in written],
            [change.recipient_id.partition(":")[2] for change in written],
            [change.version + 1 for change in written],
            [msgspec.json.encode(change.recipient) for change in written],
            now,
            actor,
        )
    retired = [change.recipient_id for change in changes if change.action is Action.RETIRE]
    if retired:
        await connection.execute(QUERIES["retire_panels"], retired, now)
    if replaced or written:
        await connection.fetchval(QUERIES["raise_directory_version"])


def _audit_record(done: Plan, actor: str, now: datetime) -> AuditRecord:
    detail: dict[str, object] = {"file": done.file.path.name, "prune": done.prune}
    for action in (Action.ADD, Action.CHANGE, Action.RETIRE):
        ids = [str(change.recipient_id) for change in done.changes if change.action is action]
        if ids:
            detail[action.value] = ids
    detail["panels"] = {
        panel.recipient_id: {
            "added": panel.added,
            "changed": panel.changed,
            "retired": panel.missing if panel.prune else 0,
        }
        for panel in done.panels
        if panel.changes
    }
    return AuditRecord(action=AuditAction.DIRECTORY_APPLIED, at=now, actor=actor, detail=detail)
