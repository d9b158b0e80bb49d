"""`directory.yaml`: what it says, and every mistake with its line."""

from datetime import date
from pathlib import Path

import pytest

from tocengine.errors import ConfigurationError
from tocengine.model.directory import Alias, ChannelKind, Level, RecipientKind
from tocengine.model.encounter import TransitionKind
from tocengine.routing.directory_file import load_directory_file

GOOD = """\
version: 1
facilities:
  - id: sunnyside
    name: Sunnyside Rehab
    type: SNF
    npi: 1999000015
    ccn: 035123
    aliases: ["SUNNYSIDE REHAB", {feed: stj-adt, value: "SUN01"}]
    endpoints:
      - {id: sunnyside-ehr, channel: webhook, url: "https://ehr.sunnyside.example.org/notices", secret: "env:SECRET"}
      - id: sunnyside-fhir
        channel: fhir
        url: http://127.0.0.1:9000/fhir/$process-message
        headers: {Authorization: "env:TOKEN"}
        accepts_cancel: true
        timeout_s: 5
    subscription: {events: [ED_REGISTRATION, INPATIENT_DISCHARGE], level: FULL}
practitioners:
  - {id: patel, name: "Ravi Patel", npi: "1234567893"}
panels:
  - facility: sunnyside
    members: [{domain: STJ, value: 0012345, from: 2026-01-01, to: null}]
"""


def _load(tmp_path: Path, text: str, domains: dict[str, str] | None = None) -> str:
    path = tmp_path / "directory.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_directory_file(path, domains)
    return str(caught.value).replace(str(path), "F")


def test_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "directory.yaml"
    path.write_text(GOOD, encoding="utf-8")
    file = load_directory_file(path, {"STJ": "STJ"})
    sunnyside, patel = file.recipients
    assert (sunnyside.recipient_id, sunnyside.npi, sunnyside.ccn) == ("facility:sunnyside", "1999000015", "035123")
    assert sunnyside.aliases == (Alias("SUNNYSIDE REHAB"), Alias("SUN01", "stj-adt"))
    assert [endpoint.channel for endpoint in sunnyside.endpoints] == [ChannelKind.WEBHOOK, ChannelKind.FHIR]
    assert sunnyside.endpoints[0].secrets == ("env:SECRET",)
    assert sunnyside.endpoints[1].accepts_cancel
    assert sunnyside.endpoints[1].headers == {"Authorization": "env:TOKEN"}
    assert sunnyside.subscription.level is Level.FULL
    assert TransitionKind.ED_REGISTRATION in sunnyside.subscription.events
    assert (patel.kind, patel.subscription.level) == (RecipientKind.PRACTITIONER, Level.STANDARD)
    (member,) = file.panels[0].members
    assert (member.value, member.starts, member.ends) == ("0012345", date(2026, 1, 1), None)
    assert file.warnings == ()


def test_ambiguous_alias_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "directory.yaml"
    path.write_text(
        "version: 1\nfacilities:\n"
        "  - {id: a, name: A, aliases: [Sunnyside]}\n  - {id: b, name: B, aliases: [SUNNYSIDE.]}\n",
        encoding="utf-8",
    )
    (warning,) = load_directory_file(path).warnings
    assert "a and b" in warning


def test_panel_domain_goes_by_any_alias(tmp_path: Path) -> None:
    path = tmp_path / "directory.yaml"
    path.write_text(GOOD.replace("domain: STJ", "domain: 2.16.840.1.113883.19.5"), encoding="utf-8")
    file = load_directory_file(path, {"STJ": "STJ", "2.16.840.1.113883.19.5": "STJ"})
    assert file.panels[0].members[0].domain == "STJ"


