"""Owns MRG, and the second PID of a link: which keys cease, move or belong together, and what FHIR says of it.

The trigger's row names what its message changes (`changes` of `tables/trigger.toml`). A number changed into itself
says nothing.
"""

from collections.abc import Callable, Sequence

from tocengine.formats.fhir import facts as fhir
from tocengine.formats.fhir.ids import patient_id
from tocengine.formats.fhir.resources import Json, Resource, reference
from tocengine.formats.hl7v2.datatypes import CX
from tocengine.formats.hl7v2.segments import Field, Segment
from tocengine.model.event import AccountMerge, Link, Merge, Move, Rekeying, VisitMerge
from tocengine.model.identity import AccountKey, PatientKey, VisitKey
from tocengine.normalize.reading import Reading, refuse
from tocengine.normalize.rules.patient import identifiers, record_numbers

PRIOR_NUMBER = {"PID-18": 3, "PV1-19": 5, "PV1-50": 6}
"""The MRG field that holds the prior value of each field a feed may use as its visit key."""
Change = Callable[[Reading], Rekeying]


def read(reading: Reading) -> tuple[tuple[Merge, ...], Rekeying | None]:
    """The merges of patients, and what else the message says of keys.

    Raises ContentError where a side is missing.
    """
    row = reading.row
    merges: tuple[Merge, ...] = ()
    found = Rekeying()
    for name in row.changes if row else ():
        if name == "patient":
            merges = _patients(reading)
        else:
            said = CHANGES[name](reading)
            found = Rekeying(
                visits=found.visits + said.visits,
                accounts=found.accounts + said.accounts,
                moves=found.moves + said.moves,
                links=found.links + said.links,
            )
    return merges, found if found != Rekeying() else None


def _surviving(reading: Reading) -> PatientKey:
    if reading.patient_key is None:
        raise refuse("patient_id_missing", "A merge or move names no surviving patient", "PID^1^3")
    return reading.patient_key


def _patients(reading: Reading) -> tuple[Merge, ...]:
    """PID-3 survives; each medical record number of MRG-1 becomes its alias (A40 and its deprecated kin, A47)."""
    surviving = _surviving(reading)
    prior: list[PatientKey] = []
    for segment in reading.segments("MRG"):
        prior += record_numbers(reading, segment[1])
    if not prior:
        raise refuse("prior_id_missing", "A merge names no prior patient", "MRG^1^1")
    merges = [Merge(prior=each, surviving=surviving) for each in dict.fromkeys(prior) if each != surviving]
    _show_replaced(reading, [merge.prior for merge in merges])
    return tuple(merges)


def _show_replaced(reading: Reading, replaced: Sequence[PatientKey]) -> None:
    """Patient.link: the survivor replaces, each prior record is inactive and replaced by it (v2-to-FHIR, MRG)."""
    if not replaced:
        return
    links: list[Json] = []
    for key in replaced:
        identity = patient_id(key)
        links.append({"other": reference(identity), "type": "replaces"})
        reading.add(
            {
                "resourceType": "Patient",
                "id": identity,
                "identifier": [fhir.patient_identifier(fhir.medical_record_number(key), reading.source.domains)],
                "active": False,
                "link": [{"other": reference(reading.patient_id), "type": "replaced-by"}],
            }
        )
    reading.patient["link"] = links


def _accounts(reading: Reading) -> Rekeying:
    """PID-18 survives, MRG-3 ceases (A35, A36, A41, A49). Where the account is the visit, so does the visit."""
    if reading.source.profile.visit_key == "PID-18":
        return _visits(reading)
    surviving = account(reading, reading.segment("PID")[18])
    prior = [account(reading, segment[3]) for segment in reading.segments("MRG")]
    if surviving is None or None in prior or not prior:
        if reading.trigger == "A36":  # it merges the patients in any case
            reading.flag("account_missing")
            return Rekeying()
        raise refuse("account_missing", "A change of account numbers names one side only", "MRG^1^3")
    return Rekeying(
        accounts=tuple(AccountMerge(prior=each, surviving=surviving) for each in prior if each and each != surviving)
    )


def _visits(reading: Reading) -> Rekeying:
    """The visit key survives, its field of MRG ceases (A42, A50, A51, and an A06 or A07 that gives a new number)."""
    name = reading.source.profile.visit_key
    pairs = _visit_pairs(reading)
    if not pairs or any(prior is None or now is None for prior, now in pairs):
        raise refuse("prior_visit_missing", "A change of visit numbers names one side only", f"MRG^1^{_prior(name)}")
    return Rekeying(visits=_renumbered(reading))


def _renumbered(reading: Reading) -> tuple[VisitMerge, ...]:
    return tuple(
        VisitMerge(prior=prior, surviving=now)
        for prior, now in _visit_pairs(reading)
        if prior is not None and now is not None and prior != now
    )


def _alternates(reading: Reading) -> Rekeying:
    """PV1-50 changes (A51): to the engine only where the feed knows its visits by it."""
    if reading.source.profile.visit_key == "PV1-50":
        return _visits(reading)
    reading.flag("alternate_visit_not_key")
    return Rekeying()


