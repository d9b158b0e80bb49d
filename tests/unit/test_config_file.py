"""The configuration file: what is taken, and how what cannot be is refused."""

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocengine.config import Config, listen_address
from tocengine.config_file import load_config, sources
from tocengine.credentials import patient_hash_key, resolve_secret
from tocengine.errors import ConfigurationError
from tocengine.model.facts import PatientClass
from tocengine.model.ids import FeedName
from tocengine.toml_places import line_of, places

WHOLE = """\
[engine]
name = "utica"
data_dir = "data"

[delivery]
max_age = "90m"
backoff = {first_s = 2, factor = 2, max_s = 60, jitter = 0.1}
allowed_networks = [
  "127.0.0.0/8",
]

[[identifier_domains]]
name = "STJ"
aliases = ["2.16.840.1.113883.19.5"]
system = "urn:oid:2.16.840.1.113883.19.5"

[[feeds]]
name = "stj-adt"
protocol = "mllp"
listen = "127.0.0.1:2575"
facility = "stj"
profile = "stj"
shadow = true

[profiles.stj]
time_zone = "America/New_York"
holdback_s = 30
visit_key = "PV1-19"
match = {msh3 = "EPICADT", msh4 = "STJ"}
class_map = {INO = "inpatient"}
patient_type_map = {OBS = "observation"}
disposition_map = {HHS = "06"}

[profiles.stj.location_map]
"DETOX-2" = {part2 = true, sensitivity = ["SUD"]}
"SWB" = {level_of_care = "swing-bed"}

[[facilities]]
id = "stj"
name = "STJ Hospital"
npi = "1999000023"
"""


def load(folder: Path, text: str, **environ: str) -> Config:
    path = folder / "tocengine.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, environ)


