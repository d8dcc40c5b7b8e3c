"""Denoiser calls of several requests share a forward: each request's part is what it gets alone."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FirstBlockCacheConfig

import nag
from nag.families import family_of
from nag.families.arguments import PADDED, UNDECLARED
from tests.nag.support import Subject, difference
from tests.nag.test_attachment import row_guidance

#: Of float32: the norm of the difference over that of the output. Kernels sum in another order for other batch sizes.
TOLERANCE = 1e-4
#: What keeps the calls of some pipelines apart: text of unequal length that nothing masks, caches of text keys, and a
#: sequence without rows.
APART = {
    "anyflow-far": ("chunk_partition", "kv_cache", "kv_cache_flag"),
    "cosmos-3": ("input_ids",),
    "fibo": ("encoder_hidden_states", "joint_attention_kwargs"),
    "joyimage-edit": ("encoder_hidden_states",),
    "joyimage-edit-picture": ("encoder_hidden_states",),
    "flux2-klein-kv": ("kv_cache", "kv_cache_mode"),
    "qwen21": ("kv_cache", "kv_cache_mode"),
    "qwen21-picture": ("kv_cache", "kv_cache_mode"),
}


def recorded_calls(subject: Subject, prompt: str | list[str], steps: int = 2, **options: Any) -> Any:
    """The named arguments of each denoiser call of a run, with its denoiser."""
    calls = []
    with ExitStack() as stack:
        for denoiser in subject.denoisers:
            signature = inspect.signature(type(denoiser).forward)

            def record(
                module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], signature: Any = signature
            ) -> None:
                call = dict(signature.bind(module, *args, **kwargs).arguments)
                calls.append((call.pop("self"), call))

            stack.callback(denoiser.register_forward_pre_hook(record, with_kwargs=True).remove)
        subject.generate(prompt, num_inference_steps=max(steps, subject.case.fewest_steps), **options)
    return calls


def three_requests(subject: Subject) -> tuple[Any, Any, Any]:
    """Calls of three requests by one denoiser and their rows' guidance: other prompts, steps, numbers and CFG."""
    case, family = subject.case, family_of(subject.pipe)
    first = row_guidance(subject, "a blue square", 6.0, 0.5)
    second = row_guidance(subject, "", 3.0, 0.9)
    early = recorded_calls(subject, "a red circle")
    denoiser = early[-1][0]
    late = recorded_calls(subject, case.beside)
    calls, rows = [without_padding(family, run[-1][1]) for run in (early, late)], [[first], [None]]
    if case.cfg is not None and "pag" not in case.name:
        prompt = ["a green shape", "a red circle"] if case.takes != "one prompt" else "a green shape"
        recorded = recorded_calls(subject, prompt, steps=len(subject.denoisers), cfg=True)
        in_cfg = [call for module, call in recorded if module is denoiser]
        taken = in_cfg[:1] if family.cfg == "batched" else in_cfg[:2]
        calls += taken
        conditional = iter(case.conditional_rows)
        for call in taken:
            rows.append([second if next(conditional) else None for _ in range(family.row_count(call))])
    return denoiser, calls, rows


def without_padding(family: Any, call: Any) -> Any:
    """The call as a pipeline makes it that cuts its text's padding off, if the model masks it."""
    name = family.denoiser_mask_arg
    if name is None or call.get(name) is None or family.argument(name, UNDECLARED) is not PADDED:
        return call
    count = int(call[name].bool().any(0).nonzero().max()) + 1
    texts = [name for name in call if family.argument(name, UNDECLARED) is PADDED]
    return call | {name: call[name][:, :count] for name in texts}


