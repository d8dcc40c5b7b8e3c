"""Whether a catalog entry fits the installed diffusers, without its weights.

A pipeline's class says by its signatures what a call takes and what its parts are; put together without its parts, it
still knows the grid of its sizes.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from app.catalog import CatalogLora, Model, Source
from app.jobs import InputRole
from app.loading.components import component_dtype
from app.loading.denoisers import guided_family
from app.loading.errors import LoadError
from app.loading.grids import grid_problems
from app.loading.hub import File, files_of, lora_file
from app.loading.pipeline import pipeline_class, scheduler_class
from app.loading.prompt_window import window_problems
from app.loading.speed import speed_problems
from app.loading.tasks import argument_of, task_class
from app.loading.weights import require_package
from app.loras import LoraFileError, check_lora, find_structure

__all__ = ["lora_problems", "problems"]

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
#: Arguments of a call that denoise passes if the pipeline takes them.
SUPPLIED = frozenset(
    {"prompt", "negative_prompt", "generator", "num_inference_steps", "width", "height", "num_frames", "output_type"}
)
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
#: Pipelines whose signature leaves the image optional, but whose call does not.
STARTS_FROM_IMAGES = re.compile(r"ImageToVideo|Img2Img|Inpaint|VideoToVideo|Edit|ControlNet|Upscale")
SENTENCEPIECE = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}  # module by package


def problems(entry: Model) -> list[str]:
    """Returns what would keep the entry from loading or from being called as it says, a line for each problem."""
    faults = list(_repository(entry))
    try:
        kind = pipeline_class(entry) if entry.pipeline is not None else _named_by_the_repository(entry)
    except LoadError as exc:
        return [*faults, exc.why]
    if kind is None:
        return faults
    for check in (
        _arguments, _required_arguments, _guidance, _nag, _parts, _vae, _inputs, _inpaint_pipeline, grid_problems,
        window_problems, speed_problems,
    ):  # fmt: skip
        faults += check(entry, kind)
    faults += _tokenizers(entry)
    for needed in (_scheduler, require_package):
        try:
            needed(entry)
        except LoadError as exc:
            faults.append(exc.why)
    return faults


def lora_problems(lora: CatalogLora, base: Model) -> list[str]:
    """Returns what would keep requests from using a LoRA of the catalog, a line for each problem."""
    if not base.request_loras:
        return [f"base: requests of {base.id} may name no LoRAs (request_loras)"]
    if lora.path is not None and not Path(lora.path).is_file():
        return [f"path: no file {lora.path}"]
    if (
        lora.path is None
        and not Path(str(lora.repository)).is_dir()
        and HUB_NAME.fullmatch(str(lora.repository)) is None
    ):
        return [f"repository: no folder {lora.repository}, and no name on the Hugging Face hub (owner/name)"]
    try:
        path = lora_file(lora).path
    except LoadError as exc:
        return [exc.why] if Path(str(lora.repository)).is_dir() else []
    if path is None:  # not downloaded yet
        return []
    try:
        with path.open("rb") as file:
            check_lora(file, find_structure(base))
    except (LoraFileError, OSError) as exc:
        return [f"{path.name}: {exc}"]
    return []


def _repository(entry: Model) -> Iterator[str]:
    folder = Path(entry.repository)
    if not folder.is_dir():
        if HUB_NAME.fullmatch(entry.repository) is None:
            yield f"repository: no folder {entry.repository}, and no name on the Hugging Face hub (owner/name)"
        return
    path = folder / "model_index.json"
    if not path.is_file():
        yield f"repository: no model_index.json in {folder}"
        return
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        name = str(index["_class_name"])
    except (ValueError, LookupError, TypeError) as exc:
        yield f"repository: model_index.json: {type(exc).__name__}: {exc}"
        return
    if not hasattr(diffusers, name):
        yield f"repository: diffusers {diffusers.__version__} has no {name}"
    libraries = {"diffusers": diffusers, "transformers": transformers}
    for part, library in index.items():
        if part.startswith("_") or not isinstance(library, list) or library[0] is None:
            continue
        if library[0] in libraries and not hasattr(libraries[library[0]], library[1]):
            yield f"repository: {part}: {library[0]} has no {library[1]}"
        elif not (folder / part).is_dir():
            yield f"repository: {part}: no such folder beside model_index.json"


def _named_by_the_repository(entry: Model) -> Any:
    """Returns the class, if the files are here; what is wrong with them is another check's."""
    path = Path(entry.repository) / "model_index.json"
    try:
        return getattr(diffusers, json.loads(path.read_text(encoding="utf-8"))["_class_name"], None)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _arguments(entry: Model, kind: Any) -> Iterator[str]:
    takes = inspect.signature(kind.__call__).parameters
    for name in entry.call:
        if name not in takes:
            yield f"call.{name}: {kind.__name__} takes no such argument"
    needed = ["prompt", "generator", "num_inference_steps", "output_type"]
    if not entry.inputs.required_roles:  # else the size may be that of a file
        needed += ["width", "height"]
    if entry.kind == "video":
        needed.append("num_frames")
    for name in needed:
        if name not in takes:
            yield f"pipeline: {kind.__name__} takes no {name}"
    if entry.kind == "image" and "num_frames" in takes:
        yield f"kind: {kind.__name__} makes videos"