def _visit_numbers(reading: Reading) -> Rekeying:
    """PV1-19 changes (A42, A50). A feed that knows its visits otherwise has to name the change of its own key."""
    if reading.source.profile.visit_key != "PV1-19" and all(p is None or n is None for p, n in _visit_pairs(reading)):
        reading.flag("visit_number_not_key")
        return Rekeying()
    return _visits(reading)


def renumbered(reading: Reading) -> Rekeying | None:
    """What an A06 or A07 with MRG says: the visit goes on under a new number (HL7 v2.5.1 section 3.3.6)."""
    if reading.trigger not in ("A06", "A07") or not reading.segments("MRG"):
        return None
    pairs = _renumbered(reading)
    return Rekeying(visits=pairs) if pairs else None


def _prior(visit_key: str) -> int:
    return PRIOR_NUMBER[visit_key]


def _visit_pairs(reading: Reading) -> list[tuple[VisitKey | None, VisitKey | None]]:
    """(prior, surviving) visit of each MRG, with the PV1 that stands beside it where there is one for each."""
    name, _, number = reading.source.profile.visit_key.partition("-")
    merged = reading.segments("MRG")
    shown = reading.segments(name)
    pairs = []
    for place, segment in enumerate(merged):
        beside: Segment = shown[place] if len(shown) == len(merged) else reading.segment(name)
        prior = reading.visit_key(segment[_prior(reading.source.profile.visit_key)])
        pairs.append((prior, reading.visit_key(beside[int(number)])))
    return pairs


def _moves(
    reading: Reading, moved: Callable[[Reading, Segment], tuple[VisitKey | None, AccountKey | None]]
) -> Rekeying:
    surviving = _surviving(reading)
    into = account(reading, reading.segment("PID")[18])
    moves: list[Move] = []
    for segment in reading.segments("MRG"):
        _, prior = identifiers(reading, (segment[1],), "MRG-1")
        if prior is None:
            raise refuse("prior_id_missing", "A move does not say from whom", "MRG^1^1")
        visit, from_account = moved(reading, segment)
        if prior != surviving or (visit is not None and into is not None):
            moves.append(Move(prior=prior, surviving=surviving, visit=visit, account=from_account, into=into))
    if not reading.segments("MRG"):
        raise refuse("prior_id_missing", "A move does not say from whom", "MRG^1^1")
    return Rekeying(moves=tuple(moves))


def _move_number(reading: Reading) -> Rekeying:
    """The number MRG-1 and everything under it belongs to PID-3 from now on (A43)."""
    return _moves(reading, lambda _reading, _segment: (None, None))


def _move_account(reading: Reading) -> Rekeying:
    """The account MRG-3 with all its visits (A44)."""

    def moved(reading: Reading, segment: Segment) -> tuple[VisitKey | None, AccountKey | None]:
        found = account(reading, segment[3])
        if found is None:
            raise refuse("account_missing", "A move names no account", "MRG^1^3")
        if reading.source.profile.visit_key == "PID-18":
            return VisitKey(found.domain, found.value), None
        return None, found

    said = _moves(reading, moved)
    return said if reading.source.profile.visit_key != "PID-18" else _with_new_numbers(reading, said)


def _move_visit(reading: Reading) -> Rekeying:
    """The visit MRG-5 (A45; the feed's own visit key where that is another field). PV1 may give it a new number."""
    number = _prior(reading.source.profile.visit_key)

    def moved(reading: Reading, segment: Segment) -> tuple[VisitKey | None, AccountKey | None]:
        found = reading.visit_key(segment[number])
        if found is None:
            raise refuse("prior_visit_missing", "A move names no visit", f"MRG^1^{number}")
        return found, account(reading, segment[3])

    return _with_new_numbers(reading, _moves(reading, moved))


def _with_new_numbers(reading: Reading, said: Rekeying) -> Rekeying:
    return Rekeying(visits=_renumbered(reading), moves=said.moves)


def _links(reading: Reading) -> Rekeying:
    """The first PID and this one (A24), or no longer (A37). The message gives an event for each of its patients."""
    named = [segment for segment in reading.ordered() if segment.name == "PID"]
    if len(named) < 2:
        raise refuse("other_patient_missing", "A link names one patient only", "PID^2^3")
    _, first = identifiers(reading, (named[0][3],))
    this = reading.patient_key
    if first is None or this is None or first == this:
        return Rekeying()
    stands = reading.trigger == "A24"
    if stands:
        reading.patient["link"] = [{"other": reference(patient_id(first)), "type": "seealso"}]
        other: Resource = {
            "resourceType": "Patient",
            "id": patient_id(first),
            "identifier": [fhir.patient_identifier(fhir.medical_record_number(first), reading.source.domains)],
        }
        reading.add(other)
    return Rekeying(links=(Link(one=first, other=this, stands=stands),))


CHANGES: dict[str, Change] = {
    "account": _accounts,
    "visit": _visit_numbers,
    "alternate": _alternates,
    "move_number": _move_number,
    "move_account": _move_account,
    "move_visit": _move_visit,
    "link": _links,
}
"""What a trigger's row may say its message changes, beside "patient"."""


def account(reading: Reading, field: Field) -> AccountKey | None:
    """The account a CX field names (PID-18, MRG-3)."""
    if not field:
        return None
    found = CX.read(field)
    value = reading.key(found.value, "account")
    return AccountKey(reading.domain(found.authority) or reading.visit_domain(), value) if value else None
