"""The one thing of the build that pyproject.toml cannot say: a wheel carries migrations/ inside the package."""

from pathlib import Path
from shutil import copytree, ignore_patterns

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithMigrations(build_py):
    """Copy migrations/ to dicom_node/migrations, where ``dicom_node.db.migrate`` looks first."""

    def run(self) -> None:
        """Build the packages, then add the revisions; an editable install reads them where they lie."""
        super().run()
        if not self.editable_mode:
            inside = Path(self.build_lib) / "dicom_node" / "migrations"
            copytree("migrations", inside, dirs_exist_ok=True, ignore=ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": BuildWithMigrations})
