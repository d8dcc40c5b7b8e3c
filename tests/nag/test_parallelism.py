"""Denoisers that `enable_parallelism` has split over ranks are guided as on one device, or refused by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.hooks.context_parallel import apply_context_parallel

import nag
from tests import tiny
from tests.nag.ranks import CallScenario, CallSubject, Scenario, differences
from tests.nag.support import Subject
from tests.tiny import helios

pytestmark = pytest.mark.slow  # starts a process for each rank

#: Of one length: the ring of diffusers, which computes the plain steps, takes no mask.
PROMPTS = ["a red circle", "a green shape", "a blue circle"]
#: Each row has its own numbers and method; all end within the run, one of them earlier.
NUMBERS: dict[str, list[Any]] = {
    "scale": [9.0, 4.0, 3.0],
    "tau": [1.5, 2.0, 1.5],
    "alpha": [0.7, 0.9, 0.5],
    "method": ["nag", "orthogonal", "vsf"],
    "end": [0.6, 0.6, 0.3],
}
NEGATIVES = ["a blue square", "a triangle", "a blue square"]
ULYSSES, RING, TENSOR = {"ulysses_degree": 2}, {"ring_degree": 2}, {"tp_degree": 2}
UNEVEN_ULYSSES, UNEVEN_RING = ULYSSES | {"ulysses_anything": True}, RING | {"ring_anything": True}
EVEN = {"max_sequence_length": 16}

#: By the names of the tests: the case, how it is split, and further arguments of the pipeline.
SPLITS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "Flux.1, Ulysses": ("flux", ULYSSES, EVEN),
    "Flux.1, uneven Ulysses": ("flux", UNEVEN_ULYSSES, {}),
    "Flux.1, ring": ("flux", RING, EVEN),
    "Flux.1, uneven ring": ("flux", UNEVEN_RING, {}),
    "Flux.1, tensor": ("flux", TENSOR, {}),
    "Flux.2, Ulysses": ("flux2", ULYSSES, EVEN),
    "Flux.2, ring": ("flux2", RING, EVEN),
    "Flux.2, tensor": ("flux2", TENSOR, {}),
    "Qwen-Image, uneven Ulysses": ("qwen-image", UNEVEN_ULYSSES, {}),
    "Qwen-Image, uneven ring": ("qwen-image", UNEVEN_RING, {}),
    "Qwen-Image, tensor": ("qwen-image", TENSOR, {}),
    "Qwen-Image 2.1, tensor": ("qwen21", TENSOR, {"cfg": False}),
    "Wan, Ulysses": ("wan", ULYSSES, {}),
    "Wan, ring": ("wan", RING, {}),
    "Wan with an image, Ulysses": ("wan-i2v", ULYSSES, {}),
    "ChronoEdit, Ulysses": ("chrono-edit", ULYSSES, {}),
    "Helios, Ulysses": ("helios", ULYSSES, {}),
    "Helios, ring": ("helios", RING, {}),
}
#: Of a model without a classic pipeline, by the names of the tests: how a call is split, and the tokens of its prompts.
CALL_SPLITS = {
    "MiniMax-H3, Ulysses": (ULYSSES, 9, 7),
    "MiniMax-H3, ring": (RING, 9, 7),
    # The first rank has text alone. Uneven parts of a whole sequence are not gathered by gloo, guided or not.
    "MiniMax-H3 with a long text, Ulysses": (UNEVEN_ULYSSES, 13, 11),
    "MiniMax-H3 with a long text, ring": (UNEVEN_RING, 13, 11),
}
#: As `SPLITS`, over four ranks. The small models have two heads, which no four ranks can share.
FOUR_WAYS = {
    "Flux.1, Ulysses in a ring": ("flux", ULYSSES | RING, EVEN),
    "Flux.2, Ulysses in a ring": ("flux2", ULYSSES | RING, EVEN),
    "Qwen-Image, uneven ring": ("qwen-image", {"ring_degree": 4, "ring_anything": True}, {}),
    "Wan, Ulysses in a ring": ("wan", ULYSSES | RING, {}),
}
#: Of models that are refused, as `SPLITS`, and the error of a run without guidance; None if its output differs.
WRONG_SPLITS = {
    "LTX-Video, Ulysses": ("ltx", ULYSSES, EVEN, "doesn't match the broadcast shape"),
    "LTX-Video, ring": ("ltx", RING, EVEN, None),
    "LTX-Video, uneven ring": ("ltx", UNEVEN_RING, {}, "does not support non-None attn_mask"),
    "LTX-Video with an image, ring": ("ltx-i2v", RING, EVEN, "must match the size of tensor"),
    "LTX-2, Ulysses": ("ltx2", ULYSSES, EVEN, "doesn't match the broadcast shape"),
    "LTX-2, ring": ("ltx2", RING, EVEN, "must match the size of tensor"),
    "Helios that amplifies its history, Ulysses": (helios.AMPLIFYING.name, ULYSSES, {}, None),
}
#: Runs in which each rank takes its own sums for the whole ones: by these the tests are known to fail.
BROKEN = {
    "Flux.1, Ulysses": ("nag.token_split.sum_over",),
    "Flux.1, tensor": ("nag.attachment.sum_over",),
}


@functools.cache
def subject(name: str) -> Subject:
    return Subject(helios.AMPLIFYING, steps=3) if name == helios.AMPLIFYING.name else Subject.named(name, steps=3)


def scenario(name: str, parallelism: Any, options: dict[str, Any], guidance: Any = None, without: Any = ()) -> Scenario:
    of_case = subject(name)
    options = {"cfg": of_case.case.cfg is not None} | dict(options)
    guidance = guidance or {"negative_prompt": NEGATIVES}
    return Scenario(of_case, PROMPTS, NUMBERS | guidance, parallelism, options, without)


def call_scenario(parallelism: Any, positive: int, negative: int) -> Scenario:
    case = tiny.find_call("minimax-h3")
    torch.manual_seed(0)
    prompts = case.text(case.rows, positive), case.text(case.rows, negative)
    numbers = {name: values[: case.rows] for name, values in NUMBERS.items() if name != "end"}
    return CallScenario(CallSubject(case), prompts, numbers, parallelism)


def plain_scenario(name: str, parallelism: Any, options: dict[str, Any]) -> Scenario:
    of_case = subject(name)
    prompts = PROMPTS[0] if of_case.case.takes == "one prompt" else PROMPTS
    return Scenario(of_case, prompts, None, parallelism, options)


@pytest.fixture(scope="module")
def by_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    scenarios = {name: scenario(*split) for name, split in SPLITS.items()}
    scenarios |= {name: call_scenario(*split) for name, split in CALL_SPLITS.items()}
    scenarios |= {f"{name}, broken": scenario(*SPLITS[name], without=names) for name, names in BROKEN.items()}
    scenarios |= {name: plain_scenario(*split[:-1]) for name, split in WRONG_SPLITS.items()}
    scenarios["unequal parts"] = scenario("flux", ULYSSES, EVEN, subject("flux").encode("a blue square"))
    scenarios["unequal parts of one sequence"] = call_scenario(ULYSSES, 12, 11)
    return differences(tmp_path_factory.mktemp("ranks"), 2, scenarios)


@pytest.mark.parametrize("name", [*SPLITS, *CALL_SPLITS])
def test_two_ranks_guide_as_one_process(by_two_ranks: Any, name: str) -> None:
    for difference in by_two_ranks[name]:
        if tiny.MISSING and "`_tp_plan` must be set" in str(difference):
            pytest.skip("this diffusers does not split this model's weights")
        assert isinstance(difference, float), difference
        assert difference < 1e-5


@pytest.mark.parametrize("name", BROKEN)
def test_without_the_norms_of_other_ranks_the_output_differs(by_two_ranks: Any, name: str) -> None:
    for difference in by_two_ranks[f"{name}, broken"]:
        assert isinstance(difference, float), difference
        assert difference > 1e-3


@pytest.mark.parametrize("name", WRONG_SPLITS)
def test_what_is_refused_for_it_diffusers_splits_wrongly_without_guidance(by_two_ranks: Any, name: str) -> None:
    error = WRONG_SPLITS[name][-1]
    for difference in by_two_ranks[name]:
        if error is not None:
            assert error in str(difference)
        else:
            assert isinstance(difference, float), difference
            assert difference > 1e-3


def test_texts_that_ranks_cannot_share_evenly_are_refused(by_two_ranks: Any) -> None:
    for error in by_two_ranks["unequal parts"]:
        assert "negative_prompt: has 15 tokens beside the prompt's 16, together no multiple of" in error
    for error in by_two_ranks["unequal parts of one sequence"]:
        assert "has 11 tokens beside the prompt's 12 and 18 of the image, together no multiple of the 2 ranks" in error


@pytest.fixture(scope="module")
def by_four_ranks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    scenarios = {name: scenario(*split) for name, split in FOUR_WAYS.items()}
    return differences(tmp_path_factory.mktemp("ranks"), 4, scenarios)


@pytest.mark.parametrize("name", FOUR_WAYS)
def test_four_ranks_guide_as_one_process(by_four_ranks: Any, name: str) -> None:
    for difference in by_four_ranks[name]:
        assert isinstance(difference, float), difference
        assert difference < 1e-5


def split_by(denoiser: Any, plan: Any) -> None:
    """Sets what `enable_parallelism` would, but for the processes."""
    config = SimpleNamespace(
        ulysses_degree=2,
        ring_degree=1,
        ulysses_anything=False,
        ring_anything=False,
        _mesh=None,
        _ulysses_mesh=SimpleNamespace(get_group=lambda: "ranks"),
    )
    denoiser._parallel_config = SimpleNamespace(context_parallel_config=config, tensor_parallel_config=None)
    apply_context_parallel(denoiser, config, plan)


def amplify_history(transformer: Any) -> None:
    transformer.register_to_config(is_amplify_history=True)


@pytest.mark.parametrize(
    ("name", "change", "options", "reason"),
    [
        ("sd3", None, {}, r"Stable Diffusion 3 .*of SD3Transformer2DModel \(Ulysses attention\)$"),
        ("sana", None, {}, r"SANA .*of SanaTransformer2DModel \(Ulysses attention\)$"),
        ("z-image", None, {}, r"Z-Image .*of ZImageTransformer2DModel \(Ulysses attention\)$"),
        ("wan-vace", None, {}, r"Wan .*of WanVACETransformer3DModel .* only of WanTransformer3DModel, Chrono"),
        ("ltx", None, {}, r"LTX-Video .*of LTXVideoTransformer3DModel .*: diffusers applies the mask of the text"),
        ("ltx2", None, {}, "LTX-2 .*: diffusers applies the mask of the text.* positions in attention to sound"),
        ("helios", amplify_history, {}, "Helios .*: with `is_amplify_history`"),
        ("flux", None, {}, "by a `cp_plan` of the caller"),
        ("flux", None, {"reference": True}, r"Flux.1 .*of FluxTransformer2DModel \(Ulysses attention\)$"),
        ("flux", lambda transformer: transformer.compile(backend="eager"), {}, "if it is compiled"),
    ],
)
def test_what_cannot_be_guided_exactly_is_refused_by_name(
    name: str, change: Callable[..., Any], options: dict[str, Any], reason: str
) -> None:
    pipe = Subject.named(name).pipe
    if change is not None:
        change(pipe.transformer)
    split_by(pipe.transformer, {} if change is None else pipe.transformer._cp_plan)
    with pytest.raises(nag.UnsupportedPipeline, match=reason), nag.guide(pipe, "a blue square", **options):
        pass
