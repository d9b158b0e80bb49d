"""Owns what an acceptance scenario is: a patient's messages step by step, what each recipient is told when they have
come, and how the patient's visits end: state, flags, what was not told and why, what a person was asked."""

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

from tests.integration.scenarios.hospital import Hospital, Said
from tocengine.encounters.postgres_story import Story, find_visits, read_story
from tocengine.model.identity import PatientKey
from tocengine.ports import Transaction
from tocengine.simulation.day import Expected
from tocengine.simulation.receivers import Receivers
from tocengine.work_items.postgres import PostgresWorkItems

NEW, UPDATED, CANCELLED, RETRACTED = "NEW", "UPDATED", "CANCELLED", "RETRACTED"
HAVEN, MEADOW, PCP = "haven", "meadow", "patel"
INSIDE = {"LOCATION_CHANGE", "LEAVE_START", "LEAVE_END", "DISCHARGE_PENDING"}
Told = tuple[str, str, str]
"""(recipient, status, kind) of a notice."""


@dataclass(frozen=True)
class Ending:
    """How a visit ends. Every field is exact; `inside` are the transitions that went to the topic alone."""

    state: str
    owner: str
    flags: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    work: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shown:
    """What a notice has in it, by key of its `data`, and what is nowhere in it."""

    notice: Expected
    fields: dict[str, object]
    without: tuple[str, ...] = ()


@dataclass
class Scenario:
    """A patient on Haven's panel, with one more of Haven's whose number ends in B and one of Meadow's whose number
    ends in M. Visits are told apart by a suffix."""

    number: int
    day: str
    hospital: Hospital
    endings: dict[str, Ending] = field(default_factory=dict)
    shown: list[Shown] = field(default_factory=list)
    opted_out: list[str] = field(default_factory=list)  # numbers of patients who want nothing told
    steps: list[tuple[list[Said], list[Expected]]] = field(default_factory=list)

    @property
    def mrn(self) -> str:
        return f"S{self.number}"

    @property
    def other(self) -> str:
        """Somebody else, of Meadow's."""
        return f"{self.mrn}M"

    def visit(self, suffix: str = "") -> str:
        return f"V{self.number}{suffix}"

    def says(self, trigger: str, clock: str, cls: str = "I", suffix: str = "", **more: Any) -> Said:
        """A message about the patient's visit, unless `more` says otherwise."""
        return self.hospital.says(trigger, clock, cls, self.visit(suffix), **{"day": self.day, "mrn": self.mrn, **more})

    def rekeys(self, trigger: str, clock: str, into: str, *, prior: str = "", **more: Any) -> Said:
        """A message about keys: `mrg` are the numbers of MRG beside MRG-1, `suffix` the visit of PV1-19, if any."""
        mrg = {1: self.hospital.key(prior or self.mrn), **more.pop("mrg", {})}
        suffix = more.pop("suffix", None)
        visit = "" if suffix is None else self.visit(suffix)
        return self.hospital.says(trigger, clock, "E", visit, day=self.day, mrn=into, mrg=mrg, **more)

    def step(self, trigger: str, clock: str, cls: str = "I", *told: Told, suffix: str = "", **more: Any) -> Said:
        """One message, and what is told of it."""
        said = self.says(trigger, clock, cls, suffix, **more)
        self.send([said], *told, suffix=suffix)
        return said

    def send(self, said: list[Said], *told: Told, suffix: str = "") -> None:
        """Messages that go out one right after the other, whatever the other scenarios send."""
        self.steps.append((said, [Expected(who, self.visit(suffix), kind, status) for who, status, kind in told]))

    def ends(self, state: str, suffix: str = "", *, owner: str = "", **more: tuple[str, ...]) -> None:
        """How a visit ends."""
        self.endings[suffix] = Ending(state, owner or self.mrn, **more)

    def shows(self, told: Told, suffix: str = "", *, without: tuple[str, ...] = (), **fields: object) -> None:
        """What every notice of that kind shows."""
        who, status, kind = told
        self.shown.append(Shown(Expected(who, self.visit(suffix), kind, status), fields, without))


