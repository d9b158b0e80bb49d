"""`docs/mapping.md` is what the tables say, and says it of every table."""

from importlib.resources import files

from tests.mapping_reference import PAGE, TITLES, page


def test_the_page_is_what_the_tables_say() -> None:
    assert PAGE.read_text("utf-8") == page(), "run python -m tests.mapping_reference"


def test_every_table_is_on_the_page() -> None:
    tables = {each.name.removesuffix(".toml") for each in files("tocengine.normalize").joinpath("tables").iterdir()}
    assert tables - {"__init__.py", "__pycache__"} == set(TITLES)
