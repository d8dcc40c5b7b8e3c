"""`torch.compile`, as users apply it: what a step does is decided outside, and the denoiser is one graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any
from unittest import mock

import pytest
import torch

import nag
from nag.families import family_of
from tests import tiny
from tests.nag.support import (
    Subject,
    compile_guided_parts,
    difference,
    keep_one_block_of_each_kind,
    run_in_threads,
)
from tests.tiny import FAMILY_CASES
from tests.tiny.unet import smallest_unet

NEGATIVE = "a blue square"
#: Compiled whole: joint and cross attention, masks, and kept text keys. Of the others the compiler gets the parts that
#: guidance changes, as a tracer takes many seconds for all that is diffusers' own.
WHOLE = ("flux", "wan", "sd", "qwen-image", "sana")
#: Of these the ones that are tested in a run that guidance leaves.
LEFT = WHOLE[:2]
#: The one that is tried of those that are more than one graph, unguided too.
IN_PARTS = "z-image"
#: A compiler traces nothing of these that it does not trace of another: the processors are those of Stable Diffusion,
#: CogVideoX, Flux.1, Cosmos 1, SANA and Wan, and no family here has hooks of its own.
TRACED_WITH_OTHERS = (
    *("sdxl", "kolors", "animatediff", "text-to-video", "pixart", "cogview3", "chroma"),
    *("cosmos-2", "cosmos-2.5", "sanavideo", "chrono-edit"),
)

pytestmark = [
    pytest.mark.slow,  # compiles
    pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`"),
]


def in_place(subject: Subject, whole: Any) -> None:
    subject.denoiser.compile(fullgraph=whole, backend="eager")


def wrapped(subject: Subject, whole: Any) -> None:
    subject.wrap(torch.compile(subject.denoiser, fullgraph=whole, backend="eager"))


def small(name: str) -> Subject:
    """A case with as few blocks as it can have: a compiler takes as long for each."""
    subject = Subject.named(name)
    if name == "sd":
        subject.pipe.unet = smallest_unet()
    keep_one_block_of_each_kind(subject.denoiser)
    return subject


def generate(subject: Subject, **options: Any) -> tuple[Any, Any]:
    with nag.guide(subject.pipe, NEGATIVE, scale=6.0, end=options.pop("end", 1.0)) as guidance:
        return subject.generate(**options), guidance


@pytest.mark.parametrize("name", [case.name for case in FAMILY_CASES if case.name not in (*TRACED_WITH_OTHERS, *LEFT)])
def test_a_guided_step_is_one_graph_if_the_table_says_so(name: str) -> None:
    subject = small(name)
    if family_of(subject.pipe).compiled == "in parts" and name != IN_PARTS:
        pytest.skip("these denoisers are compiled in parts, guided or not")
    steps = {"num_inference_steps": subject.case.fewest_steps}
    expected, _ = generate(subject, **steps)
    torch.compiler.reset()
    if name in WHOLE:
        in_place(subject, True)
    else:
        compile_guided_parts(subject.denoiser, fullgraph=name != IN_PARTS)
    assert difference(generate(subject, **steps)[0], expected) < 1e-5


@pytest.mark.parametrize(("name", "apply"), list(zip(LEFT, (wrapped, in_place), strict=True)))
def test_guided_and_plain_steps_of_a_compiled_denoiser_are_those_of_the_plain_one(name: str, apply: Any) -> None:
    subject = small(name)
    expected, _ = generate(subject, end=0.5)
    torch.compiler.reset()
    apply(subject, True)
    compiled, guidance = generate(subject, end=0.5)
    assert guidance.guided_steps > 0
    assert guidance.plain_steps > 0
    assert difference(compiled, expected) < 1e-5


def blocks_one_by_one(subject: Subject, whole: Any) -> None:
    for block in subject.denoiser.transformer_blocks:
        block.compile(fullgraph=whole, backend="eager")


@pytest.fixture
def small_flux() -> Subject:
    """Flux of one block, which a compiler needs a second for."""
    subject = Subject.named("flux")
    subject.pipe = tiny.flux(double_blocks=1, single_blocks=0)
    subject.pipe.set_progress_bar_config(disable=True)
    torch.compiler.reset()
    return subject


class CountingBackend:
    """Counts the graphs that are made, and the times that one of them runs."""

    def __init__(self) -> None:
        self.graphs = self.runs = 0

    def __call__(self, module: torch.nn.Module, inputs: Any) -> Any:
        self.graphs += 1

        def run(*args: Any) -> Any:
            self.runs += 1
            return module.forward(*args)

        return run


def graphs_of(subject: Subject, load: Any, part: Any = None) -> Any:
    """Runs a load, of each run the options of the pipeline and of the guide; None for no guide.

    Returns the number of graphs. Every denoiser call runs one, and gives what it does without a compiler.
    part: the module to compile, which runs once in a call; the denoiser if None.
    """
    calls, backend = [], CountingBackend()

    def run() -> Iterator[Any]:
        for options, guidance in load:
            with nullcontext() if guidance is None else nag.guide(subject.pipe, **guidance, scale=6.0):
                yield subject.generate(**options, num_inference_steps=subject.case.fewest_steps)

    handle = subject.denoiser.register_forward_pre_hook(lambda module, args: calls.append(1))
    expected = list(run())
    handle.remove()
    torch.compiler.reset()
    (part or subject.denoiser).compile(backend=backend)
    assert all(difference(image, image_expected) < 1e-5 for image, image_expected in zip(run(), expected, strict=True))
    assert backend.runs == len(calls)
    return backend.graphs


def prompts(count: int) -> Any:
    return ["a red circle"] * count


def test_a_mixed_load_makes_few_graphs_and_every_call_is_compiled(small_flux: Subject) -> None:
    """The graphs of a block: a tracer takes as long again for the rest of the denoiser, which is diffusers' own."""
    guides = [None, {"negative_prompt": NEGATIVE}]
    # Under CFG one row: Flux takes one negative prompt of CFG for all rows, which makes one more graph of several.
    load = [({"prompt": prompts(n)}, guide) for guide in guides for n in (1, 2, 3)]
    load += [({"prompt": prompts(1), "cfg": True}, guide) for guide in guides]
    # Plain and guided, one row and several.
    assert graphs_of(small_flux, load, small_flux.denoiser.transformer_blocks[0]) <= 4


