"""Owns the SQL of routing: the directory in force, panel lookups, the told ledger, and what a batch writes."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from uuid import UUID

import asyncpg
import msgspec

from tocengine.model.directory import Level, Recipient
from tocengine.model.encounter import TrackedEncounter, TransitionKind, TransitionStatus
from tocengine.model.facts import Destination
from tocengine.model.ids import EncounterId, FeedName, MessageId, NoticeId, PatientId, RecipientId
from tocengine.model.notice import Basis, NoticeState, ReasonCode
from tocengine.ports import Transaction
from tocengine.postgres import Pool, load_queries, unavailable_errors
from tocengine.routing.directory import DestinationMatch, Directory
from tocengine.routing.ledger import NOBODY, LedgerRow
from tocengine.routing.matching import PanelHit, identifiers
from tocengine.routing.rulings import Drop, Ruling

QUERIES = load_queries(__package__)
MAX_TEXT = 500  # characters of a sender's text in a column; the bytes are kept whole beside it

_recipient_decoder = msgspec.json.Decoder(Recipient)
_encode = msgspec.json.Encoder().encode
_KINDS = {kind.value: kind for kind in TransitionKind}
_STATUSES = {status.value: status for status in TransitionStatus}
_STATES = {state.value: state for state in NoticeState}
_REASONS = {reason.value: reason for reason in ReasonCode}
_LEVELS = {level.value: level for level in Level}
_BASES = {basis.value: basis for basis in Basis}


async def load_directory(connection: Transaction) -> Directory:
    """The directory in force; its version is read first, so that a change in between is loaded next time."""
    version = await connection.fetchval(QUERIES["directory_version"])
    rows = await connection.fetch(QUERIES["directory_in_force"])
    return Directory(version, (_recipient_decoder.decode(row["body"]) for row in rows))


class LiveDirectory:
    """The directory in force, read again when its version changes.

    Implements ports.DestinationResolver and ports.RecipientLookup on the current snapshot. `refresh` belongs
    between two batches, so that one batch sees one version.
    """

    def __init__(self, pool: Pool, refresh_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._pool, self._refresh_s, self._monotonic = pool, refresh_s, monotonic
        self._checked_at: float | None = None
        self.current = Directory()

    async def refresh(self) -> None:
        """Reads the version at most every `refresh_s` seconds. Raises UnavailableError."""
        now = self._monotonic()
        if self._checked_at is not None and now - self._checked_at < self._refresh_s:
            return
        with unavailable_errors():
            async with self._pool.acquire() as connection:
                version = await connection.fetchval(QUERIES["directory_version"])
                if version != self.current.version or self._checked_at is None:
                    self.current = await load_directory(connection)
        self._checked_at = now

    def resolve(self, feed: FeedName, destination: Destination) -> RecipientId | None:
        """As `Directory.resolve`."""
        return self.current.resolve(feed, destination)

    def match(self, feed: FeedName, destination: Destination) -> DestinationMatch:
        """As `Directory.match`."""
        return self.current.match(feed, destination)

    def recipient(self, recipient_id: RecipientId) -> Recipient | None:
        """As `Directory.recipient`."""
        return self.current.recipient(recipient_id)


async def find_panel_hits(transaction: Transaction, tracked: Sequence[TrackedEncounter]) -> list[tuple[int, PanelHit]]:
    """The panel members in force with an identifier of one of the patients, by index into `tracked`."""
    encounters, domains, values = [], [], []
    for index, encounter in enumerate(tracked):
        for key in identifiers(encounter):
            encounters.append(index)
            domains.append(key.domain)
            values.append(key.value)
    rows = await transaction.fetch(QUERIES["panel_hits"], encounters, domains, values)
    return [(row[0], PanelHit(RecipientId(row[1]), row[2], row[3], row[4])) for row in rows]


async def read_ledger(
    transaction: Transaction, encounter_ids: Sequence[EncounterId]
) -> Mapping[EncounterId, list[LedgerRow]]:
    """Every decision about the encounters with the standing of its notice, oldest first."""
    ledger: dict[EncounterId, list[LedgerRow]] = {}
    for row in await transaction.fetch(QUERIES["ledger"], encounter_ids):
        ledger.setdefault(EncounterId(row[0]), []).append(_ledger_row(row))
    return ledger


def _ledger_row(row: asyncpg.Record) -> LedgerRow:
    return LedgerRow(
        recipient_id=RecipientId(row["recipient_id"]),
        fact_kind=_KINDS[row["fact_kind"]],
        occurrence=row["occurrence"],
        watched=row["watched"],
        basis=tuple(_BASES[basis] for basis in row["basis"]),
        reason=_REASONS[row["reason"]] if row["reason"] else None,
        status=_STATUSES[row["status"]] if row["status"] else None,
        level=_LEVELS[row["level"]] if row["level"] else None,
        patient_id=PatientId(row["patient_id"]),
        notice_id=NoticeId(row["notice_id"]) if row["notice_id"] else None,
        state=_STATES[row["state"]] if row["state"] else None,
        possibly_told=bool(row["possibly_told"]),
        body=row["body"] or b"",
    )


async def drop_notices(transaction: Transaction, drops: Sequence[Drop], now: datetime) -> frozenset[UUID]:
    """Takes waiting notices away; returns those that were still there to be taken."""
    rows = await transaction.fetch(
        QUERIES["drop_notices"], [drop.notice_id for drop in drops], [drop.reason.value for drop in drops], now
    )
    return frozenset(row[0] for row in rows)


async def store_rulings(
    transaction: Transaction,
    rulings: Sequence[tuple[TrackedEncounter, Ruling]],
    now: datetime,
) -> int:
    """Writes decisions, notices and lanes of a batch, one statement each; returns how many notices were made.

    The snapshots the notices render are stored before.
    """
    notices = [ruling.notice for _, ruling in rulings if ruling.notice is not None]
    if notices:
        await transaction.execute(
            QUERIES["insert_notices"],
            [notice.notice_id for notice in notices],
            [notice.recipient_id for notice in notices],
            [notice.encounter_id for notice in notices],
            [notice.snapshot_id for notice in notices],
            [_encode(notice) for notice in notices],
            now,
            [notice.expires_at for notice in notices],
        )
    replaced = {
        ruling.replaces: ruling.decision.notice_id
        for _, ruling in rulings
        if ruling.replaces is not None and ruling.decision is not None
    }
    if replaced:
        await transaction.execute(QUERIES["replace_notices"], list(replaced.keys()), list(replaced.values()), now)
    await _store_decisions(transaction, rulings, now)
    await _wake_lanes(transaction, rulings, now)
    return len(notices)


async def _store_decisions(
    transaction: Transaction, rulings: Sequence[tuple[TrackedEncounter, Ruling]], now: datetime
) -> None:
    made = [(tracked, ruling, ruling.decision) for tracked, ruling in rulings if ruling.decision is not None]
    if not made:
        return
    await transaction.execute(
        QUERIES["insert_decisions"],
        [decision.encounter_id for _, _, decision in made],
        [decision.recipient_id or NOBODY for _, _, decision in made],
        [decision.fact_kind.value for _, _, decision in made],
        [decision.occurrence for _, _, decision in made],
        [decision.watched for _, _, decision in made],
        [",".join(decision.basis) for _, _, decision in made],
        [decision.reason.value if decision.reason else None for _, _, decision in made],
        [ruling.status.value if ruling.status else None for _, ruling, _ in made],
        [ruling.level.value if ruling.level else None for _, ruling, _ in made],
        [tracked.patient_id for tracked, _, _ in made],
        [decision.notice_id for _, _, decision in made],
        [decision.evidence for _, _, decision in made],
        [decision.message_id for _, _, decision in made],
        now,
    )


async def _wake_lanes(
    transaction: Transaction, rulings: Sequence[tuple[TrackedEncounter, Ruling]], now: datetime
) -> None:
    lanes: dict[tuple[str, EncounterId], bool] = {}
    for tracked, ruling in rulings:
        if ruling.notice is not None or ruling.drop is not None:
            lane = (ruling.key[0], tracked.encounter_id)
            lanes[lane] = lanes.get(lane, False) or ruling.drop is not None or ruling.replaces is not None
    if lanes:
        await transaction.execute(
            QUERIES["due_lanes"],
            [recipient_id for recipient_id, _ in lanes],
            [encounter_id for _, encounter_id in lanes],
            now,
            list(lanes.values()),
        )


UNREAD = -1
"""The revision of what was set aside before it became an event: received again and read, it is no repeat."""


class SetAside(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the quarantine with its mark in `message_seen`. Texts carry no PHI; `body` is what arrived."""

    message_id: MessageId
    stage: str  # normalize | track
    feed: str
    control_id: str
    reason: str
    location: str = ""
    code: str = ""
    text: str = ""
    answered: str = ""
    content_type: str
    body: bytes
    received_at: datetime
    trigger: str = ""
    part: int = 0
    revision: int = 0
    day: str = ""  # YYYY-MM-DD; "" is the day of receipt
    held_back: bool = False  # an event that waits in `held_event`


