"""The base of all request bodies, and the types that several fields have.

The text below a field is its description in the OpenAPI document. A field that is absent or null takes the model's
default, and so does an optional text without characters. An unknown field is refused, never ignored.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, field_validator

__all__ = [
    "BLANK_IS_ABSENT", "BY_ITS_NAME", "SEED_MAX", "SEED_MAX_DOUBLE", "Body", "OptionalText", "check_form",
]  # fmt: skip

SEED_MAX = 2**63 - 1
#: What the schema says of it: the next lower number that a reader of doubles takes as it stands.
SEED_MAX_DOUBLE = 2**63 - 1024


def _none_if_blank(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


#: Clients with a form fill in every field of it, so a blank text asks for nothing.
BLANK_IS_ABSENT = BeforeValidator(_none_if_blank)
OptionalText = Annotated[str | None, BLANK_IS_ABSENT]

#: Other names of a value, with the name that it has here.
OTHER_NAMES = {"jpg": "jpeg", "base64": "b64_json"}
BY_ITS_NAME = AfterValidator(lambda value: OTHER_NAMES.get(value, value))


def check_form(pattern: str, form: str) -> AfterValidator:
    """Makes a check like the pattern of a field, whose error says the form in words."""

    def check(value: str | None) -> str | None:
        if value is not None and re.fullmatch(pattern, value) is None:
            raise ValueError(f"must be {form}")
        return value

    return AfterValidator(check)


class Body(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True
    )

    @field_validator("*")
    @classmethod
    def _is_unicode(cls, value: Any) -> Any:
        """JSON can carry half of a surrogate pair, which no tokenizer and no UTF-8 can."""
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError("must be valid Unicode text") from None
        return value
