"""What a guided denoiser step costs against no guidance, CFG and the authors' layout, on the same work in one run.

python -m benchmarks.nag_cost --family flux sd3 sdxl sana wan qwen-image
python -m benchmarks.nag_cost --device cuda --full --family flux sd3 wan wan-14b

Before the times it prints which kernels the attention calls of a guided step run. Without a CUDA device the second
command runs few blocks on a small image, as a trial: it says which kernels merge attention on CUDA, and stores nothing.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_dispatch import attention_backend
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm

import nag
from benchmarks import report
from benchmarks.denoisers import MAKERS, SMALL, Denoiser, Draw
from nag.attention import lse_kernel
from nag.families import family_of

COLUMNS = ("step", "median s", "× no guidance: median", "min–max", "peak MB")
#: Timesteps of four even steps; with end = .25 the first two are guided.
TIMESTEPS = (1000.0, 750.0, 500.0, 250.0)
END = 0.25

Way = Callable[[float], Tensor]


def ways_of(work: Denoiser, *, options: bool = False) -> dict[str, tuple[Way, dict[str, Any] | None]]:
    """Returns each way of taking a step at a timestep, and the arguments of the `guide` around it (None: no guidance).

    options: guidance in some blocks and by other methods, too.
    """
    family, given = family_of(work.pipe), work.negative

    def plain(timestep: float) -> Tensor:
        return work.step(0, timestep)

    def cfg(timestep: float) -> Tensor:
        return torch.lerp(work.step(1, timestep), work.step(0, timestep), 3.0)

    ways: dict[str, tuple[Way, dict[str, Any] | None]] = {"no guidance": (plain, None), "CFG": (cfg, None)}
    if family.reference is not None:
        ways["NAG, the authors' layout"] = (plain, given | {"reference": True})
    if family.attention == "joint":
        ways["NAG, packed, two attention calls"] = (plain, given | {"backend": "native"})
    else:
        ways["NAG, the authors' layout (negative projected every step)"] = (plain, given | {"project": True})
    ways["NAG, ours"] = (plain, given)
    if options:
        half = max(1, len(family.attentions(work.module)) // 2)
        ways[f"NAG, the first {half} attention modules"] = (plain, given | {"blocks": range(half)})
        ways["orthogonal"] = (plain, given | {"method": "orthogonal"})
        ways["VSF"] = (plain, given | {"method": "vsf"})
    return ways


class GuidedSteps:
    """Takes steps of one way, inside its own `guide` and with what that way asks of the denoiser."""

    def __init__(self, work: Denoiser, way: Way, guide: dict[str, Any] | None, end: float = 1.0) -> None:
        self.work, self.way, self.guide, self.end = work, way, dict(guide) if guide is not None else None, end

    def __enter__(self) -> Way:
        self.context = ExitStack()
        if self.guide is not None:
            options = dict(self.guide)
            backend, project = options.pop("backend", None), options.pop("project", False)
            if backend:
                self.context.enter_context(attention_backend(backend))
            self.context.enter_context(nag.guide(self.work.pipe, **options, end=self.end))
            if project:  # forgets the keys that were kept
                way, parameter = self.way, next(self.work.module.parameters())
                self.way = lambda timestep: (parameter.add_(0), way(timestep))[1]
        return self.way

    def __exit__(self, *raised: Any) -> None:
        self.context.close()


class PeakMemory:
    """Bytes allocated above those at entry: by the GPU's allocator, or by looking at the process often."""

    def __init__(self, device: str) -> None:
        self.on_gpu = device.startswith("cuda")
        self.peak_bytes = 0

    def __enter__(self) -> PeakMemory:
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
            return self
        self.before, self.stop = _resident_bytes(), threading.Event()
        self.watch = threading.Thread(target=self._look)
        self.watch.start()
        return self

    def _look(self) -> None:
        while not self.stop.wait(0.005):
            self.peak_bytes = max(self.peak_bytes, _resident_bytes() - self.before)

    def __exit__(self, *raised: Any) -> None:
        if self.on_gpu:
            self.peak_bytes = torch.cuda.max_memory_allocated() - self.before
            return
        self.stop.set()
        self.watch.join()


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def measure(work: Denoiser, rounds: int, device: str, *, options: bool = False) -> dict[str, dict[str, list[float]]]:
    """Returns the seconds per step and the peak bytes of each way. The ways take turns in each round, after one that
    does not count.
    """
    ways = {name: (way, guide, 1.0) for name, (way, guide) in ways_of(work, options=options).items()}
    ways["NAG, ours, past its end"] = (*ways["NAG, ours"][:2], END)
    results: dict[str, dict[str, list[float]]] = {name: {"seconds": [], "bytes": []} for name in ways}
    with tqdm(total=(rounds + 1) * len(ways), unit="step") as bar:
        for round_ in range(rounds + 1):
            for name, (way, guide, end) in ways.items():
                with GuidedSteps(work, way, guide, end) as step:
                    projects = guide is None or "project" in guide
                    if not projects and end == 1.0 and family_of(work.pipe).caches_text_kv:
                        step(TIMESTEPS[0])  # the one step a prompt that projects the negative's keys
                    with PeakMemory(device) as memory:
                        begun = time.perf_counter()
                        step(TIMESTEPS[0] if end == 1.0 else TIMESTEPS[-1])
                        if device.startswith("cuda"):
                            torch.cuda.synchronize()
                        seconds = time.perf_counter() - begun
                if round_:
                    results[name]["seconds"].append(seconds)
                    results[name]["bytes"].append(memory.peak_bytes)
                bar.set_postfix_str(name)
                bar.update()
    return results