async def store_set_aside(transaction: Transaction, rows: Sequence[SetAside]) -> frozenset[UUID]:
    """Keeps what was set aside and not seen before; returns those messages."""
    dispositions = ["QUARANTINED" if row.stage == "normalize" else "SET_ASIDE" for row in rows]
    seen = await transaction.fetch(
        QUERIES["seen"],
        [_day(row) for row in rows],
        [row.message_id for row in rows],
        [row.revision for row in rows],
        [row.part for row in rows],
        [row.feed for row in rows],
        [row.control_id for row in rows],
        [row.trigger for row in rows],
        [row.answered for row in rows],
        [row.received_at for row in rows],
        dispositions,
    )
    fresh = frozenset(row[0] for row in seen)
    rows = [row for row in rows if row.message_id in fresh]
    await transaction.execute(
        QUERIES["quarantine"],
        [row.message_id for row in rows],
        [row.stage for row in rows],
        [row.feed for row in rows],
        [row.control_id for row in rows],
        [row.reason for row in rows],
        [row.location for row in rows],
        [row.code for row in rows],
        [row.text for row in rows],
        [row.answered for row in rows],
        [row.content_type for row in rows],
        [row.body for row in rows],
        [row.received_at for row in rows],
        [row.revision for row in rows],
    )
    return fresh


