"""OpenAI's image request read as ours: sizes, flat guidance fields, and options that mean nothing here."""

from __future__ import annotations

from app.api.schemas import GenerationBody, ImageBody, NAGBody
from app.catalog import NAG_BOUNDS
from app.errors import InvalidParameter, UnsupportedParameter

__all__ = ["from_openai"]

#: Values that ask for nothing in particular, or for what a picture is anyhow.
NEUTRAL: dict[str, tuple[str, ...]] = {
    "quality": ("auto",),
    "style": (),
    "background": ("auto", "opaque"),
    "moderation": ("auto",),
}


def from_openai(body: ImageBody) -> tuple[GenerationBody, dict[str, str], tuple[str, ...]]:
    """The same request as a GenerationBody, the caller's names for its fields, and warnings.

    Raises UnsupportedParameter for an option that cannot be honoured, InvalidParameter for one said twice.
    """
    warnings = _refuse_options(body)
    written: dict[str, str] = {}
    common = {name: getattr(body, name) for name in GenerationBody.model_fields}
    if body.size not in (None, "auto"):
        for name in ("width", "height"):
            if common[name] is not None:
                raise InvalidParameter(f"size and {name} say the same; send one", param="size")
            written[name] = "size"
        assert body.size is not None
        common["width"], common["height"] = map(int, body.size.split("x"))
    common["nag"] = _nag(body, written)
    return GenerationBody(**common), written, warnings


def _nag(body: ImageBody, written: dict[str, str]) -> NAGBody | None:
    names = (*NAG_BOUNDS, "negative_prompt")
    flat = {name: value for name in names if (value := getattr(body, f"nag_{name}")) is not None}
    if not flat:
        return body.nag
    for name in flat:
        if body.nag is not None and getattr(body.nag, name) is not None:
            raise InvalidParameter(f"nag_{name} and nag.{name} say the same; send one", param=f"nag_{name}")
        written[f"nag.{name}"] = f"nag_{name}"
    if body.nag is None:
        written["nag"] = f"nag_{next(iter(flat))}"
    return (body.nag or NAGBody()).model_copy(update=flat)


def _refuse_options(body: ImageBody) -> tuple[str, ...]:
    if body.response_format == "url":
        raise UnsupportedParameter("response_format: only b64_json is supported", param="response_format")
    if body.stream:
        raise UnsupportedParameter("stream: not supported", param="stream")
    warnings = []
    if body.partial_images:
        warnings.append(_leave_out(body, "partial_images", "not supported"))
    for name, neutral in NEUTRAL.items():
        value = getattr(body, name)
        if value is not None and value not in neutral:
            choice = f"only {' or '.join(neutral)} is supported" if neutral else "not supported"
            warnings.append(_leave_out(body, name, choice))
    if body.user is not None:
        warnings.append("user was left out: it is not kept")
    return tuple(warnings)


def _leave_out(body: ImageBody, name: str, why: str) -> str:
    if body.strict:
        raise UnsupportedParameter(f"{name}: {why}", param=name)
    return f"{name} was left out: {why}"
