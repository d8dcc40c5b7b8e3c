"""The site builds strictly, and loads nothing from elsewhere."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys

import pytest

from tests.docs.test_links import ROOT

#: Of mermaid.tiny.js of @mermaid-js/tiny 11.17.2, as npm has it.
MERMAID_SHA256 = "7a644017d37f93c8359790884e6b67fb1f747c78eb20475952404bd87190a3f8"
#: What a browser fetches by itself; links that a reader clicks are not among it.
LOADED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*?\bsrc=[\"']?([^\"'\s>]+)|<link\b[^>]*?\bhref=[\"']?([^\"'\s>]+)"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_loads_anything_from_elsewhere(site):
    html = list(site.rglob("*.html"))
    assert len(html) > 50
    for page in html:
        for match in LOADED.finditer(page.read_text()):
            address = match[1] or match[2]
            assert not re.match(r"(\w+:)?//", address), (page, address)
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//", style.read_text()), style


def test_drawings_are_drawn_by_the_sites_own_mermaid(site):
    page = (site / "architecture/queue/index.html").read_text()
    (address,) = re.findall(r'<script src="([^"]*mermaid[^"]*)"', page)
    data = (site / "architecture/queue" / address).read_bytes()
    assert hashlib.sha256(data).hexdigest() == MERMAID_SHA256
    assert "mermaid.tiny.js" not in (site / "server/auth/index.html").read_text()


def test_the_api_of_the_library_and_of_the_server_are_there(site):
    library, server = ((site / name / "index.html").read_text() for name in ("library/api", "server/http-api"))
    assert 'id="nag.guide"' in library
    assert "largest growth of a token" in library  # a docstring's words
    assert "GET /v1/jobs/{job_id}/events" in server
    assert "<!-- openapi -->" not in server


def test_links_out_of_docs_lead_to_pages_of_the_site(site):
    page = (site / "benchmarks/index.html").read_text()
    links = re.findall(r'href="([^"#]*repository/[^"#]*)"', page)
    assert len(links) > 10
    for link in links:
        target = (site / "benchmarks" / link).resolve()
        assert (target / "index.html" if target.is_dir() else target).is_file(), link
