"""However a visit's messages come, in whatever batches and however often, everybody ends up holding the same."""

from random import Random

import pytest

from tests.integration.scenarios.hospital import CONVERTED, HOME, SNF, Hospital, Said
from tests.integration.scenarios.setting import Setting, directory, entry, person

ARRIVALS = {"ED_REGISTRATION", "INPATIENT_ADMIT", "OBSERVATION_START"}
HOLDING = """
select d.recipient_id, d.fact_kind, d.occurrence, d.watched, d.status
from decision d join encounter e using (encounter_id) join notice n using (notice_id)
where e.visit_number = $1 and n.possibly_told order by d.decision_id
"""
Held = set[tuple[str, str, bytes]]


def history(choose: Random) -> list[tuple[str, str, str, str, str]]:
    """(trigger, clock, class, disposition, destination) of a visit that is not always sensible."""
    told = [("A04", "08:00", "E", "", "")]
    for number in range(choose.randint(3, 7)):
        trigger = choose.choice(["A01", "A06", "A02", "A03", "A03", "A08", "A11", "A13", "A07"])
        ends = trigger == "A03" or (trigger == "A08" and choose.random() < 0.5)
        disposition = choose.choice([HOME, SNF, SNF, CONVERTED]) if ends else ""
        destination = choose.choice(["SUNNYSIDE REHAB", "MEADOW"]) if disposition == SNF else ""
        told.append((trigger, f"{9 + number:02}:00", choose.choice("EI"), disposition, destination))
    return told


async def holding(town: Setting, visit: str) -> Held:
    """What each recipient was told of a visit and was not told otherwise."""
    held: dict[tuple[str, str, int], bytes] = {}
    for row in await town.pool.fetch(HOLDING, visit):
        key = (row["recipient_id"], row["fact_kind"], row["occurrence"])
        if row["status"] in ("CANCELLED", "RETRACTED"):
            held.pop(key, None)
        else:
            held[key] = row["watched"]
    return {(recipient, kind, watched) for (recipient, kind, _), watched in held.items()}


@pytest.mark.parametrize("seed", range(6))
async def test_any_order_and_batching_ends_with_the_same_told(town: Setting, seed: int) -> None:
    choose = Random(seed)
    visits = [(f"V{n}", f"W{n}") for n in range(8)]
    members = [name for pair in visits for name in pair]
    await town.apply(
        directory(
            [entry("sunnyside", "aliases: [SUNNYSIDE REHAB]"), entry("meadow", "aliases: [MEADOW]"), entry("haven")],
            [person("patel", "1234567893")],
            {"haven": members},
        )
    )
    hospital = Hospital()
    for straight, shuffled in visits:
        story = history(choose)
        for visit in (straight, shuffled):
            messages: list[Said] = [
                hospital.says(
                    trigger, clock, cls, visit, mrn=visit, disposition=disposition, destination=destination
                ).arriving("22:00")
                for trigger, clock, cls, disposition, destination in story
            ]
            if visit == shuffled:
                messages += choose.sample(messages, 2)
                choose.shuffle(messages)
            while messages:
                size = 1 if visit == straight else choose.randint(1, 3)
                await town.receive(*messages[:size])
                await town.route()
                if visit == straight or choose.random() < 0.6:
                    await town.deliver()
                del messages[:size]
        await town.deliver()
        assert await town.state(shuffled) == await town.state(straight), story
        expected, held = await holding(town, straight), await holding(town, shuffled)
        assert _endings(held) == _endings(expected), story
    notices = len(await town.notices())
    town.log.positions.clear()  # the log is read again from its start
    await town.consumer.rewind()
    assert await town.route() == []
    assert len(await town.notices()) == notices


def _endings(held: Held) -> Held:
    """Arrivals that became known after their end are recorded as covered by it, and told to nobody."""
    return {fact for fact in held if fact[1] not in ARRIVALS}