def test_secret_in_a_file_is_found_from_the_directory_file(tmp_path: Path) -> None:
    path = tmp_path / "directory.yaml"
    path.write_text(GOOD.replace("env:SECRET", "file:keys/one"), encoding="utf-8")
    assert load_directory_file(path).recipients[0].endpoints[0].secrets == (f"file:{tmp_path}/keys/one",)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("version: 1", "version: 2", "F:1: this program reads version 1"),
        ("    name: Sunny", "    nmae: Sunny", 'F:4: a facility has no key "nmae" (did you mean name?)'),
        ("    name: Sunnyside Rehab\n", "", 'F:3: a facility needs "name"'),
        ("npi: 1999000015", "npi: 1999000016", 'F:6: "1999000016" is no NPI'),
        ("ccn: 035123", "ccn: 35123", 'F:7: "35123" is no CCN'),
        ("ED_REGISTRATION,", "ED_REGISTRATON,", "did you mean ED_REGISTRATION?"),
        ("ED_REGISTRATION,", "LOCATION_CHANGE,", 'F:17: nobody is told of "LOCATION_CHANGE"'),
        ("level: FULL", "level: FULLL", 'F:17: "FULLL" is no level (did you mean FULL?)'),
        ("channel: fhir", "channel: fax", 'F:12: "fax" is no channel'),
        ("id: sunnyside-fhir", "id: sunnyside-ehr", "is already in line 10"),
        ("https://ehr", "ftp://ehr", "F:10: an endpoint's url starts with https://"),
        ("https://ehr", "http://ehr", "F:10: patient data leaves the network over https:// only"),
        ("https://ehr", "https://me:secret@ehr", "carries no user or password"),
        ('"env:SECRET"', '"s3cret"', "F:10: a secret is env:NAME"),
        ('"env:SECRET"', '"whsec_dG9vc2hvcnQ="', "F:10: a secret is env:NAME"),
        (', secret: "env:SECRET"', "", "F:10: a webhook needs a secret"),
        ("timeout_s: 5", "timeout_s: 500", "F:16: timeout_s is 1 to 120 seconds"),
        ("accepts_cancel: true", "accepts_cancel: maybe", "F:15: this is either true or false"),
        ("from: 2026-01-01", "from: 2026-13-01", 'F:22: "2026-13-01" is no date'),
        ("to: null", "to: 2025-01-01", "F:22: a membership cannot end before it starts"),
        ("to: null", "until: null", 'a member has no key "until"'),
        ("- facility: sunnyside", "- members: []\n  - facility: x", 'F:21: a panel names either its "facility"'),
        ("level: FULL}", 'level: FULL, digest: "07:00"}', "digests are not supported yet"),
        ("id: patel", "id: Dr Patel", '"Dr Patel" cannot be the id of a practitioner'),
        ("practitioners:", "facilities:", 'the file has the key "facilities" twice'),
    ],
)
def test_mistake_is_shown_with_its_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in GOOD
    assert expected in _load(tmp_path, GOOD.replace(old, new, 1))


def test_all_mistakes_are_shown_at_once(tmp_path: Path) -> None:
    text = _load(tmp_path, GOOD.replace("npi: 1999000015", "npi: 1").replace("FULL", "HALF"))
    assert "F:6:" in text
    assert "F:17:" in text


def test_unknown_domain_is_suggested(tmp_path: Path) -> None:
    text = _load(tmp_path, GOOD.replace("domain: STJ", "domain: STJJ"), {"STJ": "STJ"})
    assert 'there is no identifier domain "STJJ" (did you mean STJ?)' in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [("version: [", "is not YAML"), ("", "F: is empty"), ("- 1", "must be a mapping"), ("a: b", 'no key "a"')],
)
def test_what_is_no_directory(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in _load(tmp_path, text)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_directory_file(tmp_path / "none.yaml")


def test_opt_outs_are_kept_by_whom_they_shut_out(tmp_path: Path) -> None:
    path = tmp_path / "directory.yaml"
    path.write_text(
        GOOD
        + """\
opt_outs:
  - {domain: STJ, value: "5551"}
  - {domain: STJ, value: "5552", facility: sunnyside, to: 2026-06-30}
  - {domain: STJ, value: "5553", facility: sunnyside}
"""
    )
    file = load_directory_file(path)
    kept = {panel.recipient_id: [member.value for member in panel.members] for panel in file.panels}
    assert kept == {
        "facility:sunnyside": ["0012345"],
        "opt-out:": ["5551"],
        "opt-out:facility:sunnyside": ["5552", "5553"],
    }
    assert file.opt_outs


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("{domain: STJ, value: A, facility: sunnyside, practitioner: patel}", 'names a "facility", a "practitioner"'),
        ("{domain: STJ}", '"value"'),
        ("{domain: STJ, value: A, from: 2026-02-01, to: 2026-01-01}", "cannot end before it starts"),
        ("{domain: STJ, value: A, family: LEE}", '"family"'),
    ],
)
def test_an_opt_out_that_cannot_be_meant(tmp_path: Path, line: str, found: str) -> None:
    path = tmp_path / "directory.yaml"
    path.write_text(f"{GOOD}opt_outs:\n  - {line}\n")
    with pytest.raises(ConfigurationError, match=found):
        load_directory_file(path)
