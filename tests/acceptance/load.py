"""Owns the load of the crash tests: a stream of visits, each message sent until it is acknowledged, and the count."""

import asyncio
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tocengine.simulation.adt import AdtWriter, Visit
from tocengine.simulation.day import ATTENDING, PATEL, Expected
from tocengine.simulation.people import Population
from tocengine.simulation.receivers import Receivers
from tocengine.simulation.senders import MllpSender

ORDER = ("INPATIENT_ADMIT", "INPATIENT_DISCHARGE")


@dataclass
class Tally:
    """What a crash test found. `repeated` are notices that came again under the same id, which is allowed where the
    answer was lost; `duplicated` are notices told twice under different ids, which is never allowed."""

    acknowledged: int = 0
    lost: int = 0
    duplicated: int = 0
    repeated: int = 0
    disordered: int = 0


@dataclass
class Silence:
    """The longest time in which nothing was heard, since it was last asked for."""

    last: float = 0.0  # when something was heard, in seconds of the monotonic clock; 0: never
    longest_s: float = 0.0

    def heard(self) -> None:
        """Something was heard now."""
        now = time.monotonic()
        if self.last:
            self.longest_s = max(self.longest_s, now - self.last)
        self.last = now

    async def broken(self, after: float) -> None:
        """Returns when something was heard later than `after`."""
        while self.last <= after:  # noqa: ASYNC110 - a poll is all a test needs
            await asyncio.sleep(0.05)


@dataclass
class Load:
    """Stop-and-wait senders on `connections` connections; each visit is admitted, then discharged to Sunnyside."""

    port: int
    connections: int = 4
    pace_s: float = 0.03  # between two messages of a connection: a steady load, so that recovering is not catching up
    number_from: int = 1
    acknowledged: int = 0
    silence: Silence = field(default_factory=Silence)  # of acknowledgments
    expected: list[Expected] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Prepares people and control ids that no other load of the run uses."""
        self._population = Population(self.number_from, first_number=self.number_from)
        self._visits = self.number_from
        self._stopping = asyncio.Event()

    async def __aenter__(self) -> "Load":
        self._tasks = [asyncio.create_task(self._stream(index)) for index in range(self.connections)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def until_acknowledged(self, more: int, deadline_s: float = 30.0) -> float:
        """Waits for `more` acknowledgments from now; returns the seconds until the first of them."""
        began, start, first = time.monotonic(), self.acknowledged, 0.0
        async with asyncio.timeout(deadline_s):
            while self.acknowledged < start + more:
                await asyncio.sleep(0.01)
                if not first and self.acknowledged > start:
                    first = time.monotonic() - began
        return first

    async def _stream(self, index: int) -> None:
        writer = AdtWriter("ADTOUT", "STJ", "STJ", prefix=f"L{self.number_from}-{index}-")
        async with MllpSender("127.0.0.1", self.port) as sender:
            while not self._stopping.is_set():
                visit = self._next_visit()
                await self._send(sender, writer, "A01", visit, "INPATIENT_ADMIT", "patel")
                await asyncio.sleep(self.pace_s)
                gone = visit.but(disposition="03", destination="SUNNYSIDE REHAB", discharged_at=_now())
                await self._send(sender, writer, "A03", gone, "INPATIENT_DISCHARGE", "patel", "sunnyside")
                await asyncio.sleep(self.pace_s)

    async def _send(
        self, sender: MllpSender, writer: AdtWriter, trigger: str, visit: Visit, kind: str, *recipients: str
    ) -> None:
        now = _now()
        code = await sender.send(writer.message(trigger, visit, now, now))
        assert code == "AA", code
        self.acknowledged += 1
        self.silence.heard()
        self.expected += [Expected(recipient, visit.number, kind) for recipient in recipients]

    def _next_visit(self) -> Visit:
        self._visits += 1
        return Visit(
            number=f"L{self._visits:07d}",
            person=self._population.person(PATEL),
            patient_class="I",
            unit="3N:4",
            attending=ATTENDING[0],
            admitted_at=_now() - timedelta(minutes=1),
        )


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


async def arrived(expected: list[Expected], receivers: Receivers, deadline_s: float = 60.0) -> Tally:
    """Waits until every expected notice arrived, as often as it is expected, or the time is up, and counts."""
    wanted = Counter(expected)
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline and wanted - _told(receivers):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    told = _told(receivers)
    taken = Counter(notice_id for _, notice_id in receivers.arrivals)
    return Tally(
        lost=(wanted - told).total(),
        duplicated=(told - wanted).total(),
        repeated=sum(count - 1 for count in taken.values()),
        disordered=_disordered(receivers),
    )


def _told(receivers: Receivers) -> Counter[Expected]:
    """How often each thing was told: the same notice id again is no second time."""
    return Counter(notice for notice, _ in set(receivers.arrivals))


def _disordered(receivers: Receivers) -> int:
    """Visits of which a recipient heard the discharge before the admission."""
    first: dict[tuple[str, str], list[int]] = defaultdict(list)
    seen: set[Expected] = set()
    for notice, _ in receivers.arrivals:
        if notice not in seen and notice.kind in ORDER:
            seen.add(notice)
            first[notice.recipient, notice.visit].append(ORDER.index(notice.kind))
    return sum(kinds != sorted(kinds) for kinds in first.values())
