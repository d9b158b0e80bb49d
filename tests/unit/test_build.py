"""The compiled build is set up so that it can be made, and an engine says which build it is."""

import ast
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tocengine import __version__, build
from tocengine.cli import app

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HOOK = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]
PACKAGE = Path(build.__file__).parent


def source(module: str) -> Path:
    """The source of a compiled module as it is installed: the checkout has it too, where tests run in one."""
    return PACKAGE.parent / module


@pytest.mark.parametrize("module", HOOK["modules"])
def test_a_compiled_module_exists_and_defines_no_struct(module: str) -> None:
    """mypyc leaves out the keywords of a class (``frozen``, ``omit_defaults``) and says nothing of it."""
    tree = ast.parse(source(module).read_text(encoding="utf-8"))
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert not [each.name for each in classes if each.keywords or "Struct" in "".join(map(ast.unparse, each.bases))]


def test_the_module_that_tells_of_the_build_is_among_the_compiled() -> None:
    assert "tocengine/normalize/reading.py" in HOOK["modules"]


def test_the_compiler_is_the_type_checker_of_this_project() -> None:
    """Another version would judge, and compile, code that was not checked with it."""
    checker = next(each for each in PROJECT["project"]["optional-dependencies"]["dev"] if each.startswith("mypy=="))
    assert checker in HOOK["compilers"]
    assert all("==" in each for each in HOOK["compilers"])


def test_the_hook_is_where_the_backend_looks_for_it_and_the_image_has_it() -> None:
    names = [
        node.name
        for node in ast.parse((ROOT / "hatch_build.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    ]
    assert names == ["CompiledModules"]
    image = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    assert "hatch_build.py" in image
    assert "ARG TOCENGINE_COMPILE=1" in image


@pytest.mark.parametrize(
    ("files", "kind"),
    [(["reading.py"], "interpreted"), (["reading.py", "reading.so"], "compiled"), (["reading.abi3.so"], "compiled")],
)
def test_a_build_is_told_by_the_files_that_are_there(tmp_path: Path, files: list[str], kind: str) -> None:
    (tmp_path / "normalize").mkdir()
    for name in files:
        (tmp_path / "normalize" / name).touch()
    assert build.kind(tmp_path) == kind


def test_a_package_that_lacks_the_module_is_of_no_build(tmp_path: Path) -> None:
    with pytest.raises(ImportError):
        build.kind(tmp_path)


def test_the_version_names_the_build() -> None:
    from tocengine.normalize import reading

    kind = "interpreted" if reading.__file__.endswith(".py") else "compiled"
    assert CliRunner().invoke(app, ["--version"]).output == f"{__version__} ({kind})\n"