def haven(kind: str, status: str = NEW) -> Told:
    return HAVEN, status, kind


def meadow(kind: str, status: str = NEW) -> Told:
    return MEADOW, status, kind


def write_partners(folder: Path, port: int, secret: bytes, scenarios: list[Scenario]) -> Path:
    """A directory with everybody the scenarios tell of, all listening on one port."""
    signing = "whsec_" + base64.b64encode(secret).decode()

    def entry(name: str, **more: object) -> dict[str, object]:
        url = f"http://127.0.0.1:{port}/webhook/{name}"
        endpoints = [{"id": f"{name}-hook", "channel": "webhook", "url": url, "secret": signing}]
        return {"id": name, "name": name.title(), "endpoints": endpoints, "subscription": {"level": "FULL"}, **more}

    def member(mrn: str) -> dict[str, str]:
        return {"domain": "STJ", "value": mrn}

    directory = {
        "version": 1,
        "facilities": [
            entry(HAVEN, type="SNF"),
            entry("sunnyside", type="SNF", aliases=["SUNNYSIDE REHAB"]),
            entry(MEADOW, type="SNF", aliases=["MEADOW"]),
            entry("east", type="SNF", aliases=["TWO OAKS"]),
            entry("west", type="SNF", aliases=["TWO OAKS"]),
        ],
        "practitioners": [entry(PCP, npi="1234567893")],
        "panels": [
            {"facility": HAVEN, "members": [member(m) for s in scenarios for m in (s.mrn, f"{s.mrn}B")]},
            {"facility": MEADOW, "members": [member(s.other) for s in scenarios]},
        ],
        "opt_outs": [member(mrn) for s in scenarios for mrn in s.opted_out],
    }
    path = folder / "scenarios.yaml"
    path.write_text(yaml.safe_dump(directory, sort_keys=False), encoding="utf-8")
    return path


# --- how it ends


async def endings(connection: Transaction, scenario: Scenario) -> dict[str, Ending]:
    """How the scenario's visits ended, as the commands tell it; those nothing is known of are left out."""
    found = {}
    for suffix in scenario.endings:
        for visit in await find_visits(connection, scenario.visit(suffix), "STJ"):
            story = await read_story(connection, visit)
            found[suffix] = _ending(story, await _asked(connection, story, scenario))
    return found


async def _asked(connection: Transaction, story: Story, scenario: Scenario) -> list[str]:
    """The kinds of the open work items about a visit, or about the numbers of the scenario's patients."""
    people = [str(PatientKey("STJ", mrn).patient_id) for mrn in (scenario.mrn, scenario.other)]
    items = await PostgresWorkItems().open_items(connection)
    return [
        item.kind.value
        for _, item in items
        if str(item.encounter_id) == story.encounter_id or any(person in item.subject for person in people)
    ]


def _ending(story: Story, work: list[str]) -> Ending:
    decided = [line.text for line in story.timeline if line.what == "decision"]
    published = [line.text.split()[0] for line in story.timeline if line.what == "transition"]
    return Ending(
        state=story.state,
        owner=story.patient.rpartition("|")[2],
        flags=tuple(sorted(story.flags)),
        untold=tuple(sorted({text.partition("not told: ")[2].partition(" (")[0] for text in decided} - {""})),
        inside=tuple(kind for kind in published if kind in INSIDE),
        work=tuple(sorted(work)),
    )


def check_shown(shown: Shown, receivers: Receivers) -> None:
    """Every notice of the kind has the fields, and nothing that must not be in it."""
    bodies = [receivers.bodies[notice_id] for notice, notice_id in receivers.arrivals if notice == shown.notice]
    assert bodies, shown.notice
    for body in bodies:
        data = orjson.loads(body)["data"]
        assert {key: data.get(key) for key in shown.fields} == shown.fields, shown.notice
        for text in shown.without:
            assert text.encode() not in body, (shown.notice, text)
