"""Bodies with files, as a form or as JSON with data URLs, read as the JSON they stand for."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from app.api.uploads import INPUT_FIELDS, add_upload, replace_data_urls
from app.errors import BodyTooLarge, InvalidRequest, MalformedBody

__all__ = ["FORM", "FileRoute", "UploadRoute", "take_upload"]

FORM = "multipart/form-data"
#: `nag[scale]` is the scale of nag; `tags[]` is one of several tags.
BRACKETED = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\]){1,4})")
LORA_FIELD = re.compile(r"loras(?:\[\]|\[(?P<index>[0-9]{0,3})\]\[(?P<field>[a-z]{1,20})\])?")
FIELDS_MAX = 200
#: A field that is a list; see `_lora_uses`.
LORAS = "loras"


def _is_form(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == FORM


def take_upload(request: Request, name: str) -> UploadFile | None:
    """Returns a file of an UploadRoute's form, which is open until the request is answered."""
    uploads: Mapping[str, UploadFile] = getattr(request.state, "uploads", {})
    return uploads.get(name)


class FileRoute(APIRoute):
    """A route whose JSON body may hold data URLs, and may come as a form as well; `take_uploads` has the files."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, shape = super().get_route_handler(), _shape(self)

        async def handle_either(request: Request) -> Response:
            if _is_form(request.headers.get("content-type", "")):
                async with _form_of(request) as form:
                    texts, inputs = await _input_texts(form)
                    body = _read(form, shape, texts)
            else:
                decoder = request.app.state.service.decoder
                body, inputs = await asyncio.get_running_loop().run_in_executor(
                    decoder, replace_data_urls, await _read_body(request)
                )
            limit_bytes = request.app.state.service.settings.body_max_bytes
            if len(body) > limit_bytes:
                raise BodyTooLarge(f"a request body holds at most {limit_bytes} bytes, its files apart")
            request = _as_json(request, body)
            request.state.inputs = inputs
            del inputs  # the route may wait for minutes
            return await handle(request)

        return handle_either


class UploadRoute(APIRoute):
    """A route that takes forms alone; `take_upload` has their files, which may be larger than memory."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, shape = super().get_route_handler(), _shape(self)

        async def handle_form(request: Request) -> Response:
            async with _form_of(request) as form:
                request.state.uploads = dict(_files(form))
                return await handle(_as_json(request, _read(form, shape, {})))

        return handle_form


def _shape(route: APIRoute) -> type[BaseModel]:
    shape = route.body_field.field_info.annotation if route.body_field is not None else None
    assert isinstance(shape, type)
    assert issubclass(shape, BaseModel)
    return shape


@asynccontextmanager
async def _form_of(request: Request) -> AsyncIterator[FormData]:
    """Raises MalformedBody."""
    try:
        form = await request.form(max_files=FIELDS_MAX, max_fields=FIELDS_MAX)
    except HTTPException as exc:
        raise MalformedBody(f"the body cannot be read as a form: {exc.detail}") from exc
    except ClientDisconnect as exc:
        raise MalformedBody("the body cannot be read: its client has left") from exc
    try:
        yield form
    finally:
        await form.close()


def _files(form: FormData) -> Iterator[tuple[str, UploadFile]]:
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            yield _named(name, value)[0], value


async def _read_body(request: Request) -> bytes:
    """Reads the body; unlike `Request.body`, the request does not keep it."""
    return b"".join([chunk async for chunk in request.stream()])


async def _input_texts(form: FormData) -> tuple[dict[int, str], dict[str, bytes]]:
    """Reads the files in fields for files: their bytes, and the texts that stand for them by place in the form."""
    texts, inputs = dict[int, str](), dict[str, bytes]()
    for place, (name, value) in enumerate(form.multi_items()):
        if isinstance(value, UploadFile) and name.partition("[")[0] in INPUT_FIELDS:
            texts[place] = add_upload(inputs, await value.read())
    return texts, inputs


