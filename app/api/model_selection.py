"""Finds the model of a request by its name, or by the files that it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from app.catalog import Catalog, Kind, Model, field_of
from app.errors import InvalidParameter, UnsupportedParameter
from app.jobs import InputRole

__all__ = ["find_editing_model", "find_model", "input_faults", "takes_none", "unknown_model"]

#: Of OpenAI's, by what a model makes.
ROUTES: dict[Kind, str] = {"image": "POST /v1/images/generations", "video": "POST /v1/videos"}
#: Models that an error names.
MODELS_SHOWN = 20


def find_model(
    catalog: Catalog,
    name: str | None,
    kind: Kind | None = None,
    roles: Sequence[InputRole] = (),
    *,
    is_open: bool = False,
) -> Model:
    """Returns the model called `name`; for None the default, or the first of its `kind` if the default is of the
    other.

    With `roles` of files, the first of those that take them, if there is one; so as well if the name `is_open` and its
    model does not take them.
    Raises InvalidParameter for an unknown one, and for one that is not of this kind.
    """
    able = [model for model in catalog.models.values() if kind in (None, model.kind) and _takes(model, roles)]
    if name is None:
        found = catalog.default_of(kind)
        if found is None:
            raise unknown_model(f"no model here makes {kind}s", catalog)
        return able[0] if able and found not in able else found
    found = catalog.models.get(catalog.own_id(name))
    if found is None:
        raise unknown_model(f"no model {name!r}", catalog)
    if kind not in (None, found.kind):
        message = f"model: {found.id} makes {found.kind}s; ask for one by {ROUTES[found.kind]}"
        code = "not_an_image_model" if kind == "image" else "not_a_video_model"
        raise InvalidParameter(message, param="model", code=code)
    able = [model for model in able if model.kind == found.kind]
    return able[0] if is_open and able and found not in able else found


def find_editing_model(
    catalog: Catalog,
    name: str | None,
    images: int,
    *,
    is_masked: bool,
    has_strength: bool,
    problem: str | None = None,
    is_open: bool = False,
) -> Model:
    """Finds a model that edits so many images: the named one, else the default image model or the first that can.

    Raises InvalidParameter for a model that cannot, with the names of those that can; `problem` is what it says of a
    model that edits otherwise.
    """

    def can(model: Model) -> bool:
        return model.inputs.image_roles(images, is_masked=is_masked, has_strength=has_strength) is not None

    able = [model for model in catalog.models.values() if model.kind == "image" and can(model)]
    if name is None and able:
        default = catalog.default_of("image")
        return default if default in able else able[0]
    found = find_model(catalog, name, "image")
    if found not in able and able and is_open:
        return able[0]
    if found not in able:
        if not found.inputs.tasks:
            problem = "takes no images to start from"
        elif problem is not None:
            pass
        elif is_masked:
            problem = "takes no mask: leave it out" if images == 1 else "takes no mask with several images"
        elif images == 1:
            problem = "takes no image without a mask"
        else:
            problem = (
                f"takes no {images} images: at most {found.inputs.references.max if found.inputs.references else 1}"
            )
        others = f"; {', '.join(model.id for model in able)} would" if able else ""
        message = f"model: {found.id} {problem}{others}"
        raise InvalidParameter(message, param="model", code="not_an_editing_model")
    return found


def unknown_model(problem: str, catalog: Catalog, param: str = "model") -> InvalidParameter:
    """Returns an error that names the models that are served."""
    names = [*catalog.models][:MODELS_SHOWN]
    more = f" and {len(catalog.models) - len(names)} more" if len(catalog.models) > len(names) else ""
    message = f"{param}: {problem}; served are {', '.join(names)}{more}"
    return InvalidParameter(message, param=param, code="model_not_found")


def input_faults(
    model: Model, roles: Sequence[InputRole], written: Mapping[str, str] | None = None
) -> list[InvalidParameter]:
    """Returns what is wrong with the roles of a request's files: UnsupportedParameter for a file that the model takes
    none of, InvalidParameter for too many or a missing one.
    """
    counts, names = Counter(roles), {role: (written or {}).get(field_of(role), field_of(role)) for role in InputRole}
    limits = {role: limit for role in InputRole if (limit := model.inputs.limits(role)) is not None}
    unsupported = [names[role] for role in InputRole if role in counts and role not in limits]
    faults: list[InvalidParameter] = [
        UnsupportedParameter(f"{name}: {takes_none(model)}", param=name) for name in unsupported
    ]
    for role, limit in limits.items():
        name, count = names[role], counts[role]
        is_needed = limit.required and (role is not InputRole.MASK or InputRole.IMAGE in counts)
        if count > limit.max:
            message = f"{name}: model {model.id} takes at most {limit.max}, got {count}"
            faults.append(InvalidParameter(message, param=name))
        elif is_needed and not count:
            message = f"{name}: model {model.id} needs {'one' if name == role else 'some'}"
            faults.append(InvalidParameter(message, param=name))
    for role, other in ((InputRole.MASK, InputRole.IMAGE), (InputRole.LAST_FRAME, InputRole.FIRST_FRAME)):
        if role in limits and role in counts and other not in counts:
            faults.append(InvalidParameter(f"{role}: goes with {other}, which is missing", param=role))
    if {InputRole.IMAGE, InputRole.REFERENCE} <= limits.keys() & counts.keys():
        name, image = names[InputRole.REFERENCE], names[InputRole.IMAGE]
        message = f"{name}: cannot be sent with {image}: model {model.id} changes one image, or follows references"
        faults.append(InvalidParameter(message, param=name))
    return faults


def takes_none(model: Model) -> str:
    """Says that a model takes no files of one role, and which it takes."""
    names = [field_of(other) for other in model.inputs.roles]
    return f"model {model.id} takes none; it starts from {' or '.join(['text', *names]) if names else 'text alone'}"


def _takes(model: Model, roles: Sequence[InputRole]) -> bool:
    counts = Counter(roles)
    limits = {role: model.inputs.limits(role) for role in InputRole}
    has_all = all(counts[role] for role, limit in limits.items() if limit and limit.required and role != InputRole.MASK)
    return has_all and all((limit := limits[role]) is not None and count <= limit.max for role, count in counts.items())