def _required_arguments(entry: Model, kind: Any) -> Iterator[str]:
    """Yields the arguments that a call needs and nobody supplies: no text, and no file of every request."""
    takes = {
        name: parameter for name, parameter in inspect.signature(kind.__call__).parameters.items() if name != "self"
    }
    supplied = {*SUPPLIED, *entry.call, entry.cfg, *(argument_of(takes, role) for role in entry.inputs.required_roles)}
    for name, parameter in takes.items():
        if parameter.default is parameter.empty and parameter.kind not in VARIADIC and name not in supplied:
            yield f"pipeline: {kind.__name__} needs {name}, which no request has"
    needs_image = "image" in takes and takes["image"].default is None and STARTS_FROM_IMAGES.search(kind.__name__)
    if needs_image and not entry.inputs.required_roles:
        yield f"pipeline: {kind.__name__} needs image: write inputs = {{ … = {{ required = true }} }}, by its role"


def _tokenizers(entry: Model) -> Iterator[str]:
    """SentencePiece's own format, if the repository has no tokenizer.json; nothing if its files are not known."""
    try:
        names = [file.name for file in files_of(entry)]
    except LoadError:
        return
    folders = {name.partition("/")[0] for name in names if name.endswith(".model")}
    for folder in sorted(folders):
        if f"{folder}/tokenizer.json" not in names:
            for package, module in SENTENCEPIECE.items():
                if not _is_installed(module):
                    yield f"{folder}: needs {package}: pip install it"


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):  # not even the package above it; a module that was unloaded
        return False


def _guidance(entry: Model, kind: Any) -> Iterator[str]:
    takes = inspect.signature(kind.__call__).parameters
    passed = {entry.cfg} - {"none"} | ({"guidance_scale"} if entry.embedded_guidance is not None else set())
    for name in passed - takes.keys():
        yield f"{'cfg' if name == entry.cfg else 'embedded_guidance'}: {kind.__name__} takes no {name}"
    if entry.cfg == "guidance_scale" and "true_cfg_scale" in takes:
        yield f"cfg: {kind.__name__} runs CFG by true_cfg_scale; its guidance_scale is embedded_guidance here"
    if entry.cfg != "none" and entry.guidance_scale.max > 1 and "negative_prompt" not in takes:
        yield f"guidance_scale: {kind.__name__} takes no negative_prompt"


def _nag(entry: Model, kind: Any) -> Iterator[str]:
    family = guided_family(kind)
    if entry.nag is not None:
        if family is None:
            yield f"nag: no family of nag has the denoiser of {kind.__name__}"
        elif family.refused is not None:
            yield f"nag: {family.name} cannot be guided: {family.refused}"
        elif not any(hasattr(kind, name) for name in family.encoders):
            yield f"nag: {kind.__name__} has no {' or '.join(family.encoders)}"


