"""Owns the hospital of the scenarios: ADT messages as its system would send them, from what happened in plain words."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from tests.fixtures.adt import segment

ZONE = ZoneInfo("America/New_York")
DAY = "2026-03-01"
ROE = "1999000031^ROE^ANN^^^^MD^^NPI"
PATEL = "1234567893^PATEL^RAVI^^^^MD^^NPI"
SNF, HOME, CONVERTED, STILL, DIED = "03", "01", "09", "30", "20"


def moment(clock: str, day: str = DAY) -> datetime:
    """A time of the scenarios' day, in the hospital's zone."""
    return datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=ZONE)


def stamp(when: datetime) -> str:
    """An HL7 time stamp with seconds and zone offset."""
    return when.strftime("%Y%m%d%H%M%S%z")


class Said:
    """One message: its bytes, and when it is received."""

    def __init__(self, body: bytes, received: datetime) -> None:
        self.body, self.received = body, received

    def arriving(self, clock: str, day: str = DAY) -> "Said":
        """The same bytes at another time."""
        return Said(self.body, moment(clock, day))


class Hospital:
    """Sends one patient's messages unless told otherwise; every message has a control id of its own."""

    def __init__(self, authority: str = "STJ", mrn: str = "0012345", system: str = "EPICADT") -> None:
        self.authority, self.mrn, self.system, self.sent = authority, mrn, system, 0

    def says(
        self,
        trigger: str,
        clock: str,
        cls: str = "I",
        visit: str = "V100",
        *,
        day: str = DAY,
        happened: str | None = None,
        mrn: str | None = None,
        name: str = "O'NEIL^MARY^J^^^^L",
        pcp: str = "",
        disposition: str = "",
        destination: str = "",
        pid: Mapping[int, str] | None = None,
        pv1: Mapping[int, str] | None = None,
        mrg: Mapping[int, str] | None = None,
        more: tuple[str, ...] = (),
        control: str = "",
        processing: str = "P",
        created: str | None = None,
    ) -> Said:
        """`trigger` recorded at `clock`; `happened` is EVN-6, `created` MSH-7. Received two seconds later."""
        self.sent += 1
        when = moment(clock, day)
        made = moment(created, day) if created else when
        occurred = stamp(moment(happened, day)) if happened else ""
        segments = [
            f"MSH|^~\\&|{self.system}|{self.authority}|TOCENGINE|HIE|{stamp(made)}||ADT^{trigger}"
            f"|{control or f'{self.authority}{self.sent}'}|{processing}|2.5.1",
            segment("EVN", {2: stamp(when), 6: occurred}),
            segment("PID", {1: "1", 3: self.key(mrn or self.mrn), 5: name, 7: "19400102", 8: "F", **(pid or {})}),
        ]
        if pcp:
            segments.append(segment("PD1", {4: pcp}))
        if mrg:
            segments.append(segment("MRG", dict(mrg)))
        if visit:
            fields = {1: "1", 2: cls, 3: "3N^312^A", 7: ROE, 19: f"{visit}^^^{self.authority}^VN"}
            fields |= {36: disposition} if disposition else {}
            fields |= {37: destination} if destination else {}
            segments.append(segment("PV1", {**fields, **(pv1 or {})}))
        body = "\r".join([*segments, *more, ""]).encode()
        return Said(body, when + timedelta(seconds=2))

    def key(self, mrn: str) -> str:
        """A medical record number as a CX."""
        return f"{mrn}^^^{self.authority}^MR"

    def merges(self, clock: str, *, into: str, prior: str, trigger: str = "A40", **more: object) -> Said:
        """A merge of two patient records; the message names no visit."""
        return self.says(trigger, clock, visit="", mrn=into, mrg={1: self.key(prior)}, **more)  # type: ignore[arg-type]
