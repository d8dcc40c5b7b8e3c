"""Bodies with files, as a form or as JSON with data URLs, read as the JSON they stand for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from app.api.requests.fields import read_json
from app.api.requests.form_fields import read_form, write_brackets
from app.api.requests.uploads import INPUT_FIELDS, add_upload, decode_data_url, replace_data_urls
from app.api.requests.validation import ValidationRoute, as_json, shape_of
from app.errors import BodyTooLarge, InvalidRequest, MalformedBody

__all__ = ["FORM", "FileRoute", "UploadRoute", "take_upload"]

FORM = "multipart/form-data"
FIELDS_MAX = 200
#: The field of an UploadRoute that holds its file.
FILE = "file"
#: Stands for a file without a name.
UNNAMED = "a file"
#: Of a part that is text; those of a FileRoute may be data URLs, and its body is bounded as a whole.
FIELD_MAX_BYTES, TEXT_MAX_BYTES = 2**20, 2**31
#: Media types of files that may be text; curl calls a file of an unknown kind so.
TEXT_KINDS = ("", "application/json", "application/octet-stream")


def _is_form(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == FORM


def take_upload(request: Request, name: str) -> UploadFile | None:
    """Returns a file of an UploadRoute's form, which is open until the request is answered."""
    uploads: Mapping[str, UploadFile] = getattr(request.state, "uploads", {})
    return uploads.get(name)


class FileRoute(ValidationRoute):
    """A route whose JSON body may hold data URLs, and may come as a form as well; `take_uploads` has the files."""

    #: Takes the files out of a JSON body.
    replace_files: Callable[[bytes], tuple[bytes, dict[str, bytes]]] = staticmethod(replace_data_urls)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, shape = super().get_route_handler(), shape_of(self)

        async def handle_either(request: Request) -> Response:
            if _is_form(request.headers.get("content-type", "")):
                inputs = dict[str, bytes]()
                async with _form_of(request, TEXT_MAX_BYTES) as form:
                    body, notes = read_form(await _items(form, shape, inputs), shape, inputs, request)
            else:
                decoder = request.app.state.service.decoder
                body, inputs = await asyncio.get_running_loop().run_in_executor(
                    decoder, self.replace_files, await _read_body(request)
                )
                body, notes = read_json(body, shape, request)
            limit_bytes = request.app.state.service.settings.body_max_bytes
            if len(body) > limit_bytes:
                raise BodyTooLarge(f"a request body holds at most {limit_bytes} bytes, its files apart")
            request = as_json(request, body)
            request.state.inputs, request.state.notes = inputs, notes
            del inputs  # the route may wait for minutes
            return await handle(request)

        return handle_either


class UploadRoute(APIRoute):
    """A route that takes forms alone; `take_upload` has their files, which may be larger than memory."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, shape = super().get_route_handler(), shape_of(self)

        async def handle_form(request: Request) -> Response:
            async with _form_of(request) as form:
                request.state.uploads = dict(_files(form))
                body, _ = read_form(await _items(form, shape), shape, {})
                return await handle(as_json(request, body))

        return handle_form


class _Parser(MultiPartParser):
    """A part with a media type of its own that is no text is a file, also without a filename."""

    def on_headers_finished(self) -> None:
        part = self._current_part
        kind = dict(part.item_headers).get(b"content-type", b"text/plain").partition(b";")[0].strip().lower()
        _, options = parse_options_header(part.content_disposition)
        if b"filename" not in options and not kind.startswith(b"text/") and kind != b"application/json":
            part.content_disposition = (part.content_disposition or b"") + b'; filename="%b"' % UNNAMED.encode()
        super().on_headers_finished()


@asynccontextmanager
async def _form_of(request: Request, text_max_bytes: int = FIELD_MAX_BYTES) -> AsyncIterator[FormData]:
    """Raises MalformedBody."""
    parser = _Parser(
        request.headers, request.stream(), max_files=FIELDS_MAX, max_fields=FIELDS_MAX, max_part_size=text_max_bytes
    )
    try:
        form = await parser.parse()
    except MultiPartException as exc:
        raise MalformedBody(f"the body cannot be read as a form: {exc.message}") from exc
    except ClientDisconnect as exc:
        raise MalformedBody("the body cannot be read: its client has left") from exc
    try:
        yield form
    finally:
        await form.close()


def _files(form: FormData) -> Iterator[tuple[str, UploadFile]]:
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            yield name.removesuffix("[]"), value


async def _read_body(request: Request) -> bytes:
    """Reads the body; unlike `Request.body`, the request does not keep it."""
    return b"".join([chunk async for chunk in request.stream()])


async def _items(
    form: FormData, shape: type[BaseModel], inputs: dict[str, bytes] | None = None
) -> list[tuple[str, str]]:
    """Reads the form's fields, each as a text; an empty one is absent. Dots in names become brackets.

    A file, or data URL, in a field for inputs goes to `inputs`, and the text that stands for it is the field's. Without
    `inputs`, a file in the field `file` is left to the route. In any other field a file must be text, and is read.

    Raises InvalidRequest.
    """
    items = []
    for written, value in form.multi_items():
        name = write_brackets(written, shape)
        field = name.partition("[")[0]
        is_input = inputs is not None and field in INPUT_FIELDS
        if isinstance(value, str):
            if value == "":
                continue
            is_data = is_input and value[:5].lower() == "data:"
            text = add_upload(inputs, decode_data_url(value, written)) if is_data and inputs is not None else value
        elif not value.size and not value.filename:  # as browsers send a field for a file that was left empty
            continue
        elif is_input and inputs is not None:
            text = add_upload(inputs, await value.read())
        elif inputs is None and field == FILE:  # a second one is sent twice
            name, text = name.removesuffix("[]"), value.filename or UNNAMED
        elif field not in shape.model_fields:
            text = UNNAMED
        else:
            text = await _text_of(written, value)
        items.append((name, text))
    return items


async def _text_of(name: str, file: UploadFile) -> str:
    """Returns the text of a file. Raises InvalidRequest for one that holds no text."""
    kind = (file.content_type or "").partition(";")[0].strip().lower()
    try:
        if kind.startswith("text/") or kind in TEXT_KINDS:
            text = (await file.read()).decode()
            if "\0" not in text:
                return text.rstrip("\r\n")
    except UnicodeDecodeError:
        pass
    raise InvalidRequest(
        f"{name}: must be text, or a file of UTF-8 text; got a file of {kind or 'no type'}", param=name
    )
