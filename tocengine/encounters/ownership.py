"""Owns whose visit a visit is, and which of its events speak of that person: a fold of its events and of moves. Pure.

The first event of a visit says whose it is; moves hand it on (A43, A44, A45). What was said of anybody else is no
part of it. All of it follows from the events in canonical order and from what keys mean, never from when they came.
"""

from collections.abc import Collection, Iterable, Sequence

import msgspec
from msgspec import UNSET

from tocengine.encounters.identity import Forest, Register
from tocengine.model.event import Event, Move, Processing
from tocengine.model.identity import AccountKey, VisitKey
from tocengine.model.ids import PatientId

CONTRADICTS = "patient_contradicts_visit"


class Owned(msgspec.Struct, frozen=True):
    """The owner's number, the events that count of the visit: each under the visit's own key, and without what they
    say of other people; whether the last move that names the visit was refused, None where none does; and the accounts
    (as moves named them) with which it was moved."""

    owner: PatientId | None
    events: list[Event]
    move_refused: bool | None
    moved_with: Collection[AccountKey] = ()


def owned(
    visit: VisitKey,
    visits: Collection[VisitKey],
    history: Iterable[Event],
    statements: Iterable[Event],
    register: Register,
    accounts: Forest,
) -> Owned:
    """Who owns `visit`, which goes by all `visits`, given its events and what was said of the people around it."""
    own: list[Event] = []
    others: list[Event] = []
    for event in history:
        (own if event.visit in visits else others).append(event)
    first = _first(own, visit)
    found = _Owner(visit, visits, register, accounts, first.patient.patient_id if first and first.patient else None)
    said = {(event.message_id, event.part): event for event in statements}
    for event in sorted([*own, *said.values()], key=lambda event: event.order_key):
        found.follow(event)
    counting = [found.without_others(event) for event in own]
    for event in said.values():
        if found.speaks_of_owner(event):
            counting.append(event)
    return Owned(found.owner, [*others, *counting], found.move_refused, found.moved_with)


def _first(own: Sequence[Event], visit: VisitKey) -> Event | None:
    """The event that says whose the visit is: its own first one before those of numbers that were merged into it, and
    a test message only where there is nothing else."""
    return min(
        own,
        key=lambda event: (event.processing is Processing.TEST, event.visit != visit, event.order_key),
        default=None,
    )


class _Owner:
    def __init__(
        self,
        visit: VisitKey,
        visits: Collection[VisitKey],
        register: Register,
        accounts: Forest,
        first: PatientId | None,
    ) -> None:
        self.visit, self.visits, self.register, self.accounts = visit, visits, register, accounts
        self.owner = first
        self.account: AccountKey | None = None
        self.contradicting: set[tuple[object, int]] = set()
        self.move_refused: bool | None = None
        self.moved_with: dict[AccountKey, None] = {}

    def follow(self, event: Event) -> None:
        """Takes the next event in canonical order."""
        if event.visit in self.visits:
            said = event.encounter_facts
            if said is not UNSET and said.account_number and event.visit is not None:
                self.account = AccountKey(event.visit.domain, said.account_number)
            if event.patient is not None and self.owner is not None and event.visit == self.visit:
                at = event.recorded.at
                if self.register.person(event.patient.patient_id, at) != self.register.person(self.owner, at):
                    self.contradicting.add((event.message_id, event.part))
        elif event.rekeying is not None:
            for move in event.rekeying.moves:
                self._move(event, move)

    def _move(self, event: Event, move: Move) -> None:
        if not self._concerns(move):
            return
        prior, surviving = move.prior.patient_id, move.surviving.patient_id
        root = self.register.root_of
        theirs = self.owner is None or self._was(prior, event) or root(self.owner) == root(surviving)
        if theirs:
            self.owner = surviving
            self.account = move.into or self.account
            if move.account is not None:
                self.moved_with[move.account] = None
        if move.visit is not None:
            self.move_refused = not theirs

    def _was(self, prior: PatientId, event: Event) -> bool:
        """Whether the owner is the person from whom it is moved."""
        assert self.owner is not None
        before = self.register.person
        at = event.recorded.at
        if self.owner == prior or self.register.root_of(self.owner) == self.register.root_of(prior):
            return True
        return before(self.owner, at) == before(prior, at)

    def _concerns(self, move: Move) -> bool:
        if move.visit is not None:
            return move.visit in self.visits
        if move.account is None:
            return self.owner is not None
        if self.account is None:
            return False
        mine = AccountKey(move.account.domain, self.account.value)
        return self.accounts.root(mine.account_id) == self.accounts.root(move.account.account_id)

    def speaks_of_owner(self, event: Event) -> bool:
        """Whether what `event` says of a person is about the owner."""
        if event.patient is None or self.owner is None:
            return True
        meant = self.register.person(event.patient.patient_id, event.recorded.at)
        return meant == self.register.root_of(self.owner)

    def without_others(self, event: Event) -> Event:
        """`event` under the visit's own key, and without the person where that is not the owner."""
        if event.visit != self.visit:
            event = msgspec.structs.replace(event, visit=self.visit)
        contradicts = (event.message_id, event.part) in self.contradicting
        if self.speaks_of_owner(event):
            return event
        return without_person(event, CONTRADICTS if contradicts else "")


def without_person(event: Event, flag: str = "") -> Event:
    """`event` without what it says of a person, marked with `flag`."""
    flags = (*event.flags, flag) if flag and flag not in event.flags else event.flags
    return msgspec.structs.replace(event, patient_facts=UNSET, flags=flags)
