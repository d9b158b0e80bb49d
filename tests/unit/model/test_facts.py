"""Later statements overlay earlier ones: a value replaces, None deletes, UNSET keeps (HL7 v2.5.1 section 2.5.3)."""

from msgspec import UNSET

from tocengine.model.facts import Diagnosis, DiagnosisChange, EncounterFacts, PatientFacts, known, overlay


def test_overlay() -> None:
    before = PatientFacts(birth_date="1940-01-02", sex="female", phones=("1",))
    after = overlay(before, PatientFacts(sex="male", phones=None))
    assert (after.birth_date, after.sex, after.phones) == ("1940-01-02", "male", None)
    assert overlay(before, PatientFacts()) is before


def test_changes_of_diagnoses_are_applied_and_not_kept() -> None:
    pain, failure = Diagnosis("R07.9", "icd", "Pain", "A"), Diagnosis("I50.9", "icd", "Failure", "F")
    text = Diagnosis(text="fell")
    add = EncounterFacts(diagnosis_changes=tuple(map(DiagnosisChange, (pain, failure, text, pain))))
    both = overlay(EncounterFacts(), add)
    assert both == EncounterFacts(diagnoses=(pain, failure, text))
    gone = (DiagnosisChange(Diagnosis("R07.9", "icd"), True), DiagnosisChange(Diagnosis(text="fell"), True))
    assert overlay(both, EncounterFacts(diagnosis_changes=gone)).diagnoses == (failure,)
    assert overlay(EncounterFacts(diagnoses=None), add).diagnoses == (pain, failure, text)


def test_a_description_that_is_corrected_makes_no_second_diagnosis() -> None:
    before = (Diagnosis("I10", "icd", "Hypertension", "W"), Diagnosis("R07.9", "icd", "Pain", "A"))
    said = (Diagnosis("I10", "icd", "Essential hypertension", "W"), Diagnosis("R07.9", "icd", "Pain", "F"))
    changes = EncounterFacts(diagnosis_changes=tuple(map(DiagnosisChange, said)))
    assert overlay(EncounterFacts(diagnoses=before), changes).diagnoses == (said[0], before[1], said[1])


def test_known() -> None:
    assert known(UNSET) is None
    assert known(None) is None
    assert known("x") == "x"
