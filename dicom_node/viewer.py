"""The OHIF viewer's built files: fetched once by an administrator, proven, unpacked, and served by the web process.

The version is pinned by the hash of its package, so that neither the registry nor the way to it has to be trusted.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dicom_node.errors import ConfigurationError, NodeError

PREFIX = "/ohif"
_LARGEST = 256 * 1024 * 1024
_DIST = "package/dist/"
_LEFT_OUT = ("ort/",)  # models for a browser with a GPU: two thirds of the whole, and not what this viewer is for
# Asked for without the session's cookie, or kept by the browser beyond it.
_DROPPED = re.compile(
    rb'<link rel="(?:manifest|yandex-tableau-widget)"[^>]*>|<script[^>]*init-service-worker[^>]*></script>'
)


@dataclass(frozen=True, slots=True)
class Release:
    """One published package, as the registry names it. `integrity` is the base64 of its SHA-512."""

    name: str
    version: str
    integrity: str

    @property
    def path(self) -> str:
        """Where a registry has the package."""
        return f"{self.name}/-/{self.name.rpartition('/')[2]}-{self.version}.tgz"


OHIF = Release(
    "@ohif/app", "3.12.10", "0kuF66Mq9c9dMD++bUsTjMrJpXJwaZhz9B4uS244DawAjSkTwIYFU93pxPuRUQixaRi7QAHlF3Fe1qudBlZrmA=="
)


def installed(folder: Path, release: Release = OHIF) -> Path | None:
    """Return the folder of the unpacked viewer; None when it is not there."""
    page = folder / release.version
    return page if (page / "index.html").is_file() else None


def registry_of(environment: Mapping[str, str] = os.environ) -> str:
    """Find the registry that this machine's npm would ask: its environment, its configuration, else the public one."""
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        if environment.get(name):
            return environment[name]
    if npm := shutil.which("npm"):
        asked = subprocess.run([npm, "config", "get", "registry"], capture_output=True, text=True, check=False)
        if asked.stdout.strip().startswith("http"):
            return asked.stdout.strip()
    return "https://registry.npmjs.org/"


def download(registry: str, target: Path, release: Release = OHIF) -> None:
    """Fetch the package from a registry.

    Raises
    ------
    ConfigurationError
        When `registry` is no web address.
    OSError
        When it does not answer.
    NodeError
        When it has no such package, or gives more than any such package has.
    """
    if not registry.startswith(("https://", "http://")):
        raise ConfigurationError(f"--registry: {registry} is no web address")
    url = f"{registry.rstrip('/')}/{release.path}"
    taken = 0
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, target.open("wb") as file:  # noqa: S310 - checked above
            while piece := answer.read(1 << 20):
                taken += len(piece)
                if taken > _LARGEST:
                    raise NodeError(f"{url} is larger than {_LARGEST >> 20} MiB")
                file.write(piece)
    except urllib.error.HTTPError as refused:
        with refused:  # it holds the connection
            raise NodeError(f"{url} answers {refused.code} {refused.reason}") from None


def install(package: Path, folder: Path, release: Release = OHIF) -> Path:
    """Prove a package and unpack it; what was there of this version is replaced.

    Returns
    -------
    pathlib.Path
        The folder of the viewer's page.

    Raises
    ------
    NodeError
        When these are not the bytes of that release.
    """
    found = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    if found != release.integrity:
        raise NodeError(f"this is not {release.name} {release.version}: SHA-512 is {found}, not {release.integrity}")
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / release.version
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpack-") as scratch:
        with tarfile.open(package) as archive:
            archive.extractall(scratch, members=_wanted(archive), filter="data")
        unpacked = Path(scratch) / _DIST
        for path in unpacked.rglob("*"):
            if path.suffix in (".html", ".css", ".js"):
                path.write_bytes(_placed(path.read_bytes()))
        shutil.rmtree(page, ignore_errors=True)
        unpacked.rename(page)
    return page


def _wanted(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in archive:
        inside = member.name.removeprefix(_DIST)
        if member.isfile() and inside != member.name and not inside.startswith(_LEFT_OUT) and inside[-4:] != ".map":
            yield member


def _placed(text: bytes) -> bytes:
    """Move what was built for the root of a host below our prefix: links, and the public path of the bundles."""
    prefix = PREFIX.encode()
    text = _DROPPED.sub(b"", text)
    for before in (rb'(?:href|src|content)="', rb"PUBLIC_URL = '", rb"\burl\([\"']?", rb'\b[\w$]+\.p ?= ?"'):
        text = re.sub(rb"(" + before + rb")/(?!/)", rb"\1" + prefix + b"/", text)
    return text
