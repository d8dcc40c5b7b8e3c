"""The HTTP API as Markdown, made from openapi.json when the site is built."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["http_reference"]

Schema = dict[str, Any]
METHODS = ("get", "post", "put", "patch", "delete")
REFERENCE = "#/components/schemas/"


def http_reference(openapi: Schema) -> str:
    """Returns a section for each tag with its operations, and one for each schema that they name."""
    lines = []
    for tag in openapi["tags"]:
        lines += [f"## {tag['name']}", "", tag["description"], ""]
        for path, operations in openapi["paths"].items():
            for method in METHODS:
                if tag["name"] in operations.get(method, {}).get("tags", ()):
                    lines += _operation(method, path, operations[method])
    lines += ["## Schemas", ""]
    for name, schema in sorted(openapi["components"]["schemas"].items()):
        lines += [f"### {name}", ""]
        if "description" in schema:
            lines += [schema["description"], ""]
        lines += _fields(schema) if "properties" in schema else [type_of(schema), ""]
    return "\n".join(lines)


def _operation(method: str, path: str, operation: Schema) -> Iterator[str]:
    yield from (f"### {method.upper()} {path}", "", operation.get("description") or operation["summary"], "")
    if parameters := operation.get("parameters"):
        yield from ("| parameter | in | type | meaning |", "| --- | --- | --- | --- |")
        for parameter in parameters:
            schema = parameter["schema"]
            meaning = parameter.get("description") or schema.get("description", "")
            yield f"| `{parameter['name']}` | {parameter['in']} | {type_of(schema)} | {_cell(meaning)} |"
        yield ""
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        yield from (f"Body, `{media}`: {type_of(content['schema'])}", "")
        if "properties" in content["schema"]:
            yield from _fields(content["schema"])
    yield from ("| status | answer |", "| --- | --- |")
    for status, response in operation["responses"].items():
        types = [
            type_of(content["schema"]) for content in response.get("content", {}).values() if content.get("schema")
        ]
        yield f"| {status} | {_cell(response['description'])}{': ' if types else ''}{', '.join(dict.fromkeys(types))} |"
    yield ""


def _fields(schema: Schema) -> Iterator[str]:
    yield from ("| field | type | meaning |", "| --- | --- | --- |")
    for name, field in schema["properties"].items():
        required = " (required)" if name in schema.get("required", ()) else ""
        yield f"| `{name}`{required} | {type_of(field)} | {_cell(field.get('description', ''))} |"
    yield ""


def type_of(schema: Schema) -> str:
    """Returns a type in words, with a link to a named schema."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(REFERENCE)
        return f"[{name}](#{name.lower()})"
    if kinds := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return " or ".join(dict.fromkeys(type_of(kind) for kind in kinds))
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"array of {type_of(schema.get('items', {}))}"
    bounds = [
        f"{words} {schema[name]:g}"
        for name, words in (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"))
        if name in schema
    ]
    return " ".join([str(kind), *bounds])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
