"""Owns what is set aside on the way to routing: rows of the quarantine, with their audit records and work items."""

from datetime import datetime

import msgspec

from tocengine.errors import EventDataError
from tocengine.model.audit import AuditAction, AuditRecord
from tocengine.model.event import EventRecord
from tocengine.model.ids import MessageId, derive
from tocengine.model.message import Problem, Quarantined
from tocengine.model.work import WorkItem, WorkKind, quarantine_subject
from tocengine.ports import LogRecord
from tocengine.routing.postgres import UNREAD, SetAside, storable


def of_event(record: EventRecord, body: bytes, problem: Problem) -> SetAside:
    """An event that cannot be routed; `body` is its record of the log. One that was held back waits no longer."""
    event = record.summary
    return SetAside(
        message_id=event.message_id,
        stage="track",
        feed=storable(event.feed),
        control_id=storable(event.control_id),
        reason=storable(problem.reason),
        location=storable(problem.location),
        code=problem.code,
        text=storable(problem.text),
        answered=storable(event.answered),
        content_type="application/cloudevents+json",
        body=body or msgspec.json.encode({"data": record}),
        received_at=event.received_at,
        trigger=storable(event.trigger),
        part=event.part,
        revision=event.revision,
        day=event.message_day,
        held_back=event.released_at is not None,
    )


def problem_of(error: Exception) -> Problem:
    """What is wrong with an event whose routing raised `error`; nothing of its data."""
    if isinstance(error, EventDataError):
        return error.problem
    return Problem(reason="not_routable", text=f"Routing fails with {type(error).__name__}", stage="track")


def place_of(error: BaseException) -> str:
    """The innermost line of code an error passed: enough to find a defect, and nothing of the data."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return f"{last.tb_frame.f_code.co_filename.rpartition('/')[2]}:{last.tb_lineno}" if last else ""


def of_quarantined(quarantined: Quarantined) -> SetAside:
    message, problem = quarantined.message, quarantined.problem
    return SetAside(
        message_id=message.message_id,
        stage=problem.stage,
        feed=storable(message.feed),
        control_id=storable(message.control_id),
        reason=storable(problem.reason),
        location=storable(problem.location),
        code=problem.code,
        text=storable(problem.text),
        answered=storable(quarantined.answered),
        content_type=message.content_type,
        body=message.body,
        received_at=message.received_at,
        revision=UNREAD,
    )


def undecodable(record: LogRecord, problem: Problem, now: datetime) -> SetAside:
    return SetAside(
        message_id=MessageId(derive("undecodable", record.topic, record.value)),
        stage="track",
        feed="",
        control_id="",
        reason=problem.reason,
        text=problem.text,
        content_type="application/octet-stream",
        body=record.value,
        received_at=now,
        revision=UNREAD,
    )


def audit_record(row: SetAside, fresh: bool, now: datetime) -> AuditRecord:
    return AuditRecord(
        action=AuditAction.MESSAGE_QUARANTINED if fresh else AuditAction.MESSAGE_REPEATED,
        at=now,
        message_id=row.message_id,
        detail={
            "feed": row.feed,
            "stage": row.stage,
            "reason": row.reason,
            "location": row.location,
            "code": row.code,
            "answered": row.answered,
        },
    )


def work_item(row: SetAside, now: datetime) -> WorkItem:
    """One item per event that could not be tracked; messages that fail alike share one, or a bad feed buries all."""
    tracked = row.stage == "track"
    return WorkItem(
        kind=WorkKind.EVENT_SET_ASIDE if tracked else WorkKind.MESSAGE_QUARANTINED,
        subject=str(row.message_id) if tracked else quarantine_subject(row.feed, row.reason, row.location),
        summary=(
            f"An event could not be routed and was set aside ({row.reason})."
            if tracked
            else f"Messages of this feed are quarantined: {row.reason}{' at ' + row.location if row.location else ''}."
        ),
        opened_at=now,
        feed=row.feed,
        message_id=row.message_id,
    )
