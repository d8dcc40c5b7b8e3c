"""Hooks of MkDocs: links that leave docs/, the HTTP API from openapi.json, and Mermaid where a page has a drawing."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))  # MkDocs loads hooks from their path

from docs.http_reference import http_reference  # noqa: E402

#: Pages of the site that stand outside docs/ in the repository.
FOLDER = "repository"
#: Kinds of files that the site shows or serves; a link to another file becomes its name.
SHOWN = {".json", ".md", ".png"}
MERMAID = "assets/mermaid/mermaid.tiny.js"

_FENCE = re.compile(r"^( *)(?:```|~~~).*?^\1(?:```|~~~)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#)(?P<path>[^)#\s]+)(?P<fragment>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files outside docs/ that pages link to, and those that these link to."""
    unread = [DOCS / file.src_uri for file in files.documentation_pages()]
    added: set[Path] = set()
    while unread:
        page = unread.pop()
        for match in _LINK.finditer(_FENCE.sub("", page.read_text())):
            target = (page.parent / match["path"]).resolve()
            if target.suffix not in SHOWN or DOCS in target.parents or target in added or not target.is_file():
                continue
            added.add(target)
            files.append(File.generated(config, _uri(target), abs_src_path=str(target)))
            if target.suffix == ".md":
                unread.append(target)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leads links to where the site has their targets."""
    uri = page.file.src_uri
    path = ROOT / uri.removeprefix(f"{FOLDER}/") if uri.startswith(f"{FOLDER}/") else DOCS / uri

    def rewrite(match: re.Match[str]) -> str:
        target = (path.parent / match["path"]).resolve()
        if not target.exists() or (DOCS in target.parents and path.is_relative_to(DOCS)):
            return match[0]  # MkDocs knows these, or warns of them
        if target.suffix not in SHOWN:
            name = str(target.relative_to(ROOT))
            return match["text"] if name in match["text"] else f"{match['text']} (`{name}`)"
        place = os.path.relpath(_uri(target), Path(uri).parent)
        return f"[{match['text']}]({place}{match['fragment'] or ''})"

    fences = list(_FENCE.finditer(markdown))
    begins = [0, *(fence.end() for fence in fences)]
    ends = [*(fence.start() for fence in fences), len(markdown)]
    codes = [*(fence[0] for fence in fences), ""]
    parts = zip(begins, ends, codes, strict=True)
    markdown = "".join(_LINK.sub(rewrite, markdown[begin:end]) + code for begin, end, code in parts)
    if "<!-- openapi -->" in markdown:
        schema = json.loads((ROOT / "app/api/openapi/openapi.json").read_text())
        markdown = markdown.replace("<!-- openapi -->", http_reference(schema))
    return markdown


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Loads Mermaid from the site itself, on pages that need it; the theme would fetch it from a CDN."""
    if 'class="mermaid"' not in output:
        return output
    place = os.path.relpath(MERMAID, page.url or ".")
    return output.replace("</head>", f'<script src="{place}"></script></head>', 1)


def _uri(target: Path) -> str:
    if DOCS in target.parents:
        return target.relative_to(DOCS).as_posix()
    return f"{FOLDER}/{target.relative_to(ROOT).as_posix()}"
