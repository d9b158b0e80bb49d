"""Owns the told ledger: what each recipient holds to be true of each fact, read from decisions and their notices."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import msgspec

from tocengine.model.directory import Level
from tocengine.model.encounter import Adopted, TransitionKind, TransitionStatus
from tocengine.model.ids import EncounterId, NoticeId, PatientId, RecipientId
from tocengine.model.notice import Basis, Notice, NoticeState, ReasonCode

NOBODY = RecipientId("")
"""Stands for the recipient of a fact that has none."""
LedgerKey: TypeAlias = tuple[RecipientId, TransitionKind, int]
"""(recipient, kind of the fact, its occurrence)."""

_REACHED = frozenset({NoticeState.SENDING, NoticeState.SENT, NoticeState.DELIVERED})
_WAITING = frozenset({NoticeState.QUEUED, NoticeState.HELD, NoticeState.FAILED})
_SAYS_NO_MORE = frozenset({TransitionStatus.CANCELLED, TransitionStatus.RETRACTED})
_notice_decoder = msgspec.json.Decoder(Notice)


class LedgerRow(msgspec.Struct, frozen=True, kw_only=True):
    """One decision joined to its notice, where it made one."""

    recipient_id: RecipientId
    fact_kind: TransitionKind
    occurrence: int
    watched: bytes
    basis: tuple[Basis, ...] = ()
    reason: ReasonCode | None = None
    status: TransitionStatus | None = None
    level: Level | None = None
    patient_id: PatientId
    notice_id: NoticeId | None = None
    state: NoticeState | None = None
    possibly_told: bool = False
    body: bytes = b""  # the notice, encoded; decoded only where it is repeated in a retraction

    def notice(self) -> Notice:
        """The notice of this decision."""
        return _notice_decoder.decode(self.body)


class Entry:
    """Where a recipient stands with one fact.

    `told`: the newest notice that reached it, or may have, and was not taken back. `pending`: the newest one
    that certainly did not (queued, held, dead) and can still be dropped. `reason`: why the newest decision was
    not to send. `count`: notices made so far.
    """

    __slots__ = ("count", "pending", "reason", "told")

    def __init__(self) -> None:
        self.told: LedgerRow | None = None
        self.pending: LedgerRow | None = None
        self.reason: ReasonCode | None = None
        self.count = 0

    def add(self, row: LedgerRow) -> None:
        """Takes the next decision, in the order they were made."""
        if row.notice_id is None:
            self.reason = row.reason
            return
        self.reason = None
        self.count += 1
        if row.possibly_told or row.state in _REACHED:
            self.told = None if row.status in _SAYS_NO_MORE else row
        elif row.state in _WAITING:
            self.pending = row


Ledger: TypeAlias = dict[LedgerKey, Entry]


def with_adopted(
    encounter_id: EncounterId, adopted: Sequence[Adopted], rows: Mapping[EncounterId, Sequence[LedgerRow]]
) -> list[LedgerRow]:
    """The decisions about an encounter, with those made while parts of it were visits of their own: a fact of such a
    visit counts as the one it is here. What counts most comes last."""
    own = rows.get(encounter_id, ())
    if not adopted:
        return list(own)
    here = {(each.encounter_id, each.kind, each.occurrence): each for each in adopted}
    absorbed: list[LedgerRow] = []
    others: list[LedgerRow] = []
    for part in dict.fromkeys((*(each.encounter_id for each in adopted), encounter_id)):
        for row in rows.get(part, ()):
            each = here.get((part, row.fact_kind, row.occurrence))
            if each is not None:
                (absorbed if each.absorbed else others).append(msgspec.structs.replace(row, occurrence=each.here))
            elif part == encounter_id:
                others.append(row)
    return [*absorbed, *others]


def fold(rows: Iterable[LedgerRow]) -> Ledger:
    """The ledger of one encounter, from its decisions in the order they were made."""
    ledger: Ledger = {}
    for row in rows:
        key = (row.recipient_id, row.fact_kind, row.occurrence)
        entry = ledger.get(key)
        if entry is None:
            entry = ledger[key] = Entry()
        entry.add(row)
    return ledger
