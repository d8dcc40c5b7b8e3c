"""Fetches the page's third-party files again, by npm: `python -m app.playground.vendor` after a version was changed.

vendor.json says which package, version and files; what was fetched is written into its folder, with its checksums.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from app.playground.files import FOLDER

__all__ = ["MANIFEST", "VENDORED", "sums"]

VENDORED = FOLDER / "vendor"
MANIFEST = Path(__file__).parent / "vendor.json"


def sums(name: str) -> dict[str, str]:
    """sha256 of each file that lies here."""
    folder = VENDORED / name
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def fetch(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Returns the package's entry as it is now; raises SystemExit if the same version is not what it was."""
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is needed to fetch packages, and is not on the PATH")
    with tempfile.TemporaryDirectory() as folder:
        packed = [npm, "pack", "--silent", "--pack-destination", folder, f"{name}@{entry['version']}"]
        subprocess.run(packed, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        (archive,) = Path(folder).glob("*.tgz")
        integrity = f"sha512-{base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()}"
        fetched = {"version": entry["version"], "integrity": integrity}
        before = entry.get("fetched", fetched)
        if before["version"] == fetched["version"] and before != fetched:
            raise SystemExit(f"{name} {entry['version']} is not what it was: {integrity}")
        with tarfile.open(archive) as package:
            for file in entry["files"]:
                data = package.extractfile(f"package/{file}")
                assert data is not None, file
                target = VENDORED / name / file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data.read())
    return entry | {"fetched": fetched, "sha256": sums(name)}


def main() -> None:
    manifest = json.loads(MANIFEST.read_text())
    written = {name: fetch(name, entry) for name, entry in manifest.items()}
    MANIFEST.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