@torch.no_grad()
def test_calls_of_several_requests_join(subject: Subject) -> None:
    denoiser, calls, rows = three_requests(subject)
    keys = [nag.joining_key(denoiser, call) for call in calls]
    apart = APART.get(subject.case.name, ())
    for place, key in enumerate(keys[1:], start=1):
        assert apart or key == keys[0]
        if key != keys[0]:
            with pytest.raises(nag.CannotJoin) as caught:
                nag.join(denoiser, [calls[0], calls[place]])
            assert caught.value.call == 1
            assert caught.value.argument in apart
    together = [place for place, key in enumerate(keys) if key == keys[0]]
    assert not apart or len(together) < len(keys)
    if "kv_cache" not in apart:
        calls, rows = ([column[place] for place in together] for column in (calls, rows))
        assert_joined_as_alone(denoiser, calls, rows)


def assert_joined_as_alone(denoiser: Any, calls: Any, rows: Any) -> None:
    def run(arguments: Any, rows: Any) -> Any:
        # Each time attached again: text keys kept from a call alone would hide that the joined one makes others.
        with nag.attach(denoiser) as attached, attached.rows(rows):
            return denoiser(**arguments)

    alone = [run(call, of_call) for call, of_call in zip(calls, rows, strict=True)]
    joined = nag.join(denoiser, calls, rows, keys=[nag.joining_key(denoiser, call) for call in calls])
    parts = joined.split(run(joined.arguments, joined.rows))
    for part, expected in zip(parts, alone, strict=True):
        assert type(part) is type(expected)
        for tensor, other in zip(tensors_of(part), tensors_of(expected), strict=True):
            assert difference(tensor, other) < TOLERANCE


def tensors_of(output: Any) -> list[Any]:
    """All tensors in a denoiser's output."""
    if isinstance(output, torch.Tensor):
        return [output]
    entries = output.values() if isinstance(output, dict) else output if isinstance(output, (list, tuple)) else ()
    return [tensor for entry in entries for tensor in tensors_of(entry)]


@pytest.fixture
def flux_call(flux: Subject) -> Any:
    return recorded_calls(flux, "a red circle")[0][1]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("hidden_states", lambda call: {"hidden_states": call["hidden_states"][:, :4]}),
        ("hidden_states", lambda call: {"hidden_states": call["hidden_states"].half()}),
        ("encoder_hidden_states", lambda call: {"encoder_hidden_states": call["encoder_hidden_states"][:, :4]}),
        ("txt_ids", lambda call: {"txt_ids": call["txt_ids"] + 1}),
        ("guidance", lambda call: {"guidance": torch.tensor([3.5])}),
        ("joint_attention_kwargs", lambda call: {"joint_attention_kwargs": {"scale": 0.5}}),
        ("return_dict", lambda call: {"return_dict": True}),
        ("new_argument", lambda call: {"new_argument": torch.zeros(1, 4)}),
        ("controlnet_block_samples", lambda call: {"controlnet_block_samples": [torch.zeros(1, 16, 32)]}),
    ],
)
def test_what_keeps_calls_apart_is_named(flux: Subject, flux_call: Any, name: str, change: Callable[..., Any]) -> None:
    other = flux_call | change(flux_call)
    calls = [flux_call, flux_call, other]
    keys = [nag.joining_key(flux.denoiser, call) for call in calls]
    assert keys[0] == keys[1] != keys[2]
    for known in (None, keys):
        with pytest.raises(nag.CannotJoin, match=f"call 2 cannot join the first: {name} ") as caught:
            nag.join(flux.denoiser, calls, keys=known)
        assert (caught.value.argument, caught.value.call) == (name, 2)


def test_arguments_left_out_and_made_anew_join(flux: Subject, flux_call: Any) -> None:
    """Pipelines of one model leave out what others pass as None or empty, and make the same positions anew."""
    other = {name: value for name, value in flux_call.items() if value is not None and value != {}}
    other |= {"txt_ids": flux_call["txt_ids"].clone(), "timestep": flux_call["timestep"].double()}
    assert nag.joining_key(flux.denoiser, flux_call) == nag.joining_key(flux.denoiser, other)
    flux_call["txt_ids"].add_(1)
    assert nag.joining_key(flux.denoiser, flux_call) != nag.joining_key(flux.denoiser, other)


