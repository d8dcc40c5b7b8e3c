"""Files by their signed links, which is all the authority that is asked for here."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse

from app.api.responses.download import file_response
from app.api.service import Here
from app.artifacts.signed_urls import PATH

router = APIRouter(tags=["artifacts"])

Expires = Annotated[str, Query(description="Unix seconds")]
Signature = Annotated[str, Query(description="signature of the name and the time above, made by this server")]


@router.get(PATH + "{name}", response_class=FileResponse)
async def get_artifact(
    name: str, request: Request, service: Here, expires: Expires = "", signature: Signature = ""
) -> Response:
    """Returns an image, video or thumbnail, or a `Range` of it, by the link in its job: no API key is needed.

    403 for a link that was not signed here, 410 once it has expired or the file is gone.
    """
    left_s = service.links.check(name, expires, signature)
    return await file_response(request, service.artifacts, name, {"cache-control": f"private, max-age={left_s}"})
