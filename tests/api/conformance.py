"""schemathesis over every operation, against a live API with the scripted worker, without keys and with one.

`python -m tests.api.conformance` runs it at length; the tests run a short form.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from app.auth import ApiKey, Scope
from app.auth.api_key import digest
from app.queue.queue import Queue
from benchmarks.service_without_worker import paused
from tests.api.support import working

__all__ = ["Run", "run"]

SECRET = "a-key-for-schemathesis"
#: A request that fits the schema may still not suit the model (400), be done in vain (410, 503) or meet a limit. Its
#: shape is never at fault (422).
CONFIGURATION = """
[checks.positive_data_acceptance]
expected-statuses = ["2XX", "400", "401", "403", "404", "409", "410", "416", "429", "503"]
"""
COUNTED = re.compile(r"([0-9,]+) generated")

HOOKS = {"SCHEMATHESIS_HOOKS": "tests.api.conformance_hooks", "PYTHONPATH": str(Path(__file__).parents[2])}


@dataclass(frozen=True)
class Run:
    """`log` is the API's."""

    passed: bool
    cases: int
    said: str
    log: str


async def run(folder: Path, *, keyed: bool, options: tuple[str, ...]) -> Run:
    """One run of the console script of schemathesis, all checks on."""
    environment = {"NAG_WAIT_MAX_S": "2", "NAG_DEADLINE_MAX_S": "60"}
    if keyed:
        key = ApiKey(id="all", tenant="all", sha256=digest(SECRET), scopes=frozenset(Scope))
        environment["NAG_API_KEYS"] = json.dumps([key.model_dump(mode="json")])
    (folder / "schemathesis.toml").write_text(CONFIGURATION)
    with paused(folder, **environment) as (url, settings):
        queue = Queue.connect(settings)
        async with working(queue, settings) as worker:
            announcing = asyncio.create_task(_announce(queue, worker.name))
            process = await asyncio.create_subprocess_exec(
                Path(sys.executable).parent / "schemathesis", "run", f"{url}/openapi.json", "--checks", "all",
                "--no-color", "--continue-on-failure", "--suppress-health-check", "all", "--warnings", "off",
                "--request-timeout", "60", "--wait-for-schema", "60",
                *(("--header", f"Authorization: Bearer {SECRET}") if keyed else ()), *options,
                cwd=folder, env=os.environ | HOOKS,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            said = (await process.communicate())[0].decode()
            announcing.cancel()
        await queue.close()
    counted = COUNTED.search(said)
    cases = int(counted[1].replace(",", "")) if counted else 0
    return Run(process.returncode == 0, cases, said, (folder / "api.log").read_text())


async def _announce(queue: Queue, worker: str) -> None:
    """The scripted worker does so once, which would not last a long run."""
    while True:
        await asyncio.sleep(10)
        await queue.registry.announce(worker, ["shapes-flux"], 60)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-examples", default="100", help="of each operation and phase")
    arguments = parser.parse_args()
    passed = True
    for keyed in (False, True):
        with tempfile.TemporaryDirectory(prefix="nag-conformance-") as folder:
            found = asyncio.run(run(Path(folder), keyed=keyed, options=("--max-examples", arguments.max_examples)))
        print(found.said)
        how = "with a key" if keyed else "without keys"
        print(f"{how}: {found.cases} cases, {'passed' if found.passed else 'FAILED'}")
        passed = passed and found.passed and "unexpected_error" not in found.log
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
