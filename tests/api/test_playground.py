"""The page's files over HTTP, and that they are whole."""

from __future__ import annotations

import json
import re
from pathlib import Path
from posixpath import normpath

import httpx
import pytest

from app.api.routes import playground
from app.playground import files
from app.playground.vendor import MANIFEST, VENDORED, sums

FOLDER = f"/playground/{files.load().version}"


async def test_the_page_is_asked_for_anew_and_its_files_are_kept_for_good(api: httpx.AsyncClient) -> None:
    page = await api.get("/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["cache-control"] == "no-cache"
    loaded = re.findall(r'(?:src|href)="(playground/[^"]+)"', page.text)
    assert len(loaded) > 20
    for each in loaded:
        file = await api.get(f"/{each}")
        assert file.status_code == 200, each
        assert file.headers["cache-control"] == "public, max-age=31536000, immutable"
    script = await api.get(f"{FOLDER}/js/main.js")
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"


@pytest.mark.parametrize("path", ["/", f"{FOLDER}/js/main.js"])
async def test_what_a_browser_has_is_not_sent_again(api: httpx.AsyncClient, path: str) -> None:
    first = await api.get(path)
    again = await api.get(path, headers={"if-none-match": f'"other", {first.headers["etag"]}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert again.headers["cache-control"] == first.headers["cache-control"]
    assert (await api.get(path, headers={"if-none-match": '"other"'})).status_code == 200
    head = await api.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(first.content))


async def test_another_version_s_page_gets_today_s_files_and_keeps_none(api: httpx.AsyncClient) -> None:
    file = await api.get("/playground/0123456789abcdef/js/main.js")
    assert (file.status_code, file.headers["cache-control"]) == (200, "no-cache")


@pytest.mark.parametrize(
    "path", ["js/none.js", "index.html", "../files.py", "%2e%2e/files.py", "..%2f..%2fsettings.py", "js", "/etc/passwd"]
)
async def test_nothing_else_is_a_file_of_the_page(api: httpx.AsyncClient, path: str) -> None:
    answer = await api.get(f"{FOLDER}/{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_the_page_may_load_and_do_nothing_but_its_own(api: httpx.AsyncClient) -> None:
    policy = (await api.get("/")).headers["content-security-policy"]
    assert policy == playground.POLICY
    rules = dict(each.strip().partition(" ")[::2] for each in policy.split(";"))
    assert (rules["default-src"], rules["script-src"], rules["style-src"]) == ("'none'", "'self'", "'self'")
    assert "unsafe" not in policy
    assert "http" not in policy


async def test_the_page_is_no_part_of_the_schema(api: httpx.AsyncClient) -> None:
    paths = (await api.get("/openapi.json")).json()["paths"]
    assert not [path for path in paths if path == "/" or path.startswith("/playground")]


def test_the_version_changes_with_any_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, text in {"index.html": "{{files}}/a.js", "a.js": "1", "b.css": "2"}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(files, "FOLDER", tmp_path)
    before = files.load.__wrapped__()
    assert before.files["index.html"].data.decode() == f"playground/{before.version}/a.js"
    (tmp_path / "b.css").write_text("3")
    after = files.load.__wrapped__()
    assert before.version != after.version
    assert before.files["index.html"].etag != after.files["index.html"].etag
    assert before.files["a.js"].etag == after.files["a.js"].etag


def test_modules_name_modules_that_are_here() -> None:
    found = files.load().files
    scripts = {name: file.data.decode() for name, file in found.items() if name.endswith(".js")}
    imports = [(name, each) for name, text in scripts.items() for each in re.findall(r'from ?"(\.[^"]+)"', text)]
    assert len(imports) > 20
    for name, imported in imports:
        assert normpath(f"{name}/../{imported}") in scripts, (name, imported)


def test_third_party_files_are_what_was_fetched() -> None:
    manifest = json.loads(MANIFEST.read_text())
    assert sorted(path.name for path in VENDORED.iterdir()) == sorted(manifest)
    for name, entry in manifest.items():
        assert sums(name) == entry["sha256"]
        assert sorted(entry["files"]) == sorted(entry["sha256"])
        assert "LICENSE" in entry["files"]
        assert entry["fetched"]["version"] == entry["version"]
