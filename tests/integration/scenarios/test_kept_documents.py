"""Documents that came with a visit's messages: listed, and written out as they came, on record."""

import asyncio
import json
from pathlib import Path

from typer.testing import CliRunner, Result

from tests.integration.scenarios.setting import Setting
from tests.integration.scenarios.test_fhir_pairs import hear
from tests.unit.adapters.fhir.bundles import Bundle, bundle
from tests.unit.adapters.fhir.written import document, document_reference, transaction
from tocengine.cli import app

THEIRS = "https://ehr.example.org/fhir/Binary/9"


def summary(data: str, **more: object) -> Bundle:
    attachments = [{"contentType": "text/plain", "title": "Summary", "data": data}, {"url": THEIRS, "title": "Images"}]
    return document_reference(content=[{"attachment": each} for each in attachments], **more)


async def command(configuration: Path, *arguments: str) -> Result:
    """`tocengine encounter ARGUMENTS`, on a loop of its own."""
    call = ["encounter", *arguments, "--config", str(configuration)]
    return await asyncio.to_thread(CliRunner().invoke, app, call)


async def listed(configuration: Path) -> dict[str, dict[str, object]]:
    """The documents of the visit, by title."""
    result = await command(configuration, "documents", "V500", "--json")
    assert result.exit_code == 0, result.output
    return {row["title"]: row for row in map(json.loads, result.stdout.splitlines())}


async def test_kept_documents_are_listed_and_written_out(town: Setting, configuration: Path, tmp_path: Path) -> None:
    toc = document(bundle())
    await hear(town, [transaction(bundle(), documents=(summary("T2xk"),)), toc])
    await hear(town, [transaction(bundle(), documents=(summary("TmV3"),)) | {"id": "b-2"}])
    found = await listed(configuration)
    assert {title: (row["kept"], row["url"]) for title, row in found.items()} == {
        "Summary": (True, None),
        "Images": (True, THEIRS),
        "Transfer of O'NEIL": (True, None),
    }
    text, composed = str(found["Summary"]["id"]), str(found["Transfer of O'NEIL"]["id"])
    result = await command(configuration, "document", "V500", text, "-o", str(tmp_path / "summary.txt"))
    assert (result.exit_code, (tmp_path / "summary.txt").read_text()) == (0, "New")
    result = await command(configuration, "document", "V500", composed, "-o", str(tmp_path / "toc.json"))
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "toc.json").read_bytes()) | {"id": "d-1"} == toc
    details = await town.pool.fetch("select detail from audit_record where action = 'RECORD_VIEWED' order by audit_id")
    assert [json.loads(row["detail"])["command"] for row in details] == [
        "encounter documents", "encounter document", "encounter document",
    ]  # fmt: skip


async def test_nothing_is_written_over_and_nothing_made_up(town: Setting, configuration: Path, tmp_path: Path) -> None:
    await hear(town, [transaction(bundle(), documents=(summary("T2xk"),))])
    text = str((await listed(configuration))["Summary"]["id"])
    there = tmp_path / "there"
    there.write_text("mine")
    assert (await command(configuration, "document", "V500", text, "-o", str(there))).exit_code == 2
    assert there.read_text() == "mine"
    for asked in ((text, "--part", "2"), ("no-such-document",)):
        result = await command(configuration, "document", "V500", *asked, "-o", str(tmp_path / "new"))
        assert result.exit_code == 1
    assert (await command(configuration, "documents", "V501")).exit_code == 1
    assert not (tmp_path / "new").exists()
