"""Each key of a source profile that says how messages are read, seen to act."""

from pathlib import Path

import pytest
from msgspec import UNSET

from tests.fixtures.adt import EVN, PID, adt, encounter_facts, event, movement, normalized, pv1, received, source
from tocengine.config_file import load_config
from tocengine.errors import ConfigurationError
from tocengine.model.event import Event, Processing
from tocengine.model.facts import CareSetting, Destination, Disposition, EncounterFacts, known, overlay
from tocengine.model.identity import AccountKey, PatientKey, VisitKey
from tocengine.model.profile import SourceProfile
from tocengine.normalize.normalizer import HL7v2Normalizer, without_nulls


def test_the_account_may_be_the_visit() -> None:
    body = movement("A01", pid=PID + "||||||||||HAR77^^^STJ")
    assert event(body, SourceProfile(account_is_visit=True)).visit == VisitKey("STJ", "HAR77")


def test_triggers_that_are_not_enabled_are_stored_and_not_handled() -> None:
    profile = SourceProfile(enabled_events=("A01", "A03"))
    assert event(movement("A01"), profile).handled
    assert not event(movement("A02"), profile).handled
    assert event(movement("A02")).handled


def test_what_took_effect_before_go_live_is_loaded_silently() -> None:
    before, after = "2026-03-01T15:36:00-05:00", "2026-03-01T15:34:00-05:00"  # EVN-6 is 15:35
    assert event(movement("A03"), SourceProfile(go_live_at=before)).processing is Processing.INITIAL_LOAD
    assert event(movement("A03"), SourceProfile(go_live_at=after)).processing is Processing.PRODUCTION
    test = movement("A03").replace(b"|P|2.5.1", b"|T|2.5.1")
    assert event(test, SourceProfile(go_live_at=before)).processing is Processing.TEST


def test_the_treating_practitioner_is_looked_for_in_the_order_of_the_feed() -> None:
    body = movement("A03", {17: "1234567893^PATEL^RAVI^^^^MD^^NPI"})
    assert encounter_facts(body).treating_source == "PV1-7"
    found = encounter_facts(body, SourceProfile(treating_order=("PV1-17", "PV1-7")))
    assert found.treating_source == "PV1-17"


def test_two_quotes_delete_unless_the_feed_means_nothing_by_them() -> None:
    body = movement("A08", {36: '""', 14: '""'})
    assert encounter_facts(body).disposition is None
    assert known(encounter_facts(body, SourceProfile(null_policy="ignore")).disposition) is None
    assert event(body).cleared
    assert not event(body, SourceProfile(null_policy="ignore")).cleared


def test_only_whole_fields_that_are_two_quotes_are_emptied() -> None:
    body = b'MSH|^~\\&|A\rPV1|""|a""|""^b|""\rPV2|""'
    assert without_nulls(body) == b'MSH|^~\\&|A\rPV1||a""|""^b|\rPV2|'


PAIN, FAILURE = "DG1|1||R07.9^Pain^I10|||A", "DG1|1||I50.9^Failure^I10|||F"


def test_what_is_no_snapshot_comes_to_what_is_known() -> None:
    first, second = movement("A01", None, PAIN), movement("A08", None, FAILURE)
    listed = [event(body, SourceProfile()) for body in (first, second)]
    others = [event(body, SourceProfile(snapshot_segments=("AL1",))) for body in (first, second)]
    assert _codes(listed) == ["I50.9"]
    assert _codes(others) == ["R07.9", "I50.9"]
    assert (listed[1].cleared, others[1].cleared) == ((), ("+Condition", "+Encounter.diagnosis"))


@pytest.mark.parametrize("snapshots", [("DG1",), ()])
def test_a_diagnosis_that_is_deleted_by_itself_goes_and_no_other(snapshots: tuple[str, ...]) -> None:
    profile = SourceProfile(snapshot_segments=snapshots)
    gone = "DG1|1||I509^Failure^I10" + "|" * 18 + "D"
    bodies = (movement("A01", None, PAIN, FAILURE), movement("A08", None, gone))
    assert _codes([event(body, profile) for body in bodies]) == ["R07.9"]


def _codes(events: list[Event]) -> list[str]:
    """What is known of diagnoses after these."""
    facts = EncounterFacts()
    for each in events:
        assert each.encounter_facts is not UNSET
        facts = overlay(facts, each.encounter_facts)
    assert facts.diagnosis_changes is UNSET
    return [each.code for each in known(facts.diagnoses) or ()]


def test_a_local_code_may_mean_admitted_here() -> None:
    found = encounter_facts(movement("A03", {36: "ADMIT"}), SourceProfile(ed_close_disposition_codes=("ADMIT",)))
    assert found.disposition == Disposition("ADMIT", "09", CareSetting.ADMITTED_SAME, False)


@pytest.mark.parametrize(("number", "npi", "ccn"), [("1999000015", "1999000015", None), ("335123", None, "335123")])
def test_a_destination_by_the_name_the_sender_uses(number: str, npi: str | None, ccn: str | None) -> None:
    profile = SourceProfile(destination_aliases={"Sunny  Rehab": number})
    found = encounter_facts(movement("A03", {37: "SUNNY REHAB"}), profile)
    assert found.destination == Destination("SUNNY REHAB", npi, ccn, None)
    assert encounter_facts(movement("A03", {37: "OTHER"}), profile).destination == Destination(
        "OTHER", None, None, None
    )


