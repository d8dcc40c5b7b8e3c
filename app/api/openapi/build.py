"""The description, step by step: each takes the document and adds to it."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from app.api.middleware.auth import API_KEY, needed
from app.api.openai.images import CompletedEvent, PartialImageEvent
from app.api.openapi import answers, examples, names, refusals
from app.api.requests.forms import FORM
from app.api.responses.errors import ErrorBody
from app.api.responses.event import JobEventView

__all__ = ["description"]

REF = "#/components/schemas/"
#: Of errors, and of what a stream carries: no route answers them as they are.
BESIDES = (ErrorBody, PartialImageEvent, CompletedEvent, JobEventView)
SENTENCE = re.compile(r"[.:;](?:\s|$)")
#: The operations that take a form as well: what the form is called, the files in it, and those that must be.
FORMS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "create_video": ("VideoForm", ("input_reference",), ()),
    "edit_image": ("ImageEditForm", ("image", "mask"), ("image",)),
    "create_file": ("FileForm", ("file",), ("file",)),
    "add_lora": ("LoraForm", ("file",), ("file",)),
}
#: No JSON is a request of these: there is no file in it.
FORM_ALONE = ("add_lora", "create_file")
KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": f"Where the service asks for keys; elsewhere none is needed. The header `{API_KEY}` has it as well.",
}


def description(app: FastAPI, *, asks: bool) -> dict[str, Any]:
    """OpenAPI 3.1 of the app's routes, of a service that `asks` for keys or does not."""
    document = get_openapi(
        title=app.title,
        version=version("nag-server"),
        description=app.description,
        routes=app.routes,
        separate_input_output_schemas=False,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        tags=[{"name": name, "description": text} for name, text in names.TAGS.items()],
    )
    _add_schemas(document)
    _leave_defaults_out(document["components"]["schemas"])
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _name(operation)
            _refuse(method, path, operation, asks=asks)
            answers.complete(operation)
            operation["responses"] = dict(sorted(operation["responses"].items()))
            _exemplify(operation)
            if operation["operationId"] in FORMS:
                _add_form(operation, document["components"]["schemas"])
    document["components"] |= {"securitySchemes": {"apiKey": KEY}, "examples": refusals.examples()}
    return _renamed(document)


def _add_schemas(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    _, found = models_json_schema([(model, "serialization") for model in BESIDES], ref_template=REF + "{model}")
    schemas |= found["$defs"]
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, in whose place stands ours
        schemas.pop(name, None)


def _leave_defaults_out(schemas: dict[str, Any]) -> None:
    """Drops the defaults from schemas of requests: openapi-typescript requires a field that has a default."""
    for name, schema in schemas.items():
        for field in schema.get("properties", {}).values() if name.endswith("Body") else ():
            field.pop("default", None)


def _name(operation: dict[str, Any]) -> None:
    name = operation["operationId"]
    operation["operationId"] = names.OPERATIONS.get(name, name)
    operation["summary"] = SENTENCE.split(operation["description"])[0]


def _refuse(method: str, path: str, operation: dict[str, Any], *, asks: bool) -> None:
    good = {status: answer for status, answer in operation["responses"].items() if status < "4"}
    operation["responses"] = good | refusals.responses(method, path, operation)
    if needed(method.upper(), path) is not None:
        operation["security"] = [{"apiKey": []}] if asks else [{"apiKey": []}, {}]


def _exemplify(operation: dict[str, Any]) -> None:
    name = operation["operationId"]
    if name in examples.REQUESTS:
        shown = {title: {"value": value} for title, value in examples.REQUESTS[name].items()}
        operation["requestBody"]["content"]["application/json"]["examples"] = shown
    if name in (answered := examples.answers()):
        status, value = answered[name]
        operation["responses"][status]["content"]["application/json"]["example"] = value.model_dump(mode="json")


def _add_form(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Adds a form of the same fields, flat and with files: its `nag` is `nag[scale]` and so on. A form has no null, and
    a field without text is absent.
    """
    content = operation["requestBody"]["content"]
    name = content["application/json"]["schema"]["$ref"].removeprefix(REF)
    form = json.loads(json.dumps(schemas[name]))
    form["properties"].pop("nag", None)
    form["title"], files, required = FORMS[operation["operationId"]]
    form["properties"] = {field: _without_null(schema) for field, schema in form["properties"].items()}
    for file in files:
        form["properties"][file].pop("anyOf", None)
        form["properties"][file] |= {"type": "string", "format": "binary"}
    texts = [field for field in form.get("required", ()) if field not in files]
    for field in texts:
        form["properties"][field] |= {"minLength": 1}
    form["required"] = [*form.get("required", ()), *required]
    schemas[form["title"]] = form
    content[FORM] = {"schema": {"$ref": REF + form["title"]}}
    if operation["operationId"] in FORM_ALONE:
        del content["application/json"], schemas[name]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name != "anyOf"}
    if len(options) == 1:
        return {**options[0], **rest}
    return {**rest, "anyOf": options} if options else rest


def _renamed(document: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(document)
    for old, new in names.SCHEMAS.items():
        text = text.replace(f'"{REF}{old}"', f'"{REF}{new}"')
    renamed: dict[str, Any] = json.loads(text)
    schemas = renamed["components"]["schemas"]
    renamed["components"]["schemas"] = {
        (name := names.SCHEMAS.get(old, old)): {**schema, "title": name} for old, schema in sorted(schemas.items())
    }
    return renamed