class AttentionLog(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the attention kernels that run inside of it, by name and shapes of query and key."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[tuple[str, tuple[int, ...], tuple[int, ...]]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::")
        if "attention" in name:
            query, key = args[:2]
            self.calls[name, tuple(query.shape), tuple(key.shape)] += 1
        return func(*args, **(kwargs or {}))


def kernels(work: Denoiser) -> str:
    """Returns a table of the attention kernels of a guided step, and of those that merge attention on CUDA."""
    with GuidedSteps(work, *ways_of(work)["NAG, ours"]) as step, AttentionLog() as log:
        step(TIMESTEPS[0])
    is_joint = family_of(work.pipe).attention == "joint"
    rows = [
        [name, str(query), str(key), str(count), _cuda_kernel(query[-1]) if is_joint else "no merge in cross attention"]
        for (name, query, key), count in log.calls.items()
    ]
    columns = ["kernel", "query", "key", "calls", "merges on CUDA in bfloat16"]
    return report.markdown(columns, rows)


def _cuda_kernel(channels: int) -> str:
    kernel = lse_kernel("cuda", torch.bfloat16, channels)
    return "none: two attention calls" if kernel is None else kernel.__name__.strip("_")


def float32_difference(device: str) -> float:
    """Relative difference of the merged form to two plain attention calls, one Flux step in float32."""
    work = MAKERS["flux"](Draw(device, torch.float32), False)
    ways = ways_of(work)
    outs = []
    for name in ("NAG, ours", "NAG, packed, two attention calls"):
        with GuidedSteps(work, *ways[name]) as step:
            outs.append(step(TIMESTEPS[0]))
    return float((outs[0] - outs[1]).norm() / outs[1].norm())


def table(results: dict[str, dict[str, list[float]]]) -> list[list[str]]:
    plain = results["no guidance"]["seconds"]

    def ratios(name: str) -> list[float]:
        return [mine / other for mine, other in zip(results[name]["seconds"], plain, strict=True)]

    rows = [
        [
            name,
            f"{statistics.median(result['seconds']):.3f}",
            f"{statistics.median(ratios(name)):.2f}",
            f"{min(ratios(name)):.2f}–{max(ratios(name)):.2f}",
            f"{statistics.median(result['bytes']) / 1e6:.0f}",
        ]
        for name, result in results.items()
    ]
    guided, past = (statistics.median(ratios(name)) for name in ("NAG, ours", "NAG, ours, past its end"))
    rows.append(["NAG, ours, mean of four steps with end = .25", "", f"{(guided + past) / 2:.2f}", "", ""])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=sorted(MAKERS), nargs="+", default=["flux"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--full", action="store_true", help="all blocks, for a GPU of 80 GB")
    parser.add_argument("--options", action="store_true", help="some blocks alone and the other methods, too")
    parser.add_argument("--small", action="store_true", help="a small image, to try the script")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="folder of the results")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--exact", action="store_true", help="the difference to two plain attention calls in float32")
    arguments = parser.parse_args()
    device, dtype, rounds = arguments.device, torch.bfloat16, arguments.rounds
    is_trial = device.startswith("cuda") and not torch.cuda.is_available()
    if is_trial:
        print("No CUDA device: a trial of few blocks on a small image on the CPU, in float32.")
        device, dtype, rounds = "cpu", torch.float32, 1
    with torch.no_grad():
        if arguments.exact:
            print(f"merged against two attention calls, float32, relative: {float32_difference(device):.1e}")
            return
        for name in arguments.family:
            torch.manual_seed(0)
            work = MAKERS[name](
                Draw(device, dtype, SMALL if is_trial or arguments.small else 1), arguments.full and not is_trial
            )
            print(f"{work.what}\n\n{kernels(work)}\n")
            results = measure(work, rounds, device, options=arguments.options)
            if is_trial:
                print(report.markdown(COLUMNS, table(results)))
                continue
            kind = f"{device.split(':')[0]}{'-full' if arguments.full else ''}{'-options' if arguments.options else ''}"
            report.write(
                f"nag_cost-{name}-{kind}",
                f"Cost of a step: {work.what}, bfloat16, {rounds} rounds in turn",
                COLUMNS,
                table(results),
                results,
                report.machine(device),
                folder=arguments.out,
            )
            del work


if __name__ == "__main__":
    main()
