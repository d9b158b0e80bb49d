"""What a message takes away of what is known: repeating segments that are snapshots, and those that are none."""

import msgspec
import pytest

from tests.integration.scenarios.hospital import Hospital
from tests.integration.scenarios.setting import Setting
from tocengine.formats.packing import unpack
from tocengine.model.encounter import Snapshot
from tocengine.model.facts import known
from tocengine.model.profile import SourceProfile


@pytest.mark.parametrize(("snapshots", "codes"), [(("DG1", "AL1"), ["I50.9"]), (("AL1",), ["R07.9", "I50.9"])])
async def test_a_segment_that_is_no_snapshot_for_the_feed_takes_nothing_away(
    town: Setting, hospital: Hospital, snapshots: tuple[str, ...], codes: list[str]
) -> None:
    """An update with one of two diagnoses; then a discharge with none."""
    town.feed(SourceProfile(snapshot_segments=snapshots))
    await town.hear(
        hospital.says("A01", "10:00", more=("DG1|1||R07.9^Pain^I10|||A",)),
        hospital.says("A08", "11:00", more=("DG1|1||I50.9^Failure^I10|||F",)),
        hospital.says("A03", "15:00", disposition="03", destination="SUNNYSIDE REHAB"),
    )
    notice = next(each for each, _ in await town.notices("sunnyside"))
    row = await town.pool.fetchrow("select content, fhir from snapshot where snapshot_id = $1", notice.snapshot_id)
    assert row is not None
    facts = msgspec.json.decode(unpack(row["content"]), type=Snapshot).encounter
    chart = msgspec.json.decode(unpack(row["fhir"]))
    shown = [each["resource"] for each in chart["entry"] if each["resource"]["resourceType"] == "Condition"]
    assert [each.code for each in known(facts.diagnoses) or ()] == codes
    assert sorted(each["code"]["coding"][0]["code"] for each in shown) == sorted(codes)
