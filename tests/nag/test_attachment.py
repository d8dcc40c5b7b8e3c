"""Guidance belongs to the calling context and is stated row by row; a call without it is plain."""

from __future__ import annotations

import importlib
import pkgutil
import re
from typing import Any
from unittest.mock import patch

import greenlet
import pytest
import torch

import nag
from nag.families import _FAMILIES, family_of
from tests.nag.support import Subject, copy_of, difference, keep_one_block_of_each_kind, run_in_threads
from tests.tiers import slow_but

NEGATIVE = "a blue square"
#: One model for each way in which the negative prompt reaches the attention.
LAYOUTS = ("flux", "sd3", "sd", "wan", "z-image", "hunyuan-video")


@pytest.fixture(params=slow_but(["flux", "sd", "z-image"], LAYOUTS), scope="module")
def layout(request: pytest.FixtureRequest) -> Subject:
    """A small pipeline with one block of each kind: what contexts share is the denoiser, not its blocks."""
    subject = Subject.named(request.param, steps=2)
    keep_one_block_of_each_kind(subject.denoiser)
    return subject


def test_a_thread_that_does_not_guide_is_plain_beside_one_that_does(layout: Subject) -> None:
    plain_subject, guided_subject = copy_of(layout), copy_of(layout)
    plain = plain_subject.generate()
    with nag.guide(guided_subject.pipe, NEGATIVE, scale=6.0):
        guided = guided_subject.generate()
    assert difference(guided, plain) > 0.01
    results: dict[str, list[torch.Tensor]] = {"plain": [], "guided": []}

    def generate_plain() -> None:
        results["plain"] += [plain_subject.generate() for _ in range(5)]

    def generate_guided() -> None:
        for _ in range(5):
            with nag.guide(guided_subject.pipe, NEGATIVE, scale=6.0):
                results["guided"].append(guided_subject.generate())

    run_in_threads(generate_plain, generate_guided)
    assert all(torch.equal(image, plain) for image in results["plain"])
    assert all(torch.equal(image, guided) for image in results["guided"])


def test_calls_of_two_threads_on_one_denoiser_do_not_meet(layout: Subject) -> None:
    (call, *_), _ = layout.calls(num_inference_steps=layout.case.fewest_steps)
    guidance = row_guidance(layout, NEGATIVE, 6.0, 0.5)
    results: dict[str, list[torch.Tensor]] = {"plain": [], "guided": []}

    @torch.no_grad()
    def run_plain(count: int) -> None:
        results["plain"] += [stacked(layout.denoiser(**call)) for _ in range(count)]

    @torch.no_grad()
    def run_guided(count: int) -> None:
        for _ in range(count):
            with nag.attach(layout.denoiser) as attached, attached.rows([guidance]):
                results["guided"].append(stacked(layout.denoiser(**call)))

    run_plain(1)
    run_guided(1)
    count = 200 if layout.case.name == "flux" else 20
    run_in_threads(lambda: run_plain(count), lambda: run_guided(count))
    plain, guided = results["plain"][0], results["guided"][0]
    assert difference(guided, plain) > 1e-3
    assert all(torch.equal(output, plain) for output in results["plain"])
    assert all(torch.equal(output, guided) for output in results["guided"])


