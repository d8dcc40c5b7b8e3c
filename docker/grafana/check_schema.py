"""Checks the dashboards against the types of @grafana/schema: `python docker/grafana/check_schema.py`, or a folder.

npm fetches Grafana's TypeScript declarations into the folder, ts-json-schema-generator makes a JSON schema of each
(without unknown fields), and every dashboard, panel option and field config is validated by it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema

from build import FOLDER

__all__ = ["PACKAGES", "fetch", "mistakes"]

PACKAGES = ("@grafana/schema@13.2.3", "ts-json-schema-generator@2.4.0")
TYPES = "node_modules/@grafana/schema/dist/types/raw"
TIMESERIES = f"{TYPES}/composable/timeseries/panelcfg/x/types.gen.d.ts"
#: Where a type of Grafana's stands.
DECLARED = {
    "Dashboard": f"{TYPES}/dashboard/x/types.gen.d.ts",
    "Options": TIMESERIES,
    "FieldConfig": TIMESERIES,
}


def fetch(folder: Path) -> None:
    """Raises subprocess.CalledProcessError."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text("{}")
    _run(folder, "npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES)
    for name, path in DECLARED.items():
        _run(
            folder, "node_modules/.bin/ts-json-schema-generator", "--path", path, "--type", name, "--no-type-check",
            "--out", f"{name}.json",
        )  # fmt: skip


def mistakes(folder: Path) -> Iterator[str]:
    """Yields what does not fit in the dashboards; `folder` is what `fetch` filled."""
    schemas = {name: jsonschema.Draft7Validator(json.loads((folder / f"{name}.json").read_text())) for name in DECLARED}
    for file in sorted(FOLDER.glob("*.json")):
        dashboard = json.loads(file.read_text())
        parts: list[tuple[str, Any]] = [("Dashboard", dashboard)]
        for panel in dashboard["panels"]:
            parts += [("Options", panel["options"]), ("FieldConfig", panel["fieldConfig"]["defaults"]["custom"])]
        for name, part in parts:
            for each in schemas[name].iter_errors(part):
                yield f"{file.name}: {name}: {each.json_path}: {each.message}"


def _run(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def main() -> int:
    """Prints every mistake; 1 where there is one."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".grafana-schema")
    if not (folder / "FieldConfig.json").exists():
        fetch(folder)
    found = list(mistakes(folder))
    print("\n".join(found) or f"{len(list(FOLDER.glob('*.json')))} dashboards fit {PACKAGES[0]}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
