"""The list of clients: what `make clients` would find out only after minutes."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.clients.__main__ import FOLDER, NEEDED, PROGRAMS, Client

ENTRIES = tomllib.loads((FOLDER / "clients.toml").read_text())["clients"]
EXACT = {"python": re.compile(r"[\w.-]+==[0-9][\w.]*"), "node": re.compile(r"(@[\w.-]+/)?[\w.-]+@[0-9][\w.]*")}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["name"])
def test_each_client_has_a_program_and_exact_versions(entry: dict[str, object]) -> None:
    client = Client(**entry)  # type: ignore[arg-type]
    assert client.kind in {"python", "recorded", *NEEDED}
    assert (PROGRAMS / client.program).is_file()
    assert bool(client.packages) == (client.kind in EXACT)
    assert bool(client.part_of) == bool(client.parts)
    for package in (*client.packages, *filter(None, [client.part_of])):
        assert EXACT[client.kind].fullmatch(package), package


def test_no_two_clients_share_a_folder() -> None:
    assert len({Client(**entry).slug for entry in ENTRIES}) == len(ENTRIES)
