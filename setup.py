"""Puts what an installed package needs besides its modules into the wheel."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

# Folders of this repository -> below pipeline/shipped/ in the wheel. A clone has them as they are.
SHIPPED = ("workflow", "profiles", "envs", "config")


class BuildWithWorkflow(build_py):
    """Also copies the workflow, the profiles, the environments and the configs."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for name in SHIPPED:
            target = Path(self.build_lib) / "pipeline" / "shipped" / name
            shutil.copytree(Path(__file__).parent / name, target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithWorkflow})
