"""The fields of a form, read as the JSON of a schema: `nag[scale]`, `tags[]`, JSON texts, LoRAs in their notations."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, get_args, get_origin

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from app.api.requests.fields import NO_NOTES, RequestNotes, context_of, read_fields
from app.api.requests.uploads import INPUT_FIELDS, without_data_urls
from app.api.requests.validation import note_faults, reduce_fields
from app.errors import InvalidRequest

__all__ = ["read_form", "write_brackets"]

#: `nag[scale]` is the scale of nag; `tags[]` is one of several tags.
BRACKETED = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\]){1,4})")
LORA_FIELD = re.compile(r"loras(?:\[\]|\[(?P<index>[0-9]{0,3})\]\[(?P<field>[a-z]{1,20})\])?")
#: A field that is a list; see `_lora_uses`.
LORAS = "loras"


def write_brackets(name: str, shape: type[BaseModel]) -> str:
    """`nag.scale` as `nag[scale]`, if there is such a field."""
    field, *parts = name.split(".")
    return field + "".join(f"[{part}]" for part in parts) if field in shape.model_fields else name


def read_form(
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
    """Returns the value of a field for an object or a list, which may be JSON; any other as it is. Raises
    InvalidRequest.
    """
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
    """Returns the fields of a form. Several values of a list have the same name, or one that ends in [] or a number."""
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
    """Returns the list as JSON has it, which the route's schema checks: of JSON texts, of texts such as
    `watercolor=0.8`, and of `loras[0][id]` or, as OpenAI's SDKs write it, `loras[][id]`.

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
    """Returns the text itself if it is no number: the schema says so."""
    try:
        return float(text)
    except ValueError:
        return text
