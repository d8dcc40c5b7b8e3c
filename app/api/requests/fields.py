"""Reads the fields of a request before its schema does: the alias that it names, and what a lenient one leaves out.

A request is strict unless it says otherwise, names an alias, or has an API key or a service that is lenient. What a
strict request cannot have is an error; a lenient one does without, and `warnings` says so. A warning begins with the
name of its parameter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

from fastapi import Request
from pydantic import BaseModel

from app.api.openai.schemas import EditBody, VideoBody
from app.api.requests.suggestions import advice, fields_within
from app.api.sdapi.translate import PARAMETERS as SDAPI_PARAMETERS
from app.auth import ApiKey
from app.catalog import Alias, Catalog

__all__ = [
    "NO_NOTES", "OTHER", "WARNINGS", "RequestNotes", "context_of", "read_fields", "read_json", "take_notes",
    "warned_parameters", "warning_header",
]  # fmt: skip

#: Ways to write false in a form.
FALSE = frozenset({"false", "0", "no", "off", "f", "n"})
#: Unknown fields that are named one by one, and the most characters of a name.
NAMED_MAX, NAME_MAX_CHARS = 10, 64
#: The header that repeats the warnings of an answer, and its most bytes; proxies take a few thousand of all headers.
WARNINGS = "x-nag-warnings"
HEADER_MAX_BYTES = 1500
PARAMETER = re.compile(r"\w+")
INTEGRAL = re.compile(r"(-?[0-9]+)\.0+")
#: No field takes more.
INTEGERS_BELOW = 2**63
#: Parameters by which warnings are counted; any other counts as OTHER.
KNOWN = EditBody.model_fields.keys() | VideoBody.model_fields.keys() | SDAPI_PARAMETERS
#: Between the parameters that a warning begins with, and behind them.
BETWEEN, BEHIND = re.compile(r", | and "), re.compile(r": | (?:was|were|is) ")
OTHER = "other"


@dataclass(frozen=True)
class RequestNotes:
    """What a request's fields no longer say: the alias that it named, and what was left out before they were read."""

    alias: Alias | None = None
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str | None:
        """The alias as it was written; None for a model's own id."""
        return None if self.alias is None else self.alias.id

    @property
    def is_open(self) -> bool:
        """Whether another model may take the request if this one does not take its files."""
        return self.alias is not None and self.alias.is_open


NO_NOTES = RequestNotes()


def read_fields(
    fields: dict[str, Any],
    shape: type[BaseModel],
    catalog: Catalog,
    key: ApiKey | None = None,
    is_strict: bool = True,
    *,
    is_form: bool = False,
) -> tuple[dict[str, Any], RequestNotes]:
    """Returns the fields with what the alias brings, and without what a lenient request leaves out. Numbers such as
    1.0 become integers where these belong: JSON has one kind of number. Nothing else is changed for a shape without a
    field `strict`.

    is_strict: whether requests of own ids are strict, unless they or their key say otherwise. is_form: all values are
    texts.
    """
    fields = {name: _as_integer(value) if name in _integers(shape) else value for name, value in fields.items()}
    if "strict" not in shape.model_fields:
        return fields, NO_NOTES
    model = fields.get("model")
    alias = catalog.aliases.get(model) if isinstance(model, str) else None
    if alias is not None:
        fields["model"] = alias.model
        if alias.negative_prompt is not None and not _has_negative_prompt(fields):
            fields["negative_prompt"] = alias.negative_prompt
    if fields.get("strict") is None:
        fields.pop("strict", None)
        strict = is_strict if key is None or key.strict is None else key.strict
        if alias is not None or not strict:
            fields["strict"] = "false" if is_form else False
    is_lenient = "strict" in fields and str(fields["strict"]).lower() in FALSE
    return fields, RequestNotes(alias, tuple(_leave_out(fields, shape)) if is_lenient else ())


def read_json(body: bytes, shape: type[BaseModel], request: Request) -> tuple[bytes, RequestNotes]:
    """Does what `read_fields` does for a JSON body. A body that is no object is left to the schema."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return body, NO_NOTES
    if not isinstance(fields, dict):
        return body, NO_NOTES
    read, notes = read_fields(fields, shape, *context_of(request))
    written = json.dumps(read)  # by which 1.0 and 1 differ
    return (body if written == json.dumps(fields) else written.encode()), notes


def context_of(request: Request) -> tuple[Catalog, ApiKey | None, bool]:
    """Returns what `read_fields` needs in addition to the fields: the catalog, the caller's key, NAG_STRICT."""
    service = request.app.state.service
    return service.catalog, request.state.caller.key, service.settings.strict


def take_notes(request: Request) -> RequestNotes:
    """Returns what a FileRoute noted of the request's fields."""
    notes: RequestNotes = getattr(request.state, "notes", NO_NOTES)
    return notes


def warned_parameters(warnings: Iterable[str]) -> list[str]:
    """Returns the parameters that these warnings begin with, each once; `other` for a name that is no field."""
    written = (name for warning in warnings for name in BETWEEN.split(BEHIND.split(warning, maxsplit=1)[0]))
    begun = (PARAMETER.match(name) for name in written)
    names = (match[0] if match is not None else "" for match in begun)
    return list(dict.fromkeys(name if name in KNOWN else OTHER for name in names))


def warning_header(warnings: Iterable[str]) -> dict[str, str]:
    """Returns `x-nag-warnings`, the warnings as JSON strings with commas; nothing if there are none."""
    quoted = [json.dumps(warning) for warning in warnings]
    if not quoted:
        return {}
    shown: list[str] = []
    for text in quoted:
        if sum(map(len, shown)) + len(text) > HEADER_MAX_BYTES:
            shown.append(json.dumps(f"{len(quoted) - len(shown)} more in the body"))
            break
        shown.append(text)
    return {WARNINGS: ", ".join(shown)}


def _leave_out(fields: dict[str, Any], shape: type[BaseModel]) -> Iterator[str]:
    """Takes what a lenient request goes without out of the fields, and yields a warning of each."""
    unknown = [name for name in fields if name not in shape.model_fields]
    for name in unknown:
        del fields[name]
    for name in unknown[:NAMED_MAX]:
        shown = name[:NAME_MAX_CHARS].encode(errors="replace").decode() or '""'
        yield f"{shown} was left out: unknown field{advice([shown], fields_within(shape))}"
    if len(unknown) > NAMED_MAX:
        yield f"{len(unknown) - NAMED_MAX} more unknown fields were left out"
    if fields.get("seed") in (-1, "-1") and not isinstance(fields["seed"], bool):
        del fields["seed"]
        yield "seed was left out: -1 asks for one to be drawn"


@cache
def _integers(shape: type[BaseModel]) -> frozenset[str]:
    return frozenset(name for name, field in shape.model_fields.items() if int in get_args(field.annotation))


def _as_integer(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < INTEGERS_BELOW:
        return int(value)
    match = INTEGRAL.fullmatch(value) if isinstance(value, str) else None
    return value if match is None else match[1]


def _has_negative_prompt(fields: Mapping[str, Any]) -> bool:
    nag = fields.get("nag")
    values = [fields.get("negative_prompt"), fields.get("nag_negative_prompt")]
    values.append(nag.get("negative_prompt") if isinstance(nag, dict) else None)
    return any(isinstance(value, str) and value.strip() for value in values)
