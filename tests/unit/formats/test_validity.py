"""What is not valid is not sent, and the reason names places, never values."""

import orjson
import pytest

from tests.conformance.test_notices_validate import notices
from tocengine.errors import InvalidBundleError
from tocengine.formats.fhir.validity import assert_valid

NOTICES = notices()


@pytest.mark.parametrize("name", sorted(NOTICES))
def test_every_kind_of_notice_may_leave(name: str) -> None:
    assert_valid(NOTICES[name])


@pytest.mark.parametrize(
    ("kind", "element", "value"),
    [
        ("Patient", "gender", "F"),
        ("Patient", "birthDate", "1940-02-30"),
        ("Encounter", "status", None),
        ("Encounter", "subject", {"reference": "urn:uuid:nobody"}),
        ("Patient", "secret", "SURNAME"),
    ],
)
def test_a_bundle_with_a_defect_may_not(kind: str, element: str, value: object) -> None:
    bundle = orjson.loads(NOTICES["discharge-FULL"])
    resource = next(each["resource"] for each in bundle["entry"] if each["resource"]["resourceType"] == kind)
    if value is None:
        del resource[element]
    else:
        resource[element] = value
    with pytest.raises(InvalidBundleError) as caught:
        assert_valid(orjson.dumps(bundle))
    assert "SURNAME" not in str(caught.value)
    assert caught.value.findings
