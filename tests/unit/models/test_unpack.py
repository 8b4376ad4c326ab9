"""A zip is somebody else's: whatever its names and links say, nothing lands outside of the bundle's folder."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from dicom_node.errors import ConfigurationError
from dicom_node.models.unpack import unpack


def zipped(file: Path, names: dict[str, str], *, kind: int = 0) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in names.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (kind | 0o644) << 16
            archive.writestr(entry, text)
    return file


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("prefix", ["", "spleen/"])
def test_a_bundle_at_the_root_or_in_one_folder(tmp_path: Path, target: Path, prefix: str) -> None:
    names = {f"{prefix}configs/metadata.json": "{}", f"{prefix}docs/README.md": "x", "__MACOSX/configs/x": "y"}
    root = unpack(zipped(tmp_path / "b.zip", names), target)

    assert root == target / prefix.rstrip("/")
    assert (root / "docs" / "README.md").read_text() == "x"
    assert not (target / "__MACOSX").exists()


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", "C:/evil"])
def test_names_that_point_outside_are_refused(tmp_path: Path, target: Path, name: str) -> None:
    archive = zipped(tmp_path / "b.zip", {"configs/metadata.json": "{}", name: "x"})
    with pytest.raises(ConfigurationError, match="outside"):
        unpack(archive, target)
    assert not list(tmp_path.rglob("evil*"))


def test_links_are_refused_in_zips_and_in_folders(tmp_path: Path, target: Path) -> None:
    archive = zipped(tmp_path / "b.zip", {"configs/metadata.json": "/etc/passwd"}, kind=stat.S_IFLNK)
    with pytest.raises(ConfigurationError, match="link"):
        unpack(archive, target)

    folder = tmp_path / "folder"
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "metadata.json").symlink_to("/etc/passwd")
    with pytest.raises(ConfigurationError, match="link"):
        unpack(folder, target)


def test_an_archive_that_lies_about_its_size_is_refused(tmp_path: Path, target: Path) -> None:
    file = zipped(tmp_path / "b.zip", {"configs/metadata.json": "x" * 1000})
    data = bytearray(file.read_bytes())
    where = data.rfind(b"PK\x01\x02")  # the central directory is what is believed
    data[where + 24 : where + 28] = (10).to_bytes(4, "little")
    file.write_bytes(data)
    with pytest.raises(ConfigurationError, match=r"larger than the archive says|cannot be unpacked"):
        unpack(file, target)


def test_what_is_larger_than_a_bundle_can_be_is_refused_before_it_is_unpacked(tmp_path: Path, target: Path) -> None:
    file = tmp_path / "b.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(20_001):
            archive.writestr(f"{number}", "")
    with pytest.raises(ConfigurationError, match="20001 files"):
        unpack(file, target)
    assert not list(target.iterdir())


def test_what_holds_no_bundle_or_two_is_refused(tmp_path: Path, target: Path) -> None:
    with pytest.raises(ConfigurationError, match="no MONAI bundle"):
        unpack(zipped(tmp_path / "none.zip", {"readme": "x"}), target)
    two = {"a/configs/metadata.json": "{}", "b/configs/metadata.json": "{}"}
    with pytest.raises(ConfigurationError, match="2 bundles"):
        unpack(zipped(tmp_path / "two.zip", two), target)
    (tmp_path / "text").write_text("x")
    with pytest.raises(ConfigurationError, match="neither a folder nor a zip"):
        unpack(tmp_path / "text", target)
