"""The small random pipelines of tests.tiny as shared models of the worker."""

from __future__ import annotations

import inspect
from typing import Any

from app.catalog import Catalog, Model
from app.settings import Settings
from app.worker.engine.shared_model import SharedModel
from tests.tiny import CASES, Case

__all__ = ["TINY_CASES", "image_side", "tiny_entry", "tiny_model", "tiny_pipe"]

TINY_CASES = {case.name: case for case in CASES}
#: Options of a case that a request sets.
REQUEST_OPTIONS = ("guidance_scale", "width", "height", "num_frames")


def tiny_model(name: str, **arguments: Any) -> SharedModel:
    """The case of that name, made with `arguments`."""
    pipe = tiny_pipe(name, **arguments)
    return SharedModel(tiny_entry(TINY_CASES[name], pipe), pipe)


def tiny_pipe(name: str, **arguments: Any) -> Any:
    """The pipeline of a case, which can decode."""
    pipe = TINY_CASES[name].make(0, **arguments)
    pipe.set_progress_bar_config(disable=True)
    if pipe.vae.config.get("shift_factor", 0.0) is None:
        pipe.vae.register_to_config(shift_factor=0.0)
    return pipe


def tiny_entry(case: Case, pipe: Any) -> Model:
    """A catalog entry for the pipeline of a case."""
    takes = inspect.signature(pipe.__call__).parameters
    call = {name: value for name, value in case.options.items() if name not in REQUEST_OPTIONS}
    if "use_resolution_binning" in takes:
        call["use_resolution_binning"] = False
    changes = {
        "id": case.name,
        "call": call,
        "cfg": "true_cfg_scale" if "true_cfg_scale" in takes else "guidance_scale",
        "embedded_guidance": None,
    }
    return Catalog.load(Settings()).models["shapes-flux"].model_copy(update=changes)


def image_side(name: str) -> int:
    """Pixels of an image's side that suit the case."""
    return int(TINY_CASES[name].options.get("height", 16))
