"""What is shipped beside the program: examples that load, names that exist, schemas that say what the code says."""

import json
import re
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from tests.settings_reference import SCHEMA, reference, schema
from tocengine.config_file import domains_by_name, load_config
from tocengine.delivery.channels.webhook import secret_bytes, signed_headers
from tocengine.delivery.lifecycle import EndReason
from tocengine.deployment import Role
from tocengine.model.directory import ChannelKind, Level
from tocengine.model.notice import ReasonCode
from tocengine.model.work import WorkKind
from tocengine.routing import directory_file
from tocengine.routing.directory_file import load_directory_file
from tocengine.routing.policy import OUTWARD_KINDS
from tocengine.telemetry import Metrics

ROOT = Path(__file__).parent.parent.parent
DEPLOY, DOCS = ROOT / "deploy", ROOT / "docs"
OPENED = re.compile(r"^# (\[.+\]|[a-z_]+ = .+)")
METRICS = [each for each in vars(Metrics()).values() if isinstance(each, MetricWrapperBase)]
OFFERED_BY_PROMETHEUS = {"job", "instance", "le", "role"}


def settings_text(*, opened: bool) -> str:
    text = (DEPLOY / "tocengine.toml").read_text(encoding="utf-8")
    if not opened:
        return text
    text = text.replace('kind = "postgres"', 'kind = "kafka"')
    return "\n".join(OPENED.sub(r"\1", line) for line in text.splitlines())


def metric_names() -> dict[str, set[str]]:
    """Every name a scrape shows, with its labels."""
    names: dict[str, set[str]] = {}
    for metric in METRICS:
        suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}[
            str(metric._type)
        ]
        names |= {metric._name + suffix: set(metric._labelnames) for suffix in suffixes}
    return names


def expressions() -> Iterator[str]:
    for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("page", "ticket")
            assert rule["annotations"]["summary"]
            yield rule["expr"]
    for panel in json.loads((DEPLOY / "grafana" / "tocengine.json").read_text())["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def compose() -> dict[str, Any]:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


# --- settings


def test_the_annotated_settings_load_as_they_are() -> None:
    assert load_config(DEPLOY / "tocengine.toml", {}).is_embedded


def test_the_annotated_settings_load_with_every_line_opened(tmp_path: Path) -> None:
    text = settings_text(opened=True)
    for name in re.findall(r'"(?:file:)?((?:tls|keys)/[a-z_.-]+)"', text):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "tocengine.toml").write_text(text, encoding="utf-8")
    config = load_config(tmp_path / "tocengine.toml", {})
    assert config.event_log.kafka.sasl_username == "tocengine"
    assert config.alerts.webhook is not None
    assert config.feeds[0].tls is not None


def test_the_annotated_settings_have_every_key() -> None:
    def keys(value: object, prefix: str) -> Iterator[str]:
        if isinstance(value, dict):
            for key, item in value.items():
                yield from keys(item, f"{prefix}.{key}")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for item in value:
                yield from keys(item, f"{prefix}[]")
        else:
            yield prefix.lstrip(".")

    found = set(keys(tomllib.loads(settings_text(opened=True)), ""))
    found = {re.sub(r"^profiles\.[^.]+", "profiles.NAME", name) for name in found}
    found = {re.sub(r"location_map\.[^.]+", "location_map.UNIT", name) for name in found}
    found = {re.sub(r"(_map|_aliases|_paths|_marks)\.[A-Z0-9 -]+$", r"\1", name) for name in found}
    assert found == {name for name, _ in reference()}


def test_the_schema_of_the_settings_is_what_the_structs_say() -> None:
    assert json.loads(SCHEMA.read_text()) == schema(), "run: python -m tests.settings_reference"


def test_the_schema_of_the_settings_takes_the_examples_and_refuses_a_typing_error() -> None:
    validator = jsonschema_rs.validator_for(schema())
    for opened in (False, True):
        document = tomllib.loads(settings_text(opened=opened))
        validator.validate(document)
        document["engine"]["datadir"] = "x"
        assert not validator.is_valid(document)


