"""What the build of the package adds (pyproject.toml names it): serving/, host/, what the doctor needs beside them, and Pulumi.yaml in rerank/_house/, where rerank/house.py looks."""

import shutil
from pathlib import Path

from setuptools.command.build_py import build_py  # type: ignore[import-untyped]

HOUSE = ("serving", "host", "config", "registration", "setup", "Pulumi.yaml")


class Build(build_py):  # type: ignore[misc]
    def run(self) -> None:
        if self.editable_mode:  # the checkout itself is used
            super().run()
            return
        into = Path(self.build_lib, "rerank")
        shutil.rmtree(into, ignore_errors=True)  # what an earlier build left there would be installed too
        super().run()
        for name in HOUSE:
            target = into / "_house" / name
            target.parent.mkdir(exist_ok=True)
            if Path(name).is_dir():
                shutil.copytree(name, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(name, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        placed = Path(self.build_lib, "rerank", "_house").rglob("*")
        return [*super().get_outputs(include_bytecode), *(str(path) for path in placed if path.is_file())]
