"""Owns the rows of identity: which patients are locked, what was ever said of their keys, and how it is kept.

Patients are inserted if absent and then locked in id order; whom their keys mean is read again once the locks are held,
and those that a merge in between leads to are locked too.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from tocengine.encounters.edges import Edge, EdgeKind, account_edges, keys_of, merges_patients, moved_to, visit_edges
from tocengine.encounters.identity import Patient, Register
from tocengine.formats.packing import unpack
from tocengine.model.event import Event
from tocengine.model.identity import PatientKey
from tocengine.model.ids import MessageId, PatientId
from tocengine.ports import Transaction
from tocengine.postgres import load_queries

SQL = load_queries(__package__)

_decode_event = msgspec.json.Decoder(Event).decode


async def lock_register(transaction: Transaction, events: Sequence[Event], now: datetime) -> Register:
    """The patients `events` name with their families, and all whom a merge among `events` may concern, locked."""
    keys = {key.patient_id: key for event in events for key in keys_of(event)}
    if not keys:
        return Register([])
    await _insert(transaction, keys.values(), now)
    regrouping = any(merges_patients(event) for event in events)
    found, edges = await _lock(transaction, keys, regrouping=regrouping)
    return Register(found, edges)


async def _insert(transaction: Transaction, keys: Iterable[PatientKey], now: datetime) -> None:
    known = sorted({key.patient_id: key for key in keys}.items())
    await transaction.execute(
        SQL["insert_patients"],
        [patient_id for patient_id, _ in known],
        [key.domain for _, key in known],
        [key.value for _, key in known],
        now,
    )


async def _lock(
    transaction: Transaction, ids: Iterable[PatientId], *, regrouping: bool = False
) -> tuple[list[Patient], list[Edge]]:
    held: set[PatientId] = set()
    wanted = set(ids)
    edges: list[Edge] = []
    while True:  # a merge that committed while we waited leads to somebody who is not locked yet
        await transaction.fetch(SQL["lock_patients"], sorted(wanted - held))
        held |= wanted
        found = await read_families(transaction, held)
        wanted = {patient.survivor_id or patient.patient_id for patient in found if patient.patient_id in held}
        if regrouping:
            edges = await read_edges(transaction, EdgeKind.PATIENT, held)
            wanted |= {PatientId(key) for edge in edges for key in (edge.prior, edge.surviving)}
        if wanted <= held:
            return found, edges


async def read_families(transaction: Transaction, ids: Iterable[PatientId]) -> list[Patient]:
    """The families of patients, survivors and aliases."""
    return [
        Patient(
            patient_id=row["patient_id"],
            key=PatientKey(row["domain"], row["value"]),
            survivor_id=row["survivor_id"],
            moved_from=row["moved_from"],
            moved_at=row["moved_at"],
            statements=row["statements"],
        )
        for row in await transaction.fetch(SQL["families"], list(ids))
    ]


async def know(transaction: Transaction, register: Register, numbers: Iterable[PatientId]) -> None:
    """Makes numbers known to `register` that no event of the batch names, such as another owner of a visit."""
    strangers = {number for number in numbers if not register.knows(number)}
    if strangers:
        register.add(await read_families(transaction, strangers))


async def read_edges(transaction: Transaction, kind: EdgeKind, ids: Collection[UUID]) -> list[Edge]:
    """All that was ever said of keys of a kind that hang together with `ids`."""
    if not ids:
        return []
    return [_edge(row) for row in await transaction.fetch(SQL["edges"], kind, list(ids))]


def _edge(row: asyncpg.Record) -> Edge:
    message_id = MessageId(row["message_id"])
    return Edge(
        kind=EdgeKind(row["kind"]),
        prior=row["prior_id"],
        surviving=row["surviving_id"],
        order=(row["recorded_at"], row["sequence"], row["received_at"], message_id.hex),
        message_id=message_id,
        part=row["part"],
        moved=row["moved"],
    )


async def read_statements(
    transaction: Transaction, register: Register, roots: Iterable[PatientId], now: datetime
) -> dict[PatientId, list[Event]]:
    """What was said of patients, by the number it was said of, and of those to whom something of theirs was moved.

    Whoever comes in that way is locked and becomes known to `register`.
    """
    said: dict[PatientId, list[Event]] = {}
    wanted = {number for root in roots for number in register.family(root)}
    while wanted:
        seen = set(said) | wanted
        said.update({number: [] for number in wanted})
        others: dict[PatientId, PatientKey] = {}
        for row in await transaction.fetch(SQL["read_statements"], list(wanted)):
            event = _decode_event(unpack(row["summary"]))
            said[row["patient_id"]].append(event)
            others.update({key.patient_id: key for key in moved_to(event)})
        unknown = {number: key for number, key in others.items() if not register.knows(number)}
        if unknown:
            register.add((await _lock(transaction, unknown))[0])
        wanted = {each for number in others for each in register.family(register.root_of(number))} - seen
    return said


async def read_account_edges(
    transaction: Transaction, events: Sequence[Event], statements: Iterable[Sequence[Event]]
) -> list[Edge]:
    """What was ever said of the accounts that `events` rename or that anything moves."""
    ids = {key for event in events for edge in account_edges(event) for key in (edge.prior, edge.surviving)}
    for event in [*events, *(each for said in statements for each in said)]:
        if event.rekeying is not None:
            ids |= {move.account.account_id for move in event.rekeying.moves if move.account is not None}
    return await read_edges(transaction, EdgeKind.ACCOUNT, ids)


async def read_visit_edges(transaction: Transaction, events: Sequence[Event]) -> list[Edge]:
    """What was ever said of the visits that `events` merge."""
    ids = {key for event in events for edge in visit_edges(event) for key in (edge.prior, edge.surviving)}
    return await read_edges(transaction, EdgeKind.VISIT, ids)


async def write_patients(transaction: Transaction, patients: Sequence[Patient], now: datetime) -> None:
    """What a batch changed of patients."""
    if patients:
        await transaction.execute(
            SQL["update_patients"],
            [patient.patient_id for patient in patients],
            [patient.survivor_id for patient in patients],
            [patient.statements for patient in patients],
            [patient.moved_from for patient in patients],
            [patient.moved_at for patient in patients],
            now,
        )


async def write_edges(transaction: Transaction, said: Sequence[tuple[Event, Edge]]) -> None:
    """Keeps what events said of keys, in place of what earlier revisions of them said."""
    if not said:
        return
    again = {(event.message_id, event.part) for event, _ in said if event.revision}
    if again:
        await transaction.execute(SQL["forget_edges"], [each[0] for each in again], [each[1] for each in again])
    places: dict[tuple[UUID, int], int] = {}
    rows = []
    for event, edge in said:
        place = places[edge.message_id, edge.part] = places.get((edge.message_id, edge.part), -1) + 1
        recorded, sequence, received, _ = edge.order
        rows.append(
            (
                *(edge.kind, edge.prior, edge.surviving, edge.moved, edge.message_id, edge.part, place),
                *(event.revision, recorded, sequence, received),
            )
        )
    await transaction.execute(SQL["store_edges"], *(list(column) for column in zip(*rows, strict=True)))
