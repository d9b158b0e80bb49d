"""Owns the compiled build: with TOCENGINE_COMPILE=1 a wheel has the hot modules as machine code beside their source.

Without it, and in every editable installation, the engine is pure Python and no compiler is asked for.
"""

import os
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SWITCH = "TOCENGINE_COMPILE"
TYPES_OF = ("msgspec", "orjson", "jsonschema-rs")
"""Dependencies whose types the compiled modules reach: the compiler is a type checker first."""


class CompiledModules(BuildHookInterface[Any]):
    """Compiles what `modules` of the hook's table in pyproject.toml names, with mypyc, as one group."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What the build environment needs beside the backend: nothing unless the switch is on."""
        if not self._wanted():
            return []
        typed = [each for each in self.metadata.core.dependencies if each.partition("==")[0] in TYPES_OF]
        return [*self.config["compilers"], *typed]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles before the files of the wheel are collected. An error of type or compiler ends the build."""
        if version == "editable" or not self._wanted():
            return
        self._built = TemporaryDirectory(prefix="tocengine-compiled-")
        built = Path(self._built.name)
        for library in _compile(Path(self.root), self.config["modules"], built):
            build_data["force_include"][str(library)] = str(library.relative_to(built))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes what was generated once the wheel holds it."""
        if not build_data["pure_python"]:
            self._built.cleanup()

    def _wanted(self) -> bool:
        return os.environ.get(SWITCH) == "1"


def _compile(root: Path, modules: list[str], built: Path) -> list[Path]:
    """The shared libraries of `modules` (paths under `root`), written below `built`."""
    from mypyc.build import mypycify  # this and setuptools are there only where the switch is on
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    with TemporaryDirectory(prefix="tocengine-generated-") as generated, chdir(root):  # files are named from the root
        extensions = mypycify(
            [*modules, f"--cache-dir={generated}/types"],
            group_name="tocengine",  # of the library that they share
            target_dir=generated,
            opt_level="2",
            debug_level="0",
        )
        command = build_ext(Distribution({"name": "tocengine", "ext_modules": extensions, "packages": []}))
        command.build_lib, command.build_temp = str(built), f"{generated}/objects"
        command.ensure_finalized()
        command.run()
    libraries = sorted(built.rglob("*.so"))
    if len(libraries) != len(modules) + 1:  # one for each module, and the one they share
        raise RuntimeError(f"{len(libraries)} libraries of {len(modules)} modules")
    return libraries
