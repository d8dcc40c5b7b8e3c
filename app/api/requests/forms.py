"""Bodies with files, as a form or as JSON with data URLs, read as the JSON they stand for."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, get_args, get_origin

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from app.api.requests.fields import NO_NOTES, RequestNotes, context_of, read_fields, read_json
from app.api.requests.uploads import INPUT_FIELDS, add_upload, decode_data_url, replace_data_urls, without_data_urls
from app.api.requests.validation import ValidationRoute, as_json, note_faults, reduce_fields, shape_of
from app.errors import BodyTooLarge, InvalidRequest, MalformedBody

__all__ = ["FORM", "FileRoute", "UploadRoute", "take_upload"]

FORM = "multipart/form-data"
#: `nag[scale]` is the scale of nag; `tags[]` is one of several tags.
BRACKETED = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\]){1,4})")
LORA_FIELD = re.compile(r"loras(?:\[\]|\[(?P<index>[0-9]{0,3})\]\[(?P<field>[a-z]{1,20})\])?")
FIELDS_MAX = 200
#: The field of an UploadRoute that holds its file.
FILE = "file"
#: Stands for a file without a name.
UNNAMED = "a file"
#: Of a part that is text; those of a FileRoute may be data URLs, and its body is bounded as a whole.
FIELD_MAX_BYTES, TEXT_MAX_BYTES = 2**20, 2**31
#: Media types of files that may be text; curl calls a file of an unknown kind so.
TEXT_KINDS = ("", "application/json", "application/octet-stream")
#: A field that is a list; see `_lora_uses`.
LORAS = "loras"


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
                    body, notes = _read(await _items(form, shape, inputs), shape, inputs, request)
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
                body, _ = _read(await _items(form, shape), shape, {})
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
        name = _write_brackets(written, shape)
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


def _write_brackets(name: str, shape: type[BaseModel]) -> str:
    """`nag.scale` as `nag[scale]`, where there is such a field."""
    field, *parts = name.split(".")
    return field + "".join(f"[{part}]" for part in parts) if field in shape.model_fields else name


async def _text_of(name: str, file: UploadFile) -> str:
    """The text of a file. Raises InvalidRequest for one that holds no text."""
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


def _read(
    items: list[tuple[str, str]],
    shape: type[BaseModel],
    inputs: dict[str, bytes],
    request: Request | None = None,
) -> tuple[bytes, RequestNotes]:
    """Returns a form's fields as the JSON of a `shape`: text becomes the number or the truth value that it should be.

    `request` is one whose model and leniency are read first. Data URLs within JSON texts go to `inputs`.

    Raises InvalidRequest, RequestValidationError.
    """
    is_of_loras = [LORAS in shape.model_fields and name.partition("[")[0] == LORAS for name, _ in items]
    fields = _nest([item for item, is_lora in zip(items, is_of_loras, strict=True) if not is_lora], shape)
    loras = _lora_uses([item for item, is_lora in zip(items, is_of_loras, strict=True) if is_lora])
    fields = {name: _from_json(name, value, shape, inputs) for name, value in fields.items()}
    notes = NO_NOTES
    if request is not None:
        fields, notes = read_fields(fields, shape, *context_of(request), is_form=True)
    # That mode takes texts alone; the route reads the others from JSON.
    read = {name: value for name, value in fields.items() if isinstance(value, (list, _JsonObject))}
    texts = {name: value for name, value in fields.items() if name not in read}
    try:
        body = shape.model_validate_strings(texts)
    except ValidationError as exc:
        errors = [{**error, "loc": ("body", *error["loc"])} for error in exc.errors()]
        reduced = None
        if request is not None:
            reduced = reduce_fields(texts, errors, shape, shape.model_validate_strings)
        if request is None or reduced is None:
            raise RequestValidationError(errors) from exc
        note_faults(request, errors)
        body = shape.model_validate_strings(reduced)
    # Not model_dump_json, which writes NaN as null: that would be a field left out.
    sent = body.model_dump(mode="json", exclude_unset=True) | read
    return json.dumps(sent | {LORAS: loras} if loras else sent).encode(), notes


class _JsonObject(dict[str, Any]):
    """An object that a form has as JSON."""


def _from_json(name: str, value: Any, shape: type[BaseModel], inputs: dict[str, bytes]) -> Any:
    """The value of a field for an object or a list, which may be JSON; any other as it is. Raises InvalidRequest."""
    is_object, is_list, is_text = _takes(shape, name)
    if not isinstance(value, str) or not (is_object or is_list):
        return value
    if not value.lstrip().startswith(("{", "[")):
        return [value] if is_list and not is_text else value
    try:
        read = json.loads(value, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as exc:
        raise InvalidRequest(f"{name}: must be JSON that has each name once", param=name) from exc
    if name in INPUT_FIELDS:
        read = without_data_urls(read, name, inputs)
    return _JsonObject(read) if isinstance(read, dict) else read


def _takes(shape: type[BaseModel], name: str) -> tuple[bool, bool, bool]:
    """Whether a field takes objects, lists and texts."""
    if name not in shape.model_fields:
        return False, False, False
    annotation = shape.model_fields[name].annotation
    kinds = [
        get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in get_args(annotation) or (annotation,)
    ]
    return (
        any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds),
        any(get_origin(kind) is list for kind in kinds),
        str in kinds,
    )


def _nest(items: list[tuple[str, str]], shape: type[BaseModel]) -> dict[str, Any]:
    """The fields of a form. Several values of a list have the same name, or one that ends in [] or a number."""
    fields: dict[str, Any] = {}
    for written, value in items:
        match = BRACKETED.fullmatch(written)
        *outer, name = [written] if match is None else [match[1], *match[2][1:-1].split("][")]
        is_list = bool(outer) and (not name or (name.isdecimal() and len(outer) == 1 and _takes(shape, outer[0])[1]))
        if is_list:
            *outer, name = outer
        inner = fields
        for part in outer:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise InvalidRequest(f"{written}: {part} was sent as a value already", param=written)
        if not is_list and name in inner:
            if outer or not _takes(shape, name)[1] or isinstance(inner[name], dict):
                raise InvalidRequest(f"{written}: sent twice", param=written)
            is_list = True
            inner[name] = inner[name] if isinstance(inner[name], list) else [inner[name]]
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