def _read(form: FormData, shape: type[BaseModel], texts: Mapping[int, str]) -> bytes:
    """The form's fields as the JSON of a `shape`: text becomes the number or the truth value that it should be.

    `texts` stand for files, by their place in the form.

    Raises InvalidRequest, RequestValidationError.
    """
    items = [
        (name, texts[place]) if place in texts else _named(name, value)
        for place, (name, value) in enumerate(form.multi_items())
    ]
    is_of_loras = [LORAS in shape.model_fields and name.partition("[")[0] == LORAS for name, _ in items]
    fields = _nested([item for item, is_lora in zip(items, is_of_loras, strict=True) if not is_lora])
    loras = _lora_uses([item for item, is_lora in zip(items, is_of_loras, strict=True) if is_lora])
    lists = {name: value for name, value in fields.items() if isinstance(value, list)}  # which that mode does not take
    try:
        body = shape.model_validate_strings({name: value for name, value in fields.items() if name not in lists})
    except ValidationError as exc:
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in exc.errors()]) from exc
    # Not model_dump_json, which writes NaN as null: that would be a field left out.
    sent = body.model_dump(mode="json", exclude_unset=True) | lists
    return json.dumps(sent | {LORAS: loras} if loras else sent).encode()


def _named(name: str, value: UploadFile | str) -> tuple[str, str]:
    """A field as text; one of several files is a file, so that a second one is sent twice."""
    return (name, value) if isinstance(value, str) else (name.removesuffix("[]"), value.filename or "a file")


def _nested(items: list[tuple[str, str]]) -> dict[str, Any]:
    """The fields of a form; a name that ends in [] is one of several values of a list."""
    fields: dict[str, Any] = {}
    for written, value in items:
        match = BRACKETED.fullmatch(written)
        *outer, name = [written] if match is None else [match[1], *match[2][1:-1].split("][")]
        if is_list := not name and bool(outer):
            *outer, name = outer
        inner = fields
        for part in outer:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise InvalidRequest(f"{written}: {part} was sent as a value already", param=written)
        if not is_list and name in inner:
            raise InvalidRequest(f"{written}: sent twice", param=written)
        if not is_list:
            inner[name] = value
        elif isinstance(values := inner.setdefault(name, []), list):
            values.append(value)
        else:
            raise InvalidRequest(f"{written}: {name} was sent as a value already", param=written)
    return fields


def _lora_uses(items: list[tuple[str, str]]) -> list[Any]:
    """The list as JSON has it, which the route's schema checks: of JSON texts, of texts such as `watercolor=0.8`, and
    of `loras[0][id]` or, as OpenAI's SDKs write it, `loras[][id]`.

    Raises InvalidRequest.
    """
    uses: list[Any] = []
    bracketed: dict[str, list[tuple[str, str]]] = {}  # by the name of a use's field: its index or nothing, its text
    for written, text in items:
        match = LORA_FIELD.fullmatch(written)
        if match is None:
            raise InvalidRequest(f"{written}: must be {LORAS}, {LORAS}[0][id] or {LORAS}[][id]", param=LORAS)
        if match["field"] is not None:
            bracketed.setdefault(match["field"], []).append((match["index"], text))
        elif text.strip():
            uses += _lora_texts(text)
    indexed: dict[str, dict[str, Any]] = {}
    for field, values in bracketed.items():
        if any(not index for index, _ in values) and len(values) != len(bracketed.get("id", ())):
            raise InvalidRequest(f"{LORAS}[][{field}]: must be there for each LoRA or for none", param=LORAS)
        for place, (index, text) in enumerate(values):
            use = indexed.setdefault(index or str(place), {})
            if field in use:
                raise InvalidRequest(f"{LORAS}[{index}][{field}]: sent twice", param=LORAS)
            use[field] = text if field == "id" else _number(text)
    return [*uses, *indexed.values()]


def _lora_texts(text: str) -> list[Any]:
    if not text.lstrip().startswith(("[", "{")):
        name, equals, scale = text.strip().rpartition("=")
        return [{"id": name, "scale": _number(scale)} if equals else {"id": scale}]
    try:
        read = json.loads(text, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as exc:
        raise InvalidRequest(f"{LORAS}: must be JSON or such as watercolor=0.8", param=LORAS) from exc
    return read if isinstance(read, list) else [read]


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        raise ValueError("a name is there twice")
    return read


def _number(text: str) -> float | str:
    """The text itself if it is no number: the schema says so."""
    try:
        return float(text)
    except ValueError:
        return text


def _as_json(request: Request, body: bytes) -> Request:
    kept = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
    whole: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def receive() -> Message:
        nonlocal whole
        message, whole = whole, None
        return message or await request.receive()

    return Request({**request.scope, "headers": [*kept, (b"content-type", b"application/json")]}, receive)