async def read_unreadable(
    transaction: Transaction, rows: Mapping[tuple[MessageId, int], bytes], now: datetime
) -> list[SetAside]:
    """Rows of events held back, by message id and part, as they are set aside. Of one whose mark is gone, nothing but
    that is known, and that it is found `now`."""
    marks = await transaction.fetch(QUERIES["marks"], [message_id for message_id, _ in rows])
    known = {(mark["message_id"], mark["part"]): mark for mark in marks}
    return [
        _unreadable(message_id, part, body, known.get((message_id, part)), now)
        for (message_id, part), body in rows.items()
    ]


def _unreadable(message_id: MessageId, part: int, body: bytes, mark: asyncpg.Record | None, now: datetime) -> SetAside:
    return SetAside(
        message_id=message_id,
        stage="track",
        feed=mark["feed"] if mark else "",
        control_id=mark["control_id"] if mark else "",
        reason="held_event_unreadable",
        text="What was held back cannot be read any more; the message itself is in the log.",
        answered=mark["answered"] if mark else "",
        content_type="application/octet-stream",
        body=body,
        received_at=mark["received_at"] if mark else now,
        trigger=mark["trigger"] if mark else "",
        part=part,
        day=mark["day"].isoformat() if mark else "",
        held_back=True,
    )


def _day(row: SetAside) -> date:
    try:
        return date.fromisoformat(row.day)
    except ValueError:
        return row.received_at.date()


def storable(text: str) -> str:
    """PostgreSQL text holds every character but NUL, UTF-8 no lone surrogate, and an index entry no long value."""
    return text[:MAX_TEXT].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


async def notify(transaction: Transaction, channels: Sequence[str]) -> None:
    """Wakes listeners when the transaction commits."""
    await transaction.execute(QUERIES["notify"], channels)