def refusal(folder: Path, text: str, **environ: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load(folder, text, **environ)
    return caught.value


def line_with(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


def test_the_documented_file_is_read(tmp_path: Path) -> None:
    config = load(tmp_path, WHOLE)
    assert config.engine.data_dir == tmp_path / "data"
    assert config.delivery.max_age_h == 1.5
    assert config.delivery.backoff.first_s == 2.0
    profile = config.profiles["stj"]
    assert profile.class_map == {"INO": PatientClass.INPATIENT}
    assert profile.location_map["DETOX-2"].part2
    source = sources(config)[FeedName("stj-adt")]
    assert source.shadow
    assert source.facility.name == "STJ Hospital"
    assert source.domains["2.16.840.1.113883.19.5"] is source.domains["STJ"]


def test_an_empty_file_is_the_embedded_default(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    assert config.is_embedded
    assert config.engine.data_dir == tmp_path / "var"


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="tocengine init"):
        load_config(tmp_path / "none.toml", {})


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, "[engine]\nname = \n").line == 2


@pytest.mark.parametrize(
    ("old", "new", "at", "said"),
    [
        ("data_dir", "datadir", "datadir", "did you mean 'data_dir'"),
        ("[delivery]", "[delivry]", "[delivry]", "did you mean 'delivery'"),
        ("holdback_s = 30", "hold_back_s = 30", "hold_back", "did you mean 'holdback_s'"),
        ("part2 = true", "part_2 = true", "DETOX-2", "did you mean 'part2'"),
        ("part2 = true", "part2 = 'yes'", "DETOX-2", "location_map.DETOX-2.part2 is 'yes': expected bool"),
        ('name = "utica"', "name = 3", "name = 3", "engine.name is 3: expected str"),
        ('protocol = "mllp"', 'protocol = "mlpp"', "mlpp", "did you mean 'mllp'"),
        ("inpatient", "in-patient", "class_map", "did you mean 'INPATIENT'"),
        ('"90m"', '"a day"', "max_age", "90m"),
        ("shadow = true", "shadow = true\nmax_connections = 0", "max_connections", "expected int >= 1"),
        ("shadow = true", "shadow = true\nmax_frame_bytes = 99_000_000", "max_frame_bytes", "expected int <= 10485760"),
        ('facility = "stj"', 'facility = "stjj"', "stjj", "did you mean 'stj'"),
        ('profile = "stj"', 'profile = "stq"', "stq", "did you mean 'stj'"),
        ("America/New_York", "America/NewYork", "NewYork", "did you mean 'America/New_York'"),
        ('"PV1-19"', '"visit"', "visit_key", "PV1-19"),
        ('"PV1-19"', '"PV1-20"', "visit_key", "which names no visit (did you mean 'PV1-50'?)"),
        ('"127.0.0.1:2575"', '"127.0.0.1:8080"', "8080", "taken by http.listen"),
        ('"127.0.0.1:2575"', '"2575"', '"2575"', "is not host:port"),
        ('"mllp"', '"fhir"', "listen =", "taken in at http.listen"),
        ('"127.0.0.0/8"', '"127.0.0.1/8"', "allowed_networks", "host bits"),
        ("first_s = 2", "first_s = 200", "backoff", "backoff.first_s is 200"),
        ('id = "stj"', 'id = "stj"\nkind = "x"', "kind =", "unknown key facilities[0].kind"),
        ("[engine]", "[keys]\npatient_hash = 'file:none'\n[engine]", "patient_hash", "there is no file"),
        ("[engine]", "[keys]\npatient_hash = '0123'\n[engine]", "patient_hash", "holds the key itself"),
        ("[engine]", "[event_log]\nkind = 'kafka'\n[engine]", "kafka", "keys.patient_hash is not set"),
        ("[engine]", "[postgres]\ndsn = 'postgresql://u@h/d'\n[engine]", "dsn", "keys.patient_hash is not set"),
        ("[engine]", "[postgres]\ndsn = 'host=h'\n[engine]", "dsn", "no postgresql:// URL"),
        ("shadow = true", "shadow = true\nallowed_networks = ['10.0.0.1/8']", "10.0.0.1/8", "host bits"),
        ('msh4 = "STJ"', 'msh4 = "STJ", certificates = ["a"]', "match", "demands none"),
        ('msh4 = "STJ"', f'msh4 = "STJ", certificates = ["{"A0:" * 31}A0"]', "match", "looks like its fingerprint"),
        ("[profiles.stj]", "[profiles.stj]\nunsupported_types = 'drop'", "unsupported_types", "reject or ignore"),
        ("shadow = true", "tls = {certfile = 'c.pem', keyfile = 'k.pem'}", "c.pem", "there is no file"),
        (
            'name = "stj-adt"',
            'name = "http"\ntls = {certfile = "/dev/null", keyfile = "/dev/null"}',
            'name = "http"',
            "as the FHIR listener is",
        ),
    ],
)
def test_what_cannot_be_is_refused_at_its_line(tmp_path: Path, old: str, new: str, at: str, said: str) -> None:
    text = WHOLE.replace(old, new)
    assert text != WHOLE
    error = refusal(tmp_path, text)
    assert said in str(error)
    assert error.line == line_with(text, at), str(error)


KAFKA = """
[event_log]
kind = "kafka"
[keys]
patient_hash = "env:A"
audit_signing = "env:B"
[event_log.kafka]
"""


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("", "bootstrap_servers is not set"),
        ("bootstrap_servers = ''", "bootstrap_servers is empty"),
        ("bootstrap_servers = 'k:9092'\nmin_insync = 4", "no write could pass"),
        ("bootstrap_servers = 'k:9092'\nsecurity_protocol = 'SASL_SSL'", "without sasl_username"),
        ("bootstrap_servers = 'k:9092'\nsasl_username = 'u'", "security_protocol is PLAINTEXT"),
        ("bootstrap_servers = 'k:9092'\nsecurity_protocol = 'SSL'\nssl_cafile = 'ca.pem'", "there is no file"),
    ],
)
def test_kafka_settings_that_contradict_each_other(tmp_path: Path, settings: str, said: str) -> None:
    assert said in str(refusal(tmp_path, KAFKA + settings))


def test_kafka_is_taken(tmp_path: Path) -> None:
    assert not load(tmp_path, KAFKA + "bootstrap_servers = 'k:9092'").is_embedded


def test_names_that_are_there_twice(tmp_path: Path) -> None:
    error = refusal(tmp_path, WHOLE + '[[facilities]]\nid = "stj"\nname = "Another"\n')
    assert "'stj' is there twice" in str(error)
    assert error.line == len(WHOLE.splitlines()) + 2