def _inputs(entry: Model, kind: Any) -> Iterator[str]:
    for task in entry.inputs.tasks:
        found = task_class(kind, task)
        if found is None:
            yield f"inputs: {task}: diffusers {diffusers.__version__} has none with the parts of {kind.__name__}"
            continue
        takes = inspect.signature(found.__call__).parameters
        cfg = () if entry.cfg == "none" else (entry.cfg,)
        for name in (*entry.call, *cfg):
            if name not in takes:
                yield f"inputs: {task}: {found.__name__} takes no {name}"
        if cfg and entry.guidance_scale.max > 1 and "negative_prompt" not in takes:
            yield f"inputs: {task}: {found.__name__} takes no negative_prompt"
        if task == "image_to_video" and entry.inputs.last_frame and not argument_of(takes, InputRole.LAST_FRAME):
            yield f"inputs.last_frame: {found.__name__} takes none"


def _inpaint_pipeline(entry: Model, kind: Any) -> Iterator[str]:
    """Compares the channels of UNet and VAE, if their configs are on this machine."""
    if entry.inputs.mask is None or "unet" not in inspect.signature(kind.__init__).parameters:
        return
    unet, vae = _local_json(entry, "unet/config.json"), _local_vae_config(entry)
    if unet is None or vae is None:
        return
    channels, latents = unet.get("in_channels"), vae.get("latent_channels", 4)
    if channels not in (latents, 2 * latents + 1):
        yield (
            f"inputs.mask: the UNet must take {latents} channels, those of the latents, or {2 * latents + 1} "
            f"with mask and image, but takes {channels}"
        )


def _local_json(source: Source, name: str) -> dict[str, Any] | None:
    """Reads a file of a repository from its folder or the hub's cache; None if it cannot be read there."""
    path = File(source, name, 0).path
    if path is None:
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content


def _parts(entry: Model, kind: Any) -> Iterator[str]:
    parts = inspect.signature(kind.__init__).parameters
    quantized = () if entry.quantization is None else entry.quantization.components
    named = {
        "component_dtypes": tuple(entry.component_dtypes),
        "quantization.components": quantized,
        "size.largest_parts": () if entry.size is None else entry.size.largest_parts,
        "vae": () if entry.vae is None else ("vae",),
        "without": entry.without,
    }
    for key, names in named.items():
        for name in names:
            if name not in parts:
                yield f"{key}: {kind.__name__} has no {name}"
    for name in entry.without:
        if name in parts and name not in kind._optional_components and parts[name].default is inspect.Parameter.empty:
            yield f"without: {kind.__name__} needs its {name}"
    if not hasattr(kind, "load_lora_weights"):
        if entry.lora:
            yield f"lora: {kind.__name__} takes none"
        if entry.request_loras:
            yield f"request_loras: {kind.__name__} takes none; set it to false"
    for index, lora in enumerate(entry.lora):
        if lora.into is not None and lora.into not in parts:
            yield f"lora.{index}.into: {kind.__name__} has no {lora.into}"


def _vae(entry: Model, kind: Any) -> Iterator[str]:
    """Yields a VAE that the pipeline switches between precisions, which cannot be shared: another request may be
    decoding.
    """
    switches = component_dtype(entry, "vae") == torch.float16 and hasattr(kind, "upcast_vae")
    config = _local_vae_config(entry) if switches else None
    if config is not None and config.get("force_upcast", True):
        repository = (entry.vae or entry).repository
        yield (
            f"vae: that of {repository} overflows in float16 (force_upcast), so the pipeline would switch it to "
            "float32 while another request decodes with it; name one for float16 (SDXL: madebyollin/sdxl-vae-fp16-fix)"
        )


def _local_vae_config(entry: Model) -> dict[str, Any] | None:
    """Returns the config that the entry's VAE is built to; None if it is not on this machine."""
    if entry.vae is not None and entry.vae.weight_name is None:
        return _local_json(entry.vae, "config.json")
    return _local_json(entry, "vae/config.json")


def _scheduler(entry: Model) -> None:
    if entry.scheduler is not None:
        scheduler_class(entry, entry.scheduler)
