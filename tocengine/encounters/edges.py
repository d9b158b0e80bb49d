"""Owns what a single event says of keys: which ones it names, what it merges, moves and links, as edges. Pure."""

from collections.abc import Sequence
from enum import StrEnum
from uuid import UUID

import msgspec

from tocengine.encounters.state import OrderKey
from tocengine.model.event import Event, Move, Processing
from tocengine.model.identity import PatientKey, VisitKey
from tocengine.model.ids import MessageId


class EdgeKind(StrEnum):
    """What kind of key ceases. A link makes nothing cease (A24, A37)."""

    PATIENT = "PATIENT"
    VISIT = "VISIT"
    ACCOUNT = "ACCOUNT"
    LINK = "LINK"
    UNLINK = "UNLINK"


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """One statement about two keys, as it was sent; `moved` says that the prior number changed hands (A43)."""

    kind: EdgeKind
    prior: UUID
    surviving: UUID
    order: OrderKey
    message_id: MessageId
    part: int = 0
    moved: bool = False


def keys_of(event: Event) -> list[PatientKey]:
    """Every patient key an event names."""
    named = [event.patient] if event.patient is not None else []
    if event.merges:
        named += [key for merge in event.merges for key in (merge.prior, merge.surviving)]
    if event.rekeying is not None:
        named += [key for move in event.rekeying.moves for key in (move.prior, move.surviving)]
        named += [key for link in event.rekeying.links for key in (link.one, link.other)]
    return named


def counts(event: Event) -> bool:
    """Whether what an event says of keys is meant: a test never is."""
    return event.handled and event.processing is not Processing.TEST


def rekeys(event: Event) -> bool:
    """Whether an event changes what any key means, or whose something is. A link does not."""
    said = event.rekeying
    changes = event.merges or (said is not None and (said.visits or said.accounts or said.moves or said.links))
    return bool(changes) and counts(event)


def merges_patients(event: Event) -> bool:
    """Whether an event changes whom a patient key means."""
    return counts(event) and bool(event.merges or any(_moves_number(move) for move in moves_of(event)))


def rekeyed_visits(event: Event) -> list[VisitKey]:
    """The visits an event names as merged or moved."""
    if event.rekeying is None or not counts(event):
        return []
    merged = [visit for merge in event.rekeying.visits for visit in (merge.prior, merge.surviving)]
    return [*merged, *(move.visit for move in event.rekeying.moves if move.visit is not None)]


def moved_from(event: Event) -> list[PatientKey]:
    """The patients from whom an event moves something."""
    return [move.prior for move in moves_of(event)]


def moved_to(event: Event) -> list[PatientKey]:
    """The patients to whom it does."""
    return [move.surviving for move in moves_of(event)]


def moves_of(event: Event) -> tuple[Move, ...]:
    """What an event moves to another person."""
    return event.rekeying.moves if event.rekeying is not None else ()


def _moves_number(move: Move) -> bool:
    return move.visit is None and move.account is None


def patient_edges(event: Event) -> list[Edge]:
    """What an event says of patient keys: merges, and numbers that change hands (A43)."""
    if not merges_patients(event):
        return []
    edges = [_edge(event, EdgeKind.PATIENT, m.prior.patient_id, m.surviving.patient_id) for m in event.merges]
    for move in moves_of(event):
        if _moves_number(move):
            ids = move.prior.patient_id, move.surviving.patient_id
            edges.append(msgspec.structs.replace(_edge(event, EdgeKind.PATIENT, *ids), moved=True))
    return edges


def visit_edges(event: Event) -> list[Edge]:
    """What an event says of visit keys."""
    if event.rekeying is None or not counts(event):
        return []
    return [
        _edge(event, EdgeKind.VISIT, merge.prior.encounter_id, merge.surviving.encounter_id)
        for merge in event.rekeying.visits
    ]


def account_edges(event: Event) -> list[Edge]:
    """What an event says of account numbers."""
    if event.rekeying is None or not counts(event):
        return []
    return [
        _edge(event, EdgeKind.ACCOUNT, merge.prior.account_id, merge.surviving.account_id)
        for merge in event.rekeying.accounts
    ]


def edges_of(event: Event) -> Sequence[Edge]:
    """Everything an event says of keys, as it is kept."""
    links = event.rekeying.links if event.rekeying is not None and counts(event) else ()
    linked = [
        _edge(
            event, EdgeKind.LINK if link.stands else EdgeKind.UNLINK, link.one.patient_id, link.other.patient_id
        )
        for link in links
    ]  # fmt: skip
    return [*patient_edges(event), *visit_edges(event), *account_edges(event), *linked]


def _edge(event: Event, kind: EdgeKind, prior: UUID, surviving: UUID) -> Edge:
    return Edge(
        kind=kind,
        prior=prior,
        surviving=surviving,
        order=event.order_key,
        message_id=event.message_id,
        part=event.part,
    )