def test_a_step_cache_keeps_calls_apart(flux: Subject, flux_call: Any) -> None:
    flux.denoiser.enable_cache(FirstBlockCacheConfig())
    with pytest.raises(nag.CannotJoin, match="denoiser has a step cache"):
        nag.join(flux.denoiser, [flux_call, flux_call])


def test_a_family_that_cannot_join_says_why(flux: Subject, flux_call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(family_of(flux.pipe)), "cannot_join", "its rows see each other")
    with pytest.raises(nag.CannotJoin, match="its rows see each other"):
        nag.join(flux.denoiser, [flux_call, flux_call])
    assert nag.joining_key(flux.denoiser, flux_call) != nag.joining_key(flux.denoiser, flux_call)
    assert "no: its rows see each other" in str(nag.families())


def test_video_with_a_first_image_does_not_join_video_without() -> None:
    """HunyuanVideo 1.5 looks whether any row of the call has an image."""
    subject = Subject.named("hunyuan-15")
    call = recorded_calls(subject, "a red circle")[0][1]
    assert not call["image_embeds"].any()
    other = call | {"image_embeds": torch.ones_like(call["image_embeds"])}
    with pytest.raises(nag.CannotJoin, match="image_embeds must have an image in all calls or in none"):
        nag.join(subject.denoiser, [call, other])


def test_negative_prompts_that_cannot_share_a_call_are_named(flux: Subject, flux_call: Any) -> None:
    long, short = (nag.NegativeEmbeds(torch.ones(1, length, 32)) for length in (15, 4))
    rows = [[nag.RowGuidance(negative, 5.0, 2.5, 0.25)] for negative in (long, short)]
    assert nag.join(flux.denoiser, [flux_call] * 3, [[None], rows[0], rows[0]]).counts == (1, 1, 1)
    with pytest.raises(nag.CannotJoin, match="negative must have as many tokens") as caught:
        nag.join(flux.denoiser, [flux_call] * 3, [rows[0], [None], rows[1]])
    assert caught.value.call == 2


@torch.no_grad()
def test_residuals_of_a_controlnet_join() -> None:
    """Lists of tensors and one tensor, each with the rows of its call."""
    subject = Subject.named("sdxl")
    denoiser, calls, rows = three_requests(subject)
    shapes = []
    blocks = [*denoiser.down_blocks, denoiser.mid_block]
    with ExitStack() as stack:
        for block in blocks:
            stack.callback(block.register_forward_hook(lambda *hook: shapes.append(shapes_of(hook[-1]))).remove)
        denoiser(**calls[0])
    first = (len(calls[0]["sample"]), denoiser.config.block_out_channels[0], *calls[0]["sample"].shape[2:])
    down, mid = [first, *(shape for of_block in shapes[:-1] for shape in of_block[1:])], shapes[-1][0]

    def residual(call: Any, shape: Any) -> torch.Tensor:
        return torch.randn(len(call["sample"]), *shape[1:], generator=generator)

    generator = torch.Generator().manual_seed(0)
    controlled = [
        call
        | {
            "down_block_additional_residuals": tuple(residual(call, shape) for shape in down),
            "mid_block_additional_residual": residual(call, mid),
        }
        for call in calls
    ]
    assert_joined_as_alone(denoiser, controlled, rows)
    with pytest.raises(nag.CannotJoin, match="down_block_additional_residuals"):
        nag.join(denoiser, [controlled[0], calls[1]])


def shapes_of(output: Any) -> list[Any]:
    return [tensor.shape for tensor in tensors_of(output)]


@torch.no_grad()
def test_the_documented_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    section = (root / "docs/library/denoiser-calls.md").read_text().split("## Several requests")[1]
    names: dict[str, Any] = {}
    [program] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    exec(program, names)
    (plain,) = names["pipe"].transformer(**names["calls"][3])
    (part,) = names["second"]
    assert difference(part, plain) < TOLERANCE
    (guided,), (call, *_) = names["first"], names["calls"]
    assert difference(guided, names["pipe"].transformer(**call)[0]) > 0.01