def test_a_required_key_that_is_missing(tmp_path: Path) -> None:
    error = refusal(tmp_path, WHOLE.replace('name = "stj-adt"\n', ""))
    assert "feeds[0] has no 'name'" in str(error)
    assert error.line == line_with(WHOLE, "[[feeds]]")


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        WHOLE,
        TOCENGINE__ENGINE__NAME="12",
        TOCENGINE__POSTGRES__POOL_SIZE="3",
        TOCENGINE__FEEDS__0__LISTEN="127.0.0.1:2600",
        TOCENGINE__PROFILES__STJ__HOLDBACK_S="0",
        TOCENGINE__DELIVERY__ALLOWED_NETWORKS='["10.0.0.0/8"]',
        TOCENGINE_CONFIG="ignored",
    )
    assert config.engine.name == "12"
    assert config.postgres.pool_size == 3
    assert config.feeds[0].listen == "127.0.0.1:2600"
    assert config.profiles["stj"].holdback_s == 0
    assert config.delivery.allowed_networks == ("10.0.0.0/8",)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TOCENGINE__ENGIN__NAME", "x", "did you mean 'engine'"),
        ("TOCENGINE__FEEDS__7__NAME", "x", "leads nowhere"),
        ("TOCENGINE__POSTGRES__POOL_SIZE", "many", "postgres.pool_size is 'many'"),
        ("TOCENGINE__EVENT_LOG__KIND", "kafak", "did you mean 'kafka'"),
    ],
)
def test_a_wrong_override_is_refused_by_its_name(tmp_path: Path, name: str, value: str, said: str) -> None:
    error = refusal(tmp_path, WHOLE, **{name: value})
    assert name in str(error)
    assert said in str(error)


def test_a_refusal_never_repeats_a_secret(tmp_path: Path) -> None:
    error = refusal(tmp_path, "[alerts]\nwebhook = {url = 'https://a.example', secret = ['whsec_c2VjcmV0']}")
    assert "c2VjcmV0" not in str(error)


def test_secrets_are_references(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("open sesame\n")
    assert resolve_secret("literal") == "literal"
    assert resolve_secret("env:X", environ={"X": "from the environment"}) == "from the environment"
    assert resolve_secret(f"file:{tmp_path / 'key'}") == "open sesame"
    with pytest.raises(ConfigurationError, match="NOT_SET"):
        resolve_secret("env:NOT_SET", environ={})
    with pytest.raises(ConfigurationError, match="cannot be read"):
        resolve_secret("file:/nonexistent/key")


def test_the_patient_hash_key_is_generated_once(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    key = patient_hash_key(config)
    assert patient_hash_key(config) == key
    assert len(key) >= 32
    assert (tmp_path / "var/keys/patient_hash").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["2575", ":2575", "host:", "host:port", "host:70000", "::1:80"])
def test_listen_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|brackets"):
        listen_address(text)


def test_listen_addresses() -> None:
    assert listen_address("127.0.0.1:80") == ("127.0.0.1", 80)
    assert listen_address("[::1]:80") == ("::1", 80)


def test_places_of_every_kind_of_statement() -> None:
    text = '# a\n[a."b.c"]\nx = """\n[not]\ny = 1\n"""\nz = [\n 1,\n {w = 2},\n]\n[[f]]\nn=1\n[[f]]\nn=2\n[f.t]\nq=3\n'
    found = places(text)
    assert found["a", "b.c", "x"] == 3
    assert found["a", "b.c", "z", 1, "w"] == 7
    assert found["f", 1, "n"] == 14
    assert found["f", 1, "t", "q"] == 16
    assert line_of(found, ("f", 1, "t", "missing")) == 15
    assert line_of(found, ("nowhere",)) == 0


@settings(deadline=None)  # the first one builds what the others use
@given(st.text(max_size=200))
def test_a_file_of_any_text_is_refused_or_read(text: str) -> None:
    """Nothing but ConfigurationError ever comes out of a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tocengine.toml"
        path.write_text(text, encoding="utf-8")
        with contextlib.suppress(ConfigurationError):
            load_config(path, {})
