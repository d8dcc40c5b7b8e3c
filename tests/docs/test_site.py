"""The site builds strictly, and loads nothing from elsewhere."""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.browser import NAMES, browsing, find
from tests.docs.test_links import ROOT

pytestmark = pytest.mark.slow  # builds the site

#: Of mermaid.tiny.js of @mermaid-js/tiny 11.17.2, as npm has it.
MERMAID_SHA256 = "7a644017d37f93c8359790884e6b67fb1f747c78eb20475952404bd87190a3f8"
#: What a browser fetches by itself; links that a reader clicks are not among it.
LOADED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*?\bsrc=[\"']?([^\"'\s>]+)|<link\b[^>]*?\bhref=[\"']?([^\"'\s>]+)"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_loads_anything_from_elsewhere(site: Any) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 50
    for page in pages:
        for match in LOADED.finditer(page.read_text()):
            address = match[1] or match[2]
            assert not re.match(r"(\w+:)?//", address), (page, address)
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//", style.read_text()), style


def test_drawings_are_drawn_by_the_sites_own_mermaid(site: Any) -> None:
    page = (site / "architecture/queue/index.html").read_text()
    (address,) = re.findall(r'<script src="([^"]*mermaid[^"]*)"', page)
    data = (site / "architecture/queue" / address).read_bytes()
    assert hashlib.sha256(data).hexdigest() == MERMAID_SHA256
    assert "mermaid.tiny.js" not in (site / "server/auth/index.html").read_text()


def test_every_drawing_can_be_drawn(site: Any, tmp_path: Path) -> None:
    executable = find()
    if executable is None:
        pytest.skip(f"no browser here: none of {', '.join(NAMES)} is on the PATH")
    drawings = [
        html.unescape(drawing)
        for page in site.rglob("*.html")
        for drawing in re.findall(r'<pre class="mermaid"><code>(.*?)</code>', page.read_text(), re.DOTALL)
    ]
    assert len(drawings) >= 5
    with browsing(executable, tmp_path) as page:
        page.open((site / "architecture/queue/index.html").as_uri())
        for drawing in drawings:
            assert page.evaluate(f"mermaid.parse({json.dumps(drawing)}).then(() => '', String)") == "", drawing


def test_the_api_of_the_library_and_of_the_server_are_there(site: Any) -> None:
    library, server = ((site / name / "index.html").read_text() for name in ("library/api", "server/http-api"))
    assert 'id="nag.guide.guide"' in library
    assert "largest growth of a token" in library  # a docstring's words
    assert "GET /v1/jobs/{job_id}/events" in server
    assert "<!-- openapi -->" not in server


def test_links_out_of_docs_lead_to_pages_of_the_site(site: Any) -> None:
    page = (site / "benchmarks/index.html").read_text()
    links = re.findall(r'href="([^"#]*repository/[^"#]*)"', page)
    assert len(links) > 10
    for link in links:
        target = (site / "benchmarks" / link).resolve()
        assert (target / "index.html" if target.is_dir() else target).is_file(), link
