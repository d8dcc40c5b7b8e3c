"""Each speed setting of the catalog against the plain model: exactness, time and memory, with and without guidance.

A setting is put into a copy of the entry, which is loaded as a worker loads it. Images are made one at a time, in eight
steps at most, but sixteen with a step cache. Settings for which no time is left are named, and so are those that the
machine cannot have. Beside the table of those that run: combinations that are refused, by their messages.

Models on several devices are not measured: ranks on one CPU share its cores, so their times say nothing. Tests hold
their exactness (tests/worker/test_device_group.py).

    python -m benchmarks.settings --models shapes-flux shapes-sd
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from app.catalog import Catalog, Lora, Model, Parallelism, Quantization, StepCache, Weights
from app.jobs import Guidance, Job
from app.loading.checks import problems
from app.loading.errors import LoadError
from app.loading.pipeline import load
from app.loading.size import model_size
from app.settings import Settings
from app.worker.devices import memory
from app.worker.engine.pipeline_call import PipelineCall, run_calls
from app.worker.engine.pipelines import resolve_device
from app.worker.engine.shared_model import SharedModel
from app.worker.models.warmup import trial_files, trial_jobs
from app.worker.prompts.encoder_memo import EncoderMemo
from app.worker.protocol import JobControl
from app.worker.recorder import Recorder
from benchmarks import report

IMAGES = 3
MINUTES = 7.0  # after which no further setting is begun; compiling one takes up to two
Pixels = np.ndarray[Any, np.dtype[np.float32]]
#: Steps of an image at most; and those in which a step cache has something to skip.
STEPS_MAX, CACHED_STEPS = 8, 16


def cast(*components: str) -> dict[str, Any]:
    return {"quantization": Quantization(method="layerwise-fp8", components=components)}


def cache(method: Any, **options: Any) -> dict[str, Any]:
    return {"cache": StepCache(method=method, options=options)}


#: By model, settings; those that the machine cannot have are said in a note.
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "shapes-flux": {
        "attention = _native_math": {"attention": "_native_math"},
        "attention = flex": {"attention": "flex"},
        "quantization = layerwise-fp8, transformer": cast("transformer"),
        "quantization = layerwise-fp8, all": cast("transformer", "text_encoder", "text_encoder_2", "vae"),
        **{
            f"quantization = {method}, transformer": {
                "quantization": Quantization(method=method, components=("transformer",))
            }
            for method in ("torchao-int8", "torchao-fp8", "bitsandbytes-int8", "bitsandbytes-nf4")
        },
        "offload = model": {"offload": "model"},
        "offload = group": {"offload": "group"},
        "channels_last": {"channels_last": True},
        "vae_tiling": {"vae_tiling": True},
        "cache = first_block, threshold 0.05": cache("first_block", threshold=0.05),
        "cache = first_block, threshold 0.2": cache("first_block", threshold=0.2),
        "cache = taylorseer, interval 3": cache("taylorseer", cache_interval=3),
        "compile = blocks": {"compile": "blocks"},
        "compile = denoiser": {"compile": "denoiser"},
    },
    "shapes-sd": {
        "quantization = layerwise-fp8, unet": cast("unet"),
        "offload = model": {"offload": "model"},
        "offload = group": {"offload": "group"},
        "channels_last": {"channels_last": True},
        "vae_tiling": {"vae_tiling": True},
        "compile = denoiser": {"compile": "denoiser"},
    },
}
LORA = Lora(repository="a/b", weight_name="c.safetensors")
GGUF = {"denoiser": Weights(repository="a/b", weight_name="c.gguf")}
TENSOR = {"parallel": Parallelism(tensor=2), "request_loras": False}
UNSPLIT_LORA = TENSOR | {"lora": (LORA.model_copy(update={"fuse": False}),)}
#: By model, what is refused.
REFUSED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("shapes-flux", "cache = pyramid", {"cache": {"method": "pyramid"}}),
    ("shapes-flux", "cache = faster", {"cache": {"method": "faster"}}),
    ("shapes-flux", "cache = mag, steps are a choice", {"cache": {"method": "mag"}}),
    ("shapes-flux", "cache = first_block and compile", cache("first_block") | {"compile": "blocks"}),
    ("shapes-flux", "cache = first_block and offload = group", cache("first_block") | {"offload": "group"}),
    ("shapes-flux", "cache = first_block, unknown option", cache("first_block", limit=1)),
    ("shapes-sd", "cache = first_block, a UNet", cache("first_block")),
    ("shapes-flux", "layerwise-fp8 and compile", cast("transformer") | {"compile": "denoiser"}),
    ("shapes-sd", "attention = flex, a UNet", {"attention": "flex"}),
    ("pixart-sigma", "compile = blocks, PixArt", {"compile": "blocks"}),
    ("shapes-flux", "attention = _native_flash in float32", {"attention": "_native_flash"}),
    ("shapes-flux", "attention = flash", {"attention": "flash", "dtype": "bfloat16"}),
    ("shapes-flux", "attention = sage", {"attention": "sage", "dtype": "bfloat16"}),
    ("shapes-flux", "attention = xformers", {"attention": "xformers"}),
    ("shapes-flux", "attention = _native_efficient on a CPU", {"attention": "_native_efficient"}),
    ("chroma-hd", "attention = _native_flash, a masked text", {"attention": "_native_flash"}),
    (
        "shapes-flux", "bitsandbytes-nf4",
        {"quantization": Quantization(method="bitsandbytes-nf4", components=("transformer",))},
    ),
    (
        "shapes-flux", "bitsandbytes-nf4 and offload = group",
        {"quantization": Quantization(method="bitsandbytes-nf4", components=("transformer",)), "offload": "group"},
    ),
    ("shapes-flux", "parallel and compile", {"parallel": Parallelism(ulysses=2), "compile": "blocks"}),
    ("shapes-flux", "parallel and offload", {"parallel": Parallelism(ulysses=2), "offload": "model"}),
    ("shapes-flux", "parallel and cache", {"parallel": Parallelism(ulysses=2)} | cache("first_block")),
    ("shapes-flux", "parallel.tensor and quantization", {"parallel": Parallelism(tensor=2)} | cast("transformer")),
    (
        "qwen-image-lightning", "parallel.ring, a masked text",
        {"parallel": Parallelism(ring=2), "attention": "_native_cudnn"},
    ),
    ("shapes-flux", "parallel.ring, attention = native", {"parallel": Parallelism(ring=2)}),
    ("shapes-flux", "parallel.tensor and LoRAs of requests", {"parallel": Parallelism(tensor=2)}),
    ("shapes-sd", "parallel.ulysses, a UNet", {"parallel": Parallelism(ulysses=2)}),
    ("shapes-flux", "parallel.tensor and a LoRA that is not fused", UNSPLIT_LORA),
    ("shapes-flux", "parallel.tensor and a GGUF denoiser", TENSOR | GGUF),
    ("shapes-flux", "a GGUF denoiser and a fused LoRA", GGUF | {"lora": (LORA,)}),
    (
        "shapes-flux", "torchao-int8 and a fused LoRA",
        {"quantization": Quantization(method="torchao-int8", components=("transformer",)), "lora": (LORA,)},
    ),
)  # fmt: skip


class Subject:
    """A loaded entry that makes images, one at a time. Raises LoadError.

    device_bytes: of a GPU's memory, most that its weights take at once, as the planner computes it.
    """

    def __init__(self, entry: Model, device: torch.device) -> None:
        self.pipe, self._entry, self._device = load(entry, device), entry, device
        self._model = SharedModel(entry, self.pipe)
        self._files, self._recorder = trial_files(entry), Recorder()
        (self._trial,) = trial_jobs(entry, 1)
        size = model_size(entry)
        assert size is not None
        self.device_bytes = size.device_bytes

    def image(self, seed: int, steps: int, guidance: Guidance | None) -> tuple[Pixels, float]:
        """Returns pixels (H, W, 3) in [0, 1] and the seconds that they took."""
        request = replace(self._trial.request, seed=seed, num_inference_steps=steps, nag=guidance)
        call = PipelineCall(
            seed, self._model, Job("a", request), 0, self._files, JobControl(), self._device, EncoderMemo(0), None,
            self._recorder,
        )  # fmt: skip
        begun_s = perf_counter()
        run_calls([call])
        return call.made.pixels, perf_counter() - begun_s

    def close(self) -> None:
        self._model.close()
        del self._model, self.pipe
        gc.collect()
        torch.compiler.reset()


def compare(plain: Subject, changed: Subject, steps: int, guidance: Guidance | None, images: int) -> dict[str, Any]:
    """Makes the same images by both in turn, after one that does not count in the time."""
    pairs = [[subject.image(seed, steps, guidance) for subject in (plain, changed)] for seed in range(images + 1)]
    difference = [np.abs(after[0] - before[0]) * 255 for before, after in pairs]
    seconds = [min(times) for times in zip(*((before[1], after[1]) for before, after in pairs[1:]), strict=True)]
    return {
        "steps": steps,
        "largest": float(max(values.max() for values in difference)),
        "mean": float(np.mean([values.mean() for values in difference])),
        "time_ratio": seconds[1] / seconds[0],
        "weights_ratio": memory.held_bytes(changed.pipe) / memory.held_bytes(plain.pipe),
        "device_ratio": changed.device_bytes / plain.device_bytes,
    }


def chosen(model: str, words: Sequence[str], *, is_compiled: bool) -> dict[str, dict[str, Any]]:
    """Returns the settings of a model that compile, or those that do not, whose name holds one of the words, if any."""
    return {
        label: changes
        for label, changes in SETTINGS[model].items()
        if ("compile" in changes) == is_compiled and (not words or any(word in label for word in words))
    }


def rows_of(
    entry: Model, device: torch.device, settings: Mapping[str, dict[str, Any]], images: int, until_s: float
) -> list[dict[str, Any]]:
    """Measures settings of an entry against the plain one, guided and not, until a time of `monotonic`."""
    plain = Subject(entry, device)
    rows: list[dict[str, Any]] = []
    assert entry.nag is not None
    for label, changes in settings.items():
        row: dict[str, Any] = {"model": entry.id, "setting": label}
        if monotonic() > until_s:
            rows.append(row | {"refused": "no time left (--minutes)"})
            continue
        try:
            changed = Subject(entry.model_copy(update=changes), device)
        except LoadError as exc:
            rows.append(row | {"refused": exc.why})
            continue
        steps = CACHED_STEPS if "cache" in changes else min(entry.num_inference_steps.default, STEPS_MAX)
        for is_guided in (False, True):
            guidance = Guidance(**entry.nag.model_dump(), negative_prompt="blurry") if is_guided else None
            rows.append(row | {"nag": is_guided} | compare(plain, changed, steps, guidance, images))
            print(rows[-1], flush=True)
        changed.close()
    plain.close()
    return rows


def refusals(known: dict[str, Model], device: torch.device) -> list[dict[str, str]]:
    """What keeps each of the refused combinations from being an entry, from passing the check, or from loading."""
    rows = []
    for name, label, changes in REFUSED:
        try:
            entry = Model.model_validate({**dict(known[name]), **changes})
            found = problems(entry)
            if found:
                where, why = "models check", "; ".join(found)
            else:
                load(entry, device)
                where, why = "", "is not refused"
        except ValidationError as exc:
            where, why = "catalog", exc.errors()[0]["msg"].removeprefix("Value error, ")
        except LoadError as exc:
            where, why = "load", exc.why
        rows.append({"model": name, "combination": label, "where": where, "why": why})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--only", nargs="*", default=(), help="settings whose name holds one of these words")
    parser.add_argument("--images", type=int, default=IMAGES, help=f"of each setting; default {IMAGES}")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"for the settings; default {MINUTES:g}")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    known, device = Catalog.known(Settings()), resolve_device(arguments.device)
    refused = refusals(known, device)
    until_s = monotonic() + 60 * arguments.minutes
    rows = [
        row
        for is_compiled in (False, True)  # what takes longest comes last
        for name in arguments.models
        if (settings := chosen(name, arguments.only, is_compiled=is_compiled))
        for row in rows_of(known[name], device, settings, arguments.images, until_s)
    ]
    columns = ("model", "setting", "NAG", "steps", "largest difference", "mean", "time", "weights", "on a GPU")
    cells = [
        (
            row["model"], row["setting"], "on" if row["nag"] else "off", str(row["steps"]), f"{row['largest']:.2f}",
            f"{row['mean']:.3f}", f"{row['time_ratio']:.2f}", f"{row['weights_ratio']:.2f}",
            f"{row['device_ratio']:.2f}",
        )
        for row in rows
        if "refused" not in row
    ]  # fmt: skip
    missing = [f"{row['model']}, {row['setting']}: {row['refused']}" for row in rows if "refused" in row]
    table = report.markdown(
        ("model", "combination", "refused by", "message"),
        [(row["model"], row["combination"], row["where"], row["why"].replace("|", "\\|")) for row in refused],
    )
    report.write(
        "settings",
        "Speed settings against the plain model: differences of 255, ratios of time and memory",
        columns,
        cells,
        {"settings": rows, "refused": refused},
        report.machine(device.type),
        notes=(
            f"Time: of {arguments.images} images by each in turn, the fastest. Other work on the machine changes the "
            "times, and nothing else. Weights: parameters and buffers. On a GPU: the most of them that it has at once, "
            "as models check computes it.",
            *(f"Not measured: {line}" for line in missing),
            "Refused combinations:",
            table,
        ),
        folder=arguments.out,
    )


if __name__ == "__main__":
    main()
