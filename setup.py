"""What pyproject.toml cannot say: an installed wheel carries ``FluoroGuide/Resources`` inside the package (see FluoroGuideLib/resources.py)."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

RESOURCES = Path("FluoroGuide") / "Resources"
LEFT_OUT = {"UI", "Icons"}  # for Slicer alone


class BuildWithResources(build_py):
    """Copies the resources; an editable install finds them beside the library instead."""

    def run(self) -> None:
        super().run()
        if not getattr(self, "editable_mode", False):
            for source, target in self._resources():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *(str(target) for _, target in self._resources())]

    def _resources(self) -> list[tuple[Path, Path]]:
        files = [p for p in sorted(RESOURCES.rglob("*")) if p.is_file() and p.relative_to(RESOURCES).parts[0] not in LEFT_OUT]
        return [(p, Path(self.build_lib) / "FluoroGuideLib" / "Resources" / p.relative_to(RESOURCES)) for p in files]


setup(cmdclass={"build_py": BuildWithResources})
