"""`nag-server generate`: one image or video from a running server."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from app.catalog import NAG_BOUNDS, Inputs, field_of
from app.cli.client import Client, ClientError
from app.jobs import InputRole
from app.settings import Settings

__all__ = ["generate"]

FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".mp4": "mp4"}
#: A file that the request starts from, and what it is to the model.
InputPath = tuple[InputRole, Path]


def generate(arguments: argparse.Namespace, settings: Settings) -> None:
    """Sends the request, shows the steps, writes the file and prints what was used. Raises ClientError, OSError."""
    out: Path | None = arguments.out
    if out is not None and out.suffix.lower() not in FORMATS:
        raise ClientError(f"{out}: the name must end in {', '.join(FORMATS)}")
    if out is not None and not out.parent.is_dir():
        raise ClientError(f"{out}: there is no folder {out.parent}")
    for path in (*_images(arguments), *(path for _, path in arguments.inputs)):
        path.open("rb").close()  # a missing file is reported before any is sent
    body = _body(arguments, None if out is None else FORMATS[out.suffix.lower()])
    with Client(arguments.url or settings.url, settings.api_key) as client, _progress() as progress:
        task = progress.add_task("sending", total=None)

        def show(job: dict[str, Any]) -> None:
            steps = job["progress"]
            progress.update(
                task,
                description=job["status"].replace("_", " "),
                total=steps["steps"],
                completed=steps["steps"] if job["status"] == "completed" else steps["step"],
            )

        inputs = _inputs(arguments, client, body)
        with _upload(inputs, client) as fields:
            try:
                job = client.generate(body | fields, show)
            except ClientError as error:
                raise _with_path(error, inputs) from error
        out = out or Path(f"out.{job['request']['output_format']}")
        out.write_bytes(client.result(job))
    _report(job, inputs, out)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def _body(arguments: argparse.Namespace, output_format: str | None) -> dict[str, Any]:
    """Returns what the command line says; the rest is left to the server."""
    names = (
        "model", "seed", "num_inference_steps", "guidance_scale", "width", "height", "num_frames", "fps", "strength",
    )  # fmt: skip
    body = {"prompt": arguments.prompt, "negative_prompt": arguments.negative, "output_format": output_format}
    body |= {name: getattr(arguments, name) for name in names}
    numbers = {name: value for name in (*NAG_BOUNDS, "method") if (value := getattr(arguments, name)) is not None}
    if numbers:
        body["nag"] = numbers
    if arguments.loras:
        body["loras"] = arguments.loras
    return {name: value for name, value in body.items() if value is not None}


def _images(arguments: argparse.Namespace) -> list[Path]:
    """Returns the files whose role follows from the model, the mask last."""
    return [*arguments.image, *filter(None, [arguments.mask])]


def _inputs(arguments: argparse.Namespace, client: Client, body: dict[str, Any]) -> list[InputPath]:
    """Returns the files of the request with their roles. Without a model, chooses one that takes its images."""
    inputs: list[InputPath] = list(arguments.inputs)
    images = _images(arguments)
    if not images:
        return inputs
    is_masked, has_strength = arguments.mask is not None, arguments.strength is not None
    models = client.models()
    wanted = [model for model in models if arguments.model == model["id"]] if arguments.model else models
    for model in sorted(wanted, key=lambda model: not model["default"]):
        takes = Inputs.model_validate(model["inputs"])
        roles = takes.image_roles(len(arguments.image), is_masked=is_masked, has_strength=has_strength)
        if takes.first_frame is not None and len(images) == 1 and not is_masked:
            roles = (InputRole.FIRST_FRAME,)
        if roles is not None:
            body["model"] = model["id"]
            return [*zip(roles, images, strict=True), *inputs]
    # No model takes them: the server's refusal says so.
    role = InputRole.IMAGE if len(arguments.image) == 1 else InputRole.REFERENCE
    roles = (role,) * len(arguments.image) + (InputRole.MASK,) * is_masked
    return [*zip(roles, images, strict=True), *inputs]


@contextmanager
def _upload(inputs: Sequence[InputPath], client: Client) -> Iterator[dict[str, Any]]:
    """Uploads the files for as long as it is entered; yields the fields of a request that name them."""
    fields: dict[str, Any] = {}
    ids: list[str] = []
    try:
        for role, path in inputs:
            try:
                ids.append(client.add_file(path))
            except ClientError as error:
                raise ClientError(f"{path}: {str(error).removeprefix('file: ')}") from error
            if role is InputRole.REFERENCE:
                fields.setdefault(field_of(role), []).append(ids[-1])
            elif fields.setdefault(field_of(role), ids[-1]) != ids[-1]:
                raise ClientError(f"{path}: a request takes one {role}, got two")
        yield fields
    finally:
        for file_id in ids:
            with suppress(ClientError):  # the server removes it in time
                client.delete_file(file_id)


def _with_path(error: ClientError, inputs: Sequence[InputPath]) -> ClientError:
    """Adds the file's path to the refusal of a file."""
    names = dict[str, Path]()
    for role, path in inputs:
        field = field_of(role)
        names[f"{field}.{sum(name.startswith(field) for name in names)}" if role is InputRole.REFERENCE else field] = (
            path
        )
    named = names.get(error.param or "")
    return error if named is None else ClientError(f"{named}: {error}", error.param)


def _report(job: dict[str, Any], inputs: Sequence[InputPath], out: Path) -> None:
    nag, times = job["nag"], job["timings"]
    used = ", ".join(f"{name} {nag[name]:g}" for name in NAG_BOUNDS if nag[name] is not None)
    inference_ms = times["encode_ms"] + times["denoise_ms"] + times["decode_ms"]
    print(f"{out}  {_size(job['request'])}, model {job['model']}")
    for role, path in inputs:
        print(f"input    {path} as {role.replace('_', ' ')}")
    print(f"seed     {job['seed']}")
    print("nag      " + (f"applied: {used}" if nag["applied"] else f"not applied: {nag['reason']}"))
    for lora in job["loras"]:
        print(f"lora     {lora['id']} {lora['scale']:g}")
    print(f"queue    {times['queue_ms']:.1f} ms")
    print(
        f"compute  {inference_ms:.1f} ms (encode {times['encode_ms']:.1f}, denoise {times['denoise_ms']:.1f}, "
        f"decode {times['decode_ms']:.1f})"
    )
    for warning in job["warnings"]:
        print(f"warning  {warning}")


def _size(used: dict[str, Any]) -> str:
    size, frames, fps = f"{used['width']}x{used['height']}", used["num_frames"], used["fps"]
    return size if frames is None else f"{size}, {frames} frames at {fps} per second ({frames / fps:g} s)"
