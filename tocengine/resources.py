"""Owns where the schemas are: `schemas/` of a checkout, `tocengine/schemas` of an installed wheel."""

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path


def schemas_folder() -> Traversable:
    """The folder with the JSON Schemas and the AsyncAPI document."""
    installed = resources.files("tocengine").joinpath("schemas")
    return installed if installed.is_dir() else Path(__file__).parent.parent / "schemas"


def schema(name: str) -> bytes:
    """The JSON Schema called `name`, such as ``toc.events.v1``. Raises FileNotFoundError where there is none."""
    return schemas_folder().joinpath(f"{name}.json").read_bytes()