@torch.no_grad()  # whole: each pipeline call restores what was when it began, in whatever order they end
def test_guides_of_several_greenlets_share_a_denoiser(layout: Subject) -> None:
    settings = [(NEGATIVE, 6.0), ("a triangle", 3.0), ("", 9.0)]
    alone = []
    for negative, scale in settings:
        subject = copy_of(layout)
        with nag.guide(subject.pipe, negative, scale=scale):
            alone.append(subject.generate())
    plain = layout.generate()
    together = {}
    main = greenlet.getcurrent()

    def generate(place: Any, subject: Subject, negative: Any, scale: float) -> None:
        def pause(pipe: Any, step: Any, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
            main.switch()
            return kwargs

        with nag.guide(subject.pipe, negative, scale=scale):
            together[place] = subject.generate(callback_on_step_end=pause)

    greenlets = [
        greenlet.greenlet(lambda place=place, setting=setting: generate(place, copy_of(layout), *setting))
        for place, setting in enumerate(settings)
    ]
    while not all(each.dead for each in greenlets):
        for one in greenlets:
            if not one.dead:
                one.switch()
        assert torch.equal(layout.generate(), plain)
    assert all(torch.equal(together[place], image) for place, image in enumerate(alone))


@pytest.mark.parametrize("cfg", [False, True])
def test_a_pipelines_calls_can_be_made_elsewhere(layout: Subject, cfg: bool) -> None:
    """A pipeline's plan says what guides each row of its calls; whoever makes a call for it states these rows."""
    options: dict[str, Any] = {
        "num_inference_steps": max(2, layout.case.fewest_steps),
        "cfg": cfg and layout.case.cfg is not None,
    }
    denoiser, main = layout.denoiser, greenlet.getcurrent()
    with nag.guide(layout.pipe, NEGATIVE, scale=6.0, end=0.6):
        expected = layout.generate(**options)

    def generate() -> Any:
        with nag.guide(layout.pipe, NEGATIVE, scale=6.0, end=0.6):
            return layout.generate(**options)

    with nag.attach(denoiser) as attached:
        call_denoiser, call_from_pipeline = denoiser._call_impl, greenlet.greenlet(generate)

        def suspend(*args: Any, **kwargs: Any) -> Any:
            call = attached.bind(args, kwargs)
            return main.switch(call, attached.planned_rows(call))

        denoiser._compiled_call_impl = suspend
        planned, result = [], call_from_pipeline.switch()
        while not call_from_pipeline.dead:
            call, rows = result
            planned.append([row is not None for row in rows])
            with torch.no_grad(), attached.rows(rows):
                output = call_denoiser(**call)
            result = call_from_pipeline.switch(output)
        denoiser._compiled_call_impl = None
    assert torch.equal(result, expected)
    assert any(map(any, planned))
    assert len(planned[0]) == attached.family.row_count(call)


def test_rows_state_what_a_call_by_hand_is_guided_by(layout: Subject) -> None:
    """Each row of a call has guidance of its own or none, and comes out as a pipeline guided like that has it."""
    prompts = ["a red circle", "a green shape", layout.case.beside]
    steps = {"num_inference_steps": layout.case.fewest_steps}
    (call, *_), (plain, *_) = layout.calls(prompts, **steps)
    with nag.guide(layout.pipe, [NEGATIVE, "", "a triangle"], scale=[6.0, 1.0, 3.0], tau=2.0, alpha=[0.5, 0.5, 0.9]):
        expected = layout.calls(prompts, **steps)[1][0]
    rows = [row_guidance(layout, NEGATIVE, 6.0, 0.5), None, row_guidance(layout, "a triangle", 3.0, 0.9)]
    with nag.attach(layout.denoiser) as attached, torch.no_grad():
        assert difference(stacked(layout.denoiser(**call)), stacked([plain])) < 1e-6
        with attached.rows(rows):
            output = stacked(layout.denoiser(**call))
            assert difference(stacked(layout.denoiser(**call)), output) < 1e-6
        with attached.rows([None] * 3):
            assert difference(stacked(layout.denoiser(**call)), stacked([plain])) < 1e-6
    expected, plain = stacked([expected]), stacked([plain])
    assert difference(output, expected) < 1e-5
    assert difference(output[1], plain[1]) < 1e-6
    assert difference(output[0], plain[0]) > 1e-3


def test_another_number_of_rows_is_an_error(layout: Subject) -> None:
    (call, *_), _ = layout.calls(num_inference_steps=layout.case.fewest_steps)
    with (
        nag.attach(layout.denoiser) as attached,
        attached.rows([None, None]),
        pytest.raises(nag.InvalidParameter, match="2 entries for a denoiser call of 1 rows"),
    ):
        layout.denoiser(**call)


def test_a_guide_and_rows_share_a_denoiser(layout: Subject) -> None:
    """A guide that is entered and left while rows are stated elsewhere leaves the hooks of the others in place."""
    (call, *_), _ = layout.calls(num_inference_steps=layout.case.fewest_steps)
    with nag.attach(layout.denoiser) as attached, torch.no_grad():
        with attached.rows([row_guidance(layout, NEGATIVE, 6.0, 0.5)]):
            before = stacked(layout.denoiser(**call))
        other = copy_of(layout)
        with nag.guide(other.pipe, "a triangle", scale=3.0) as guidance:
            other.generate()
        assert guidance.guided_steps > 0
        with attached.rows([row_guidance(layout, NEGATIVE, 6.0, 0.5)]):
            assert torch.equal(stacked(layout.denoiser(**call)), before)
    assert not any(name.startswith("_nag") for name in vars(layout.denoiser))


def row_guidance(subject: Subject, text: str, scale: float, alpha: float) -> Any:
    family = family_of(subject.pipe)
    given = subject.encode(text)
    negative = nag.NegativeEmbeds(
        given["negative_prompt_embeds"],
        given.get("negative_pooled_prompt_embeds"),
        given.get(family.negative_mask_arg or ""),
        {argument: given[name] for name, argument in family.extra_negative_inputs.items() if name in given},
    )
    return nag.RowGuidance(negative, scale, 2.0, alpha)


def stacked(output: Any) -> torch.Tensor:
    """A denoiser's output as one tensor; some return a list with a tensor for each row."""
    first = output[0]
    return torch.stack(list(first)) if isinstance(first, list) else first


def test_a_family_of_ones_own_is_registered_by_name(flux: Subject) -> None:
    family = family_of(flux.pipe)

    class FluxSubclass(type(flux.denoiser)):  # type: ignore[misc]
        """A subclass that another package ships."""

    class StretchedFlux(type(family)):  # type: ignore[misc]
        name = "FluxSubclass Flux"
        denoiser_types = ("FluxSubclass",)

    flux.denoiser.__class__ = FluxSubclass
    assert family_of(flux.pipe) is family
    with patch.dict(_FAMILIES):
        nag.register_family(StretchedFlux())
        assert family_of(flux.pipe).name == "FluxSubclass Flux"
        with nag.guide(flux.pipe, NEGATIVE) as guidance:
            flux.generate()
        assert guidance.guided_steps > 0
        with pytest.raises(ValueError, match="registered already"):
            nag.register_family(StretchedFlux())
        _FAMILIES["another"] = StretchedFlux()
        with pytest.raises(
            nag.UnsupportedPipeline, match="fits several families: FluxSubclass Flux and FluxSubclass Flux"
        ):
            family_of(flux.pipe)


def test_the_life_of_a_guided_call_names_what_there_is() -> None:
    names = re.findall(r"`([A-Za-z_.]+)`", nag.attachment.__doc__)
    modules = [importlib.import_module(module.name) for module in pkgutil.walk_packages(nag.__path__, "nag.")]
    defined = {name: value for module in modules for name, value in vars(module).items()} | {"nag": nag}
    assert len(names) > 15
    for name in names:
        first, *rest = name.split(".")
        value = defined[first]
        for part in rest:
            value = getattr(value, part)
