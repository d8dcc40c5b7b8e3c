"""Loaded by schemathesis: corrects what it makes of streams of events and of forms."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    """Leaves out the schema of events, which would be compared with the whole stream; OpenAPI 3.1 calls that text."""
    for operations in raw_schema["paths"].values():
        for operation in operations.values():
            for answer in operation["responses"].values():
                if "text/event-stream" in answer.get("content", {}):
                    answer["content"]["text/event-stream"] = {}


@schemathesis.hook.apply_to(path="/v1/files", method="POST")  # type: ignore[attr-defined, untyped-decorator]
def filter_body(context: Any, body: Any) -> bool:
    """Returns whether a form can carry the body: of text alone, `false` arrives as "false" and `[]` not at all."""
    if not isinstance(body, dict):
        return True
    return isinstance(body.get("purpose", ""), str) and isinstance(body.get("expires_after", {}), dict)