def test_texts_of_any_length_share_graphs(small_flux: Subject) -> None:
    embeds = small_flux.encode(NEGATIVE)["negative_prompt_embeds"]
    load = [
        ({"max_sequence_length": positive}, {"negative_prompt_embeds": embeds[:, :negative]})
        for positive, negative in [(15, 15), (12, 9), (9, 12), (14, 2), (2, 14)]
    ]
    # One for the first lengths, one for all others.
    assert graphs_of(small_flux, load) <= 2


def test_rows_under_cfg_share_graphs() -> None:
    load = [({"prompt": prompts(n), "cfg": True}, {"negative_prompt": NEGATIVE}) for n in (2, 3, 4)]
    assert graphs_of(small("sana"), load) <= 2


@pytest.mark.parametrize("apply", [in_place, blocks_one_by_one])
def test_threads_take_turns_on_a_compiled_denoiser(small_flux: Subject, apply: Any) -> None:
    (call, *_), _ = small_flux.calls(num_inference_steps=1)
    apply(small_flux, True)
    denoiser = small_flux.denoiser
    guidance = nag.RowGuidance(
        nag.NegativeEmbeds(small_flux.encode(NEGATIVE)["negative_prompt_embeds"]), scale=6.0, tau=2.0, alpha=0.5
    )
    outputs: dict[str, list[Any]] = {"plain": [], "guided": []}
    with nag.attach(denoiser) as attached:

        @torch.no_grad()
        def run(name: str, rows: Any, count: int) -> None:
            with attached.rows(rows):
                outputs[name] += [denoiser(**call)[0] for _ in range(count)]

        run("plain", [None], 1)
        run("guided", [guidance], 1)
        run_in_threads(lambda: run("plain", [None], 20), lambda: run("guided", [guidance], 20))
    assert difference(outputs["guided"][0], outputs["plain"][0]) > 1e-3
    for results in outputs.values():
        assert all(torch.equal(output, results[0]) for output in results)


@pytest.mark.parametrize("apply", [in_place, wrapped, blocks_one_by_one])
def test_a_call_that_is_left_by_an_error_lets_other_threads_call(small_flux: Subject, apply: Any) -> None:
    (call, *_), (plain, *_) = small_flux.calls(num_inference_steps=1)
    apply(small_flux, False)
    denoiser = small_flux.denoiser
    for error in (RuntimeError, KeyboardInterrupt):
        with nag.attach(denoiser) as attached, torch.no_grad():
            with pytest.raises(error), attached.apply_plan(mock.Mock(side_effect=error)):
                denoiser(**call)
            outputs: list[Any] = []
            run_in_threads(torch.no_grad()(lambda outputs=outputs: outputs.append(denoiser(**call)[0])))
        assert difference(outputs[0], plain) < 1e-6
