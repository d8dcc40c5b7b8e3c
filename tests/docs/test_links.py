"""Links between the files of this repository lead to files, and to headings in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:)([^)\s]+)\)")
NOT_TRACKED = {line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()} | {".git"}
HEADING = re.compile(r"^#+ +(.+?)(?: +#+)?$", re.MULTILINE)


def pages() -> list[Path]:
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name not in NOT_TRACKED]
    return sorted([*ROOT.glob("*.md"), *(page for folder in folders for page in folder.rglob("*.md"))])


def anchors(page: Path) -> set[str]:
    """Fragments of the headings, as GitHub makes them."""
    headings = HEADING.findall(FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    links = LINK.findall(FENCE.sub("", page.read_text()))
    for link in links:
        name, _, fragment = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert ROOT in (target, *target.parents), link
        if fragment and target.suffix == ".md":
            assert fragment in anchors(target), link


def test_pages_are_found() -> None:
    assert {ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "docs/architecture/engine.md"} <= set(pages())
