"""The web page: `/`, and the files that it loads."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app.errors import NotFound
from app.playground.files import INDEX, File, load

# None of this is part of what clients are generated from.
router = APIRouter(include_in_schema=False)

#: A year: a file's address changes with its bytes.
FOR_GOOD = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"
#: Nothing but this server's own files runs, is shown or is spoken to; text becomes markup by lit-html alone.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; media-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types lit-html"
)


@router.get("/")
async def get_page(request: Request) -> Response:
    return _answer(request, load().files[INDEX], {"cache-control": ASK_AGAIN, "content-security-policy": POLICY})


@router.get("/playground/{version}/{path:path}")
async def get_file(version: str, path: str, request: Request) -> Response:
    """Serves today's files to a page that another version of the server sent: replicas may be of two versions."""
    page = load()
    file = page.files.get(path)
    if file is None or path == INDEX:
        raise NotFound(f"the page has no file {path!r}")
    return _answer(request, file, {"cache-control": FOR_GOOD if version == page.version else ASK_AGAIN})


def _answer(request: Request, file: File, headers: dict[str, str]) -> Response:
    headers = headers | {"etag": file.etag}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.data, headers=headers, media_type=file.media_type)
