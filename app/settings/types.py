"""The base of the settings of one subject, and the types that several of them have."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import NoDecode

__all__ = ["CommaList", "Network", "OptionalCommaList", "Port", "SettingsGroup", "Url"]

T = TypeVar("T")


class SettingsGroup(BaseModel):
    """The settings of one subject. The text below a field is its description in docs/server/settings.md."""

    model_config = ConfigDict(use_attribute_docstrings=True)


def _split(value: object) -> object:
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


#: Values with commas between them.
CommaList = Annotated[tuple[T, ...], NoDecode, BeforeValidator(_split)]
#: The same, None if there are none.
OptionalCommaList = Annotated[tuple[T, ...] | None, NoDecode, BeforeValidator(lambda value: _split(value) or None)]
Network = IPv4Network | IPv6Network
Port = Annotated[int, Field(ge=0, le=65535)]
Url = Annotated[str, Field(pattern=r"^https?://[^\s?#@]+$")]
