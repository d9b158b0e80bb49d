"""Owns a hospital's day as a script: what is sent, in which shift, and who must be told of it exactly once.

The expectations are written down beside each visit, from the rules (`docs/notices.md`), never taken from the engine.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tocengine.simulation.adt import AdtWriter, Visit
from tocengine.simulation.davinci import discharge_bundle
from tocengine.simulation.people import Clinician, Person, Population, npi

ATTENDING = (
    Clinician(npi(31), "ROWE", "HELEN"),
    Clinician(npi(32), "STROUD", "VICTOR"),
    Clinician(npi(33), "TIERNEY", "AGNES"),
)
PATEL = Clinician(npi(41), "PATEL", "RAVI")  # in the directory, with a webhook
LINDGREN = Clinician(npi(42), "LINDGREN", "SIV")  # in the directory, without an address
SHIFTS = ("morning", "afternoon", "evening")


@dataclass(frozen=True)
class Post:
    """One message of the day: HL7 v2 for the feed of St. Jude, FHIR JSON for that of Valley General."""

    shift: int
    feed: str
    body: bytes


@dataclass(frozen=True, order=True)
class Expected:
    """One notice that must arrive exactly once."""

    recipient: str
    visit: str
    kind: str
    status: str = "NEW"


@dataclass
class Day:
    """The script: messages in sending order, expectations by shift, residents for the panels."""

    posts: list[Post] = field(default_factory=list)
    expected: list[tuple[int, Expected]] = field(default_factory=list)
    panels: dict[str, list[str]] = field(default_factory=dict)  # facility -> MRNs of St. Jude
    quarantined: int = 0
    repeated: int = 0

    def expected_until(self, shift: int) -> list[Expected]:
        """What must have arrived when the given shift is over."""
        return sorted(notice for due, notice in self.expected if due <= shift)


class DayWriter:
    """Writes a day's visits. The same seed and start give the same day, byte for byte."""

    def __init__(self, seed: int, start: datetime) -> None:
        self._random = random.Random(seed)
        self._population = Population(seed)
        self._adt = AdtWriter("ADTOUT", "STJ", "STJ", prefix="J")
        self._clock = start
        self._visits = 0
        self.day = Day(panels={"sunnyside": [], "lakeview": []})

    def write(self, visits: int) -> Day:
        """`visits` visits, every kind in turn."""
        kinds = tuple(self._kinds())
        for index in range(visits):
            kinds[index % len(kinds)]()
        self._broken_and_test_traffic()
        self.day.posts.sort(key=lambda post: post.shift)
        return self.day

    def _kinds(self) -> Iterator[Callable[[], None]]:
        yield self._stay_to_snf
        yield self._ed_visit_of_resident
        yield self._ed_then_admitted
        yield self._stay_to_home
        yield self._discharge_cancelled
        yield self._destination_corrected
        yield self._bed_moves
        yield self._sent_twice
        yield self._trauma_merged
        yield self._valley_discharge
        yield self._stay_to_unknown_place

    # ---- the visits -------------------------------------------------------------------------------------------------

    def _stay_to_snf(self) -> None:
        visit = self._visit("I", self._person(PATEL))
        self._send(0, "A01", visit)
        self._expect(0, visit, "INPATIENT_ADMIT", "patel")
        self._send(1, "A03", self._discharged(visit, "03", "SUNNYSIDE REHAB"))
        self._expect(1, visit, "INPATIENT_DISCHARGE", "patel", "sunnyside")

    def _ed_visit_of_resident(self) -> None:
        visit = self._visit("E", self._resident("lakeview"), unit="ED")
        self._send(0, "A04", visit)
        self._expect(0, visit, "ED_REGISTRATION", "lakeview")
        self._send(1, "A03", self._discharged(visit, "01"))
        self._expect(1, visit, "ED_DISCHARGE", "lakeview")

    def _ed_then_admitted(self) -> None:
        visit = self._visit("E", self._resident("sunnyside", PATEL), unit="ED")
        self._send(0, "A04", visit)
        self._expect(0, visit, "ED_REGISTRATION", "patel", "sunnyside")
        admitted = visit.but(patient_class="I", unit="3N:12")
        self._send(1, "A06", admitted)
        self._expect(1, visit, "INPATIENT_ADMIT", "patel", "sunnyside")
        self._send(2, "A03", self._discharged(admitted, "06", npi(61)))
        self._expect(2, visit, "INPATIENT_DISCHARGE", "patel", "sunnyside", "harbor")

    def _stay_to_home(self) -> None:
        visit = self._visit("I", self._person(LINDGREN))
        self._send(0, "A01", visit)
        self._send(1, "A03", self._discharged(visit, "01"))  # the practitioner has no address: a recorded reason

    def _discharge_cancelled(self) -> None:
        visit = self._visit("I", self._person(PATEL))
        self._send(0, "A01", visit)
        gone = self._discharged(visit, "62", "LAKE01")
        self._send(0, "A03", gone)
        self._expect(0, visit, "INPATIENT_ADMIT", "patel")
        self._expect(0, visit, "INPATIENT_DISCHARGE", "patel", "lakeview")
        self._send(1, "A13", visit, occurred=gone.discharged_at)  # EVN-6 of a cancel names what is cancelled
        self._expect(1, visit, "DISCHARGE_CANCELLED", "patel", "lakeview", status="CANCELLED")
        self._send(2, "A03", self._discharged(visit, "62", "LAKE01"))
        self._expect(2, visit, "INPATIENT_DISCHARGE", "patel", "lakeview")

    def _destination_corrected(self) -> None:
        visit = self._visit("I", self._person(PATEL))
        self._send(0, "A01", visit)
        self._expect(0, visit, "INPATIENT_ADMIT", "patel")
        gone = self._discharged(visit, "03", "SUNNYSIDE REHAB")
        self._send(1, "A03", gone)
        self._expect(1, visit, "INPATIENT_DISCHARGE", "patel", "sunnyside")
        self._send(2, "A08", gone.but(destination="LAKE01"))
        self._expect(2, visit, "INPATIENT_DISCHARGE", "lakeview")
        self._expect(2, visit, "INPATIENT_DISCHARGE_CORRECTED", "patel", status="UPDATED")
        self._expect(2, visit, "INPATIENT_DISCHARGE", "sunnyside", status="RETRACTED")

    def _bed_moves(self) -> None:
        visit = self._visit("I", self._person(PATEL))
        self._send(0, "A01", visit)
        self._expect(0, visit, "INPATIENT_ADMIT", "patel")
        self._send(0, "A02", visit.but(unit="ICU:1"))
        self._send(1, "A02", visit.but(unit="3N:12"))
        self._send(1, "A08", visit.but(unit="3N:12"))
        self._send(2, "A02", visit.but(unit="3N:14"))

    def _sent_twice(self) -> None:
        visit = self._visit("I", self._person(PATEL))
        self._send(0, "A01", visit)
        self._expect(0, visit, "INPATIENT_ADMIT", "patel")
        self._send(1, "A03", self._discharged(visit, "03", "LAKE01"))
        self._expect(1, visit, "INPATIENT_DISCHARGE", "patel", "lakeview")
        self.day.posts.append(self.day.posts[-1])  # the same bytes again: the sender missed the acknowledgment
        self.day.repeated += 1

    def _trauma_merged(self) -> None:
        known = self._resident("sunnyside")
        unknown = Person(f"T{known.mrn}", "TRAUMA", f"T{known.mrn}", "U", known.birth_date, "", "", "", "")
        visit = self._visit("E", unknown, unit="ED")
        self._send(0, "A04", visit)  # nobody is known to care for TRAUMA
        self._send(1, "A40", visit.but(person=known), prior_mrn=unknown.mrn)
        self._expect(1, visit, "ED_REGISTRATION", "sunnyside")

    def _valley_discharge(self) -> None:
        visit = self._visit("I", self._population.person(PATEL))
        gone = self._discharged(visit, "03", "Sunnyside Rehab")
        self.day.posts.append(Post(1, "valley-fhir", discharge_bundle(gone, destination_npi=npi(1))))
        self._expect(1, visit, "INPATIENT_DISCHARGE", "patel", "sunnyside")

    def _stay_to_unknown_place(self) -> None:
        visit = self._visit("I", self._person(PATEL))
        self._send(0, "A01", visit)
        self._expect(0, visit, "INPATIENT_ADMIT", "patel")
        self._send(2, "A03", self._discharged(visit, "03", "MEADOW HOUSE NEW WING"))
        self._expect(2, visit, "INPATIENT_DISCHARGE", "patel")  # nobody is guessed: a work item instead

    def _broken_and_test_traffic(self) -> None:
        visit = self._visit("I", self._person(PATEL))
        self._send(0, "A01", visit, processing="T")  # test traffic is stored and never told
        body = self._adt.message("A01", visit.but(number=""), self._clock, self._clock)
        self.day.posts.append(Post(0, "stj-adt", body))  # no visit number: set aside, with a work item
        self.day.quarantined += 1
        self._send(1, "A60", self._visit("I", self._person()))  # not handled yet: stored and said so

    # ---- the parts of a visit ---------------------------------------------------------------------------------------

    def _person(self, pcp: Clinician | None = None) -> Person:
        return self._population.person(pcp)

    def _resident(self, facility: str, pcp: Clinician | None = None) -> Person:
        person = self._population.person(pcp)
        self.day.panels[facility].append(person.mrn)
        return person

    def _visit(self, patient_class: str, person: Person, unit: str = "3N:4") -> Visit:
        self._visits += 1
        self._clock += timedelta(seconds=self._random.randrange(20, 90))
        return Visit(
            number=f"V{self._visits:06d}",
            person=person,
            patient_class=patient_class,
            unit=unit,
            attending=self._random.choice(ATTENDING),
            admitted_at=self._clock,
        )

    def _discharged(self, visit: Visit, disposition: str, destination: str = "") -> Visit:
        return visit.but(
            disposition=disposition, destination=destination, discharged_at=self._clock + timedelta(minutes=5)
        )

    def _send(
        self,
        shift: int,
        trigger: str,
        visit: Visit,
        *,
        occurred: datetime | None = None,
        processing: str = "P",
        prior_mrn: str = "",
    ) -> None:
        self._clock += timedelta(seconds=self._random.randrange(5, 40))
        occurred = occurred or visit.discharged_at or self._clock
        self._clock = max(self._clock, occurred)
        recorded = self._clock + timedelta(seconds=2)
        body = self._adt.message(trigger, visit, occurred, recorded, processing=processing, prior_mrn=prior_mrn)
        self.day.posts.append(Post(shift, "stj-adt", body))

    def _expect(self, shift: int, visit: Visit, kind: str, *recipients: str, status: str = "NEW") -> None:
        self.day.expected += [(shift, Expected(recipient, visit.number, kind, status)) for recipient in recipients]