def test_the_page_about_the_settings_has_every_key_with_its_default() -> None:
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z][^`]*)` \| (?:`([^`]*)`|(required|not set)) \|", text, re.MULTILINE)
    assert {name: default or word for name, default, word in rows} == dict(reference())


# --- directory


def directory_schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "schemas" / "directory.v1.json").read_text())
    return found


def test_the_annotated_directory_loads_without_a_warning() -> None:
    config = load_config(DEPLOY / "tocengine.toml", {})
    domains = {alias: domain.name for alias, domain in domains_by_name(config).items()}
    file = load_directory_file(DEPLOY / "directory.yaml", domains)
    assert [recipient.recipient_id for recipient in file.recipients] == ["facility:sunnyside", "practitioner:patel"]
    assert not file.warnings


def test_the_schema_of_the_directory_has_the_keys_the_reader_knows() -> None:
    found = directory_schema()
    definitions = found["$defs"]
    assert set(definitions["facility"]["properties"]) == set(directory_file._FACILITY)
    assert set(definitions["practitioner"]["properties"]) == set(directory_file._COMMON)
    assert set(definitions["endpoint"]["properties"]) == set(directory_file._ENDPOINT)
    assert set(definitions["member"]["properties"]) == set(directory_file._MEMBER)
    assert set(definitions["opt_out"]["properties"]) == set(directory_file._OPT_OUT)
    assert definitions["subscription"]["properties"]["events"]["items"]["enum"] == sorted(OUTWARD_KINDS)
    assert definitions["subscription"]["properties"]["level"]["enum"] == list(Level)
    assert definitions["endpoint"]["properties"]["channel"]["enum"] == list(ChannelKind)


@pytest.mark.parametrize("path", ["deploy/directory.yaml", "tocengine/starter/templates/directory.yaml"])
def test_the_schema_of_the_directory_takes_the_examples(path: str) -> None:
    text = (ROOT / path).read_text().replace("WEBHOOK-SECRET", "whsec_" + "A" * 44)
    document = json.loads(json.dumps(yaml.safe_load(text), default=str))  # YAML's dates are texts to the reader
    validator = jsonschema_rs.validator_for(directory_schema(), validate_formats=True)
    validator.validate(document)
    document["facilities"][0]["endpoints"][0]["chanel"] = "webhook"
    assert not validator.is_valid(document)


# --- containers


def test_every_override_in_the_compose_file_is_a_setting(tmp_path: Path) -> None:
    found = compose()
    for name, service in found["services"].items():
        settings = service.get("environment", {})
        overrides = {key: value for key, value in settings.items() if key.startswith("TOCENGINE")}
        if not overrides:
            continue
        for key, value in overrides.items():
            if value.startswith("file:/run/secrets/"):
                secret = value.rpartition("/")[2]
                assert secret in service["secrets"], name
                (tmp_path / secret).touch()
                overrides[key] = f"file:{tmp_path / secret}"
        config = load_config(DEPLOY / "tocengine.toml", overrides)
        assert config.event_log.kind == "kafka"
        assert config.admin.listen == "0.0.0.0:8081"
        assert config.feeds[0].listen == "0.0.0.0:2575"


def test_the_compose_file_is_consistent() -> None:
    found = compose()
    services = found["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= set(services), name
        assert set(service.get("secrets", ())) <= set(found["secrets"]), name
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in found["volumes"], volume
    roles = {service["command"][2] for service in services.values() if service.get("command", [""])[0] == "run"}
    assert roles == set(Role)
    scraped = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"][0]
    assert set(scraped["targets"]) == {f"{role}:8081" for role in Role}
    signed = re.findall(r"file:/run/secrets/(\w+)", (DEPLOY / "directory.yaml").read_text())
    assert set(signed) <= set(services["deliver"]["secrets"])


def test_images_name_no_registry() -> None:
    images = [service["image"] for service in compose()["services"].values()]
    images += re.findall(r"^FROM (\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert not [image for image in images if "." in image.partition("/")[0] and "/" in image]


def test_the_dockerfile_copies_what_is_there_and_runs_as_nobody_special() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split()), line
    assert "\nUSER tocengine\n" in text


# --- metrics


def test_alerts_and_dashboard_use_metrics_that_exist() -> None:
    names = metric_names()
    for expression in expressions():
        used = set(re.findall(r"\btocengine_[a-z_]+", expression))
        assert used <= set(names), expression
        known = OFFERED_BY_PROMETHEUS.union(*(names[name] for name in used))
        labels = set(re.findall(r"([a-z_]+)=", re.sub(r"[=!<>]=", "", expression)))
        for group in re.findall(r"by \(([^)]*)\)", expression):
            labels |= {label.strip() for label in group.split(",")}
        assert labels <= known, expression
        assert expression.count("(") == expression.count(")"), expression


def test_the_page_for_operations_has_every_metric_with_its_labels() -> None:
    text = (DOCS / "operations.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(tocengine_[a-z_]+)` \| ([^|]*) \|", text, re.MULTILINE))
    shown = {"counter": "_total", "gauge": "", "histogram": ""}
    expected = {m._name + shown[str(m._type)]: ", ".join(m._labelnames) or "-" for m in METRICS}
    assert rows == expected


# --- pages


def test_every_reason_and_every_work_item_is_explained() -> None:
    text = (DOCS / "notices.md").read_text(encoding="utf-8") + (DOCS / "operations.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", text))
    assert set(ReasonCode) | set(EndReason) | set(WorkKind) <= explained


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_signature_recipe_for_receivers_verifies_what_we_send() -> None:
    page = (DOCS / "receivers.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert code is not None
    recipe: dict[str, Any] = {}
    exec(code[1], recipe)
    old, new, other = (f"whsec_{letter * 44}" for letter in "ABC")
    headers = signed_headers("id", b"{}", [secret_bytes(new), secret_bytes(old)], datetime.now(UTC), {})
    assert recipe["verified"](headers, b"{}", new)
    assert recipe["verified"](headers, b"{}", old)
    assert not recipe["verified"](headers, b"{}", other)
    assert not recipe["verified"](headers, b"{ }", new)


def test_the_example_for_receivers_keeps_the_schema() -> None:
    page = (DOCS / "receivers.md").read_text(encoding="utf-8")
    example = re.search(r"```json\n(.*?)```", page, re.DOTALL)
    assert example is not None
    notice = json.loads((ROOT / "schemas" / "webhook-notice.v1.json").read_text())
    jsonschema_rs.validator_for(notice, validate_formats=True).validate(json.loads(example[1]))