def test_an_empty_field_is_read_from_the_segment_of_the_senders_own() -> None:
    profile = SourceProfile(z_paths={"PV1-36": "ZPV-2"})
    body = movement("A03", None, "ZPV|1|03")
    found = known(encounter_facts(body, profile).disposition)
    assert found is not None
    assert found.code == "03"
    assert known(encounter_facts(body).disposition) is None
    sent = known(encounter_facts(movement("A03", {36: "01"}, "ZPV|1|03"), profile).disposition)
    assert sent is not None
    assert sent.code == "01"
    assert known(encounter_facts(movement("A03", None, "ZPV|1"), profile).disposition) is None


def test_a_segment_of_the_senders_own_speaks_of_its_patient_only() -> None:
    body = adt("A17", EVN, PID, pv1(), "PID|2||888^^^STJ^MR", pv1({19: "V901"}), "ZPV|1|03")
    first, second = HL7v2Normalizer(source(SourceProfile(z_paths={"PV1-36": "ZPV-2"}))).normalize(received(body))
    assert b"dischargeDisposition" not in bytes(first.fhir)
    assert b"dischargeDisposition" in bytes(second.fhir)


def test_bytes_of_a_message_that_names_no_charset_are_read_as_the_feed_says() -> None:
    body = movement("A01").replace(b"VOSS^HELENA", b"VOSS^MA\xa3GORZATA")
    name = "MA\u0141GORZATA".encode()
    assert name in bytes(normalized(body, SourceProfile(charset_default="8859/2")).fhir)
    assert name not in bytes(normalized(body).fhir)


def test_numbers_without_an_authority_are_of_the_one_the_profile_names() -> None:
    body = movement("A01", pid="PID|1||00777^^^^MR||VOSS^HELENA")
    assert event(body).patient == PatientKey("STJ", "00777")
    assert event(body, SourceProfile(mrn_authority="NORTH")).patient == PatientKey("NORTH", "00777")


@pytest.mark.parametrize(("trigger", "lines"), [("A01", ()), ("A45", ("MRG|11^^^NORTH^MR||H1||V300",))])
def test_hospitals_that_share_patient_numbers_count_their_visits_each_for_itself(
    trigger: str, lines: tuple[str, ...]
) -> None:
    shared = SourceProfile(mrn_authority="NORTH")
    body = movement(trigger, {19: "100"}, *lines, pid="PID|1||00777^^^^MR||VOSS^HELENA|||||||||||||H2")
    here, there = (
        event(sent, shared) for sent in (body, body.replace(b"|STJ^1999000023^NPI|", b"|OTHER^1999000023^NPI|"))
    )
    assert here.patient == there.patient == PatientKey("NORTH", "00777")
    for told, domain in ((here, "STJ"), (there, "OTHER")):
        if trigger == "A01":
            assert told.visit == VisitKey(domain, "100")
        else:
            assert told.rekeying is not None
            (move,) = told.rekeying.moves
            assert (move.visit, move.account, move.into) == (
                VisitKey(domain, "V300"),
                AccountKey(domain, "H1"),
                AccountKey(domain, "H2"),
            )


FILE = """
[[facilities]]
id = "stj"
name = "STJ Hospital"
[[feeds]]
name = "stj-adt"
facility = "stj"
listen = "127.0.0.1:2575"
profile = "stj"
[profiles.stj]
"""


@pytest.mark.parametrize("line", ['null_policy = "ignore"', 'snapshot_segments = ["DG1"]', 'mrn_authority = "STJ"'])
def test_what_cannot_act_on_fhir_is_refused_where_only_fhir_feeds_use_it(tmp_path: Path, line: str) -> None:
    path = tmp_path / "tocengine.toml"
    fhir = '[[feeds]]\nname = "stj-fhir"\nfacility = "stj"\nprotocol = "fhir"\nprofile = "PROFILE"\n'
    path.write_text(fhir.replace("PROFILE", "stj") + FILE + line)
    load_config(path, {})  # the ADT feed uses it too
    path.write_text(fhir.replace("PROFILE", "fhir") + FILE + "[profiles.fhir]\n" + line)
    key = line.partition(" ")[0]
    with pytest.raises(ConfigurationError, match=f"profile 'fhir' is of FHIR feeds, and {key} says how HL7 v2 is read"):
        load_config(path, {})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('enabled_events = ["ADMIT"]', "no trigger event"),
        ('go_live_at = "2026-03-01"', "no time with an offset"),
        ('go_live_at = "soon"', "no time with an offset"),
        ('treating_order = ["PV1-07"]', "did you mean 'PV1-7'"),
        ('null_policy = "drop"', "delete or ignore"),
        ('snapshot_segments = ["DGI"]', "did you mean 'DG1'"),
        ('snapshot_segments = ["ROL"]', "snapshot_segments names 'ROL'"),
        ('destination_aliases = {X = "1999000016"}', "neither an NPI"),
        ('z_paths = {"PV1-36" = "ZPV-0"}', "z_paths reads 'PV1-36' from 'ZPV-0'"),
        ('z_paths = {"MSH-4" = "ZPV-1"}', "z_paths reads 'MSH-4'"),
        ('account_is_visit = true\nvisit_key = "PV1-50"', "account_is_visit contradicts"),
    ],
)
def test_nonsense_is_refused_at_its_line(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "tocengine.toml"
    path.write_text(FILE + line)
    with pytest.raises(ConfigurationError, match=said) as refused:
        load_config(path, {})
    assert refused.value.line == 11
