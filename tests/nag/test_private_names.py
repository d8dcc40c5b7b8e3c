"""Private names of diffusers: what guidance takes each for, and that none is used elsewhere."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import diffusers
import pytest
import torch
from diffusers import ContextParallelConfig, FirstBlockCacheConfig, TextKVCacheConfig
from diffusers.hooks import HookRegistry
from diffusers.hooks.context_parallel import apply_context_parallel
from diffusers.models._modeling_parallel import ParallelConfig, TensorParallelConfig
from diffusers.models.attention_dispatch import AttentionBackendName

import nag
from nag import _diffusers
from nag.attention import AttentionCall, attention_with_lse
from tests.tiny import find_case

#: Private names of others than diffusers and this package: of torch, Python and accelerate, and this package's own.
OTHERS = {
    "_call_impl",
    "_check",
    "_compiled_call_impl",
    "_getframe",
    "_hf_hook",
    "_modules",
    "_nag_attachment",
    "_nag_both",
    "_orig_mod",
    "_parameters",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_version",
}


def pipeline(name: str) -> Any:
    return find_case(name).make(0)


def kandinsky3_takes_prompts_without_padding() -> None:
    for kind in (diffusers.Kandinsky3Pipeline, diffusers.Kandinsky3Img2ImgPipeline):
        assert _diffusers.CUT_CONTEXT in inspect.signature(kind.encode_prompt).parameters


def sana_wms_refiner_encodes_its_prompt() -> None:
    if not hasattr(diffusers, "SanaWMLTX2Refiner"):
        pytest.skip("this diffusers has no refiner of SANA-WM")
    names = inspect.signature(getattr(diffusers.SanaWMLTX2Refiner, _diffusers.REFINER_ENCODE_PROMPT)).parameters
    assert list(names) == ["self", "prompt", "device", "dtype"]


def hooks_have_these_names() -> None:
    registry = importlib.import_module("diffusers.hooks.faster_cache")
    assert registry._FASTER_CACHE_DENOISER_HOOK == _diffusers.FASTER_CACHE
    denoiser = pipeline("flux2-klein").transformer
    denoiser.enable_cache(TextKVCacheConfig())
    assert _diffusers.hook_registry(denoiser).get_hook(_diffusers.TEXT_KV_CACHE) is not None


def the_process_wide_backend_is_read() -> None:
    assert _diffusers.active_backend() == AttentionBackendName.NATIVE
    with diffusers.attention_backend("_native_math"):
        assert _diffusers.active_backend() == AttentionBackendName._NATIVE_MATH


def torchs_flash_kernels_have_a_backend() -> None:
    query, key, value = torch.randn(3, 1, 2, 5, 8)
    call = AttentionCall(query, key, value, backend=_diffusers.NATIVE_FLASH)
    torch.testing.assert_close(call(), attention_with_lse(call.query, call.key, call.value)[0])


def a_processors_backend_is_read_and_written() -> None:
    denoiser = pipeline("flux").transformer
    processor = denoiser.transformer_blocks[0].attn.processor
    assert _diffusers.processor_backend(processor) is None
    with diffusers.attention_backend("native"):  # which the next line changes for every model
        denoiser.set_attention_backend("_native_math")
    assert _diffusers.processor_backend(processor) == AttentionBackendName._NATIVE_MATH
    _diffusers.set_processor_backend(processor, None)
    assert _diffusers.processor_backend(processor) is None


def parallelism_is_read() -> None:
    denoiser, mesh = pipeline("flux").transformer, mock.Mock()
    assert "self._parallel_config = " in inspect.getsource(diffusers.ModelMixin._resolve_parallel_config)
    assert _diffusers.token_groups(denoiser) is _diffusers.head_group(denoiser) is None
    of_tokens, of_weights = ContextParallelConfig(ulysses_degree=2), TensorParallelConfig()
    for config in (of_tokens, of_weights):
        assert config._mesh is None  # until `setup` is told the ranks
    of_tokens._ulysses_mesh = of_weights._mesh = mesh
    denoiser._parallel_config = ParallelConfig(context_parallel_config=of_tokens)
    assert _diffusers.token_groups(denoiser) == _diffusers.TokenGroups(mesh.get_group(), None, is_even=True)
    of_tokens.ulysses_anything = True
    assert not _diffusers.token_groups(denoiser).is_even
    denoiser._parallel_config = ParallelConfig(tensor_parallel_config=of_weights)
    assert _diffusers.head_group(denoiser) is mesh.get_group()


def a_processors_parallelism_is_read_and_written() -> None:
    denoiser = pipeline("flux").transformer
    processor = denoiser.transformer_blocks[0].attn.processor
    assert _diffusers.processor_parallelism(processor) is None
    _diffusers.set_processor_parallelism(processor, "split")
    assert _diffusers.processor_parallelism(processor) == "split"
    assert "parallel_config=self._parallel_config" in inspect.getsource(type(processor))


def the_plan_of_a_split_is_known() -> None:
    denoiser, config = pipeline("flux").transformer, ContextParallelConfig(ulysses_degree=2)
    assert not _diffusers.is_split_by_own_plan(denoiser)
    apply_context_parallel(denoiser, config, denoiser._cp_plan)
    assert _diffusers.is_split_by_own_plan(denoiser)
    apply_context_parallel(denoiser.transformer_blocks[0], config, {"attn": {}})
    assert not _diffusers.is_split_by_own_plan(denoiser)


def a_caches_configuration_is_read() -> None:
    denoiser = pipeline("flux").transformer
    assert _diffusers.cache_config(denoiser) is None
    config = FirstBlockCacheConfig()
    denoiser.enable_cache(config)
    assert _diffusers.cache_config(denoiser) is config


def hooks_are_found() -> None:
    denoiser = pipeline("flux").transformer
    assert _diffusers.hook_registry(denoiser) is None
    denoiser.enable_cache(FirstBlockCacheConfig())
    assert isinstance(_diffusers.hook_registry(denoiser), HookRegistry)


def caches_are_dropped_within_their_context() -> None:
    denoiser = pipeline("flux").transformer
    denoiser.enable_cache(FirstBlockCacheConfig())
    states = [
        value
        for module in denoiser.modules()
        if _diffusers.hook_registry(module) is not None
        for hook in _diffusers.hook_registry(module).hooks.values()
        for name, value in vars(hook).items()
        if name == "state_manager"
    ]
    assert states
    assert {id(state) for state in _diffusers.step_cache_states(denoiser)} == {id(state) for state in states}
    with denoiser.cache_context("uncond"):
        others = [state.get_state() for state in states]
    with denoiser.cache_context("cond"):
        kept = [state.get_state() for state in states]
        _diffusers.reset_caches(denoiser)
        assert all(state.context.name == "cond" for state in states)
        assert all(state.get_state() is not old for state, old in zip(states, kept, strict=True))
    with denoiser.cache_context("uncond"):
        assert all(state.get_state() is old for state, old in zip(states, others, strict=True))


def the_loops_timestep_is_read() -> None:
    pipe = pipeline("flux")
    timesteps = []
    pipe.set_progress_bar_config(disable=True)
    pipe(
        "a red circle",
        height=16,
        width=16,
        num_inference_steps=2,
        max_sequence_length=15,
        callback_on_step_end=lambda pipe, step, timestep, kwargs: (
            timesteps.append(float(_diffusers.current_timestep(pipe)) == float(timestep)) or kwargs
        ),
    )
    assert timesteps == [True, True]
    assert _diffusers.current_timestep(pipe) is None


def the_loops_timestep_is_written() -> None:
    pipe = modular_pipeline()
    _diffusers.set_current_timestep(pipe, 3.0)
    assert _diffusers.current_timestep(pipe) == 3.0
    _diffusers.set_current_timestep(pipe, None)
    assert "_current_timestep" not in vars(pipe)


def modular_pipelines_run_these_blocks() -> None:
    pipe = modular_pipeline()
    blocks = mock.Mock(return_value=(pipe, diffusers.modular_pipelines.PipelineState()), inputs=[])
    assert type(_diffusers.pipeline_blocks(pipe)) is type(pipe.blocks)
    _diffusers.set_pipeline_blocks(pipe, blocks)
    assert _diffusers.pipeline_blocks(pipe) is blocks
    pipe()
    assert blocks.called


def guiders_name_their_predictions() -> None:
    batches = diffusers.ClassifierFreeGuidance().prepare_inputs(
        {"encoder_hidden_states": (torch.ones(1), torch.ones(1))}
    )
    assert [_diffusers.prediction_name(batch) for batch in batches] == ["pred_cond", "pred_uncond"]


def modular_pipeline() -> Any:
    return diffusers.FluxModularPipeline(blocks=diffusers.FluxAutoBlocks())


def cfg_truncation_is_read() -> None:
    pipe = pipeline("z-image")
    pipe._cfg_truncation = 0.5  # as its __call__ does
    assert "self._cfg_truncation = cfg_truncation" in inspect.getsource(type(pipe).__call__)
    assert _diffusers.cfg_truncation(pipe) == 0.5


def z_images_text_is_embedded() -> None:
    denoiser = pipeline("z-image").transformer
    text = torch.randn(5, denoiser.config.cap_feat_dim)
    padded, places, padding, *_ = _diffusers.z_image_padded(denoiser, text, 32)
    assert padded.shape == (32, text.shape[1])
    assert torch.equal(padded[:5], text)
    assert (places[:32, 0] == torch.arange(1, 33)).all()
    assert padding.sum() == 27
    tokens, rotary, mask, *_ = _diffusers.z_image_sequence(
        denoiser, [denoiser.cap_embedder(padded)], [places], [padding]
    )
    assert tokens.shape[:2] == rotary.shape[:2] == (1, 32)
    assert mask is None or mask.shape == (1, 32)


def lumina2s_rotary_positions_are_made() -> None:
    denoiser = pipeline("lumina2").transformer
    rotary = _diffusers.lumina2_rotary(denoiser, torch.zeros(1, 7, 3, dtype=torch.int32))
    assert rotary.shape[:2] == (1, 7)
    assert torch.equal(rotary, torch.ones_like(rotary))


CHECKS = {
    kandinsky3_takes_prompts_without_padding: ["CUT_CONTEXT"],
    sana_wms_refiner_encodes_its_prompt: ["REFINER_ENCODE_PROMPT"],
    hooks_have_these_names: ["FASTER_CACHE", "TEXT_KV_CACHE"],
    hooks_are_found: ["HOOK_REGISTRY", "hook_registry"],
    the_process_wide_backend_is_read: ["active_backend"],
    torchs_flash_kernels_have_a_backend: ["NATIVE_FLASH"],
    a_processors_backend_is_read_and_written: ["processor_backend", "set_processor_backend"],
    parallelism_is_read: ["TokenGroups", "head_group", "token_groups"],
    a_processors_parallelism_is_read_and_written: ["processor_parallelism", "set_processor_parallelism"],
    the_plan_of_a_split_is_known: ["is_split_by_own_plan"],
    a_caches_configuration_is_read: ["cache_config"],
    caches_are_dropped_within_their_context: ["reset_caches", "step_cache_states"],
    the_loops_timestep_is_read: ["current_timestep"],
    the_loops_timestep_is_written: ["set_current_timestep"],
    modular_pipelines_run_these_blocks: ["pipeline_blocks", "set_pipeline_blocks"],
    guiders_name_their_predictions: ["prediction_name"],
    cfg_truncation_is_read: ["cfg_truncation"],
    z_images_text_is_embedded: ["z_image_padded", "z_image_sequence"],
    lumina2s_rotary_positions_are_made: ["lumina2_rotary"],
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_diffusers_still_has(check: Any) -> None:
    try:
        check()
    except Exception as error:
        names = " and ".join(f"nag._diffusers.{name}" for name in CHECKS[check])
        pytest.fail(f"diffusers {diffusers.__version__} has changed what {names} stands on: {error!r}")


def test_each_name_is_checked() -> None:
    assert sorted(name for names in CHECKS.values() for name in names) == sorted(_diffusers.__all__)


def test_no_other_module_uses_private_names_of_diffusers() -> None:
    package = Path(nag.__file__).parent
    uses = {
        f"{path.relative_to(package)}:{node.lineno} {name}"
        for path in package.rglob("*.py")
        if path.name != "_diffusers.py"
        for node, name in private_names(ast.parse(path.read_text()))
    }
    assert not uses, f"move to nag/_diffusers.py, with the reason: {', '.join(sorted(uses))}"


def test_private_names_are_found_in_each_form() -> None:
    code = (
        "from diffusers.x import _Registry\nimport diffusers._x\npipe._step\ngetattr(pipe, '_name')\n"
        "pipe(_argument=1)\nself._own\ncls._own\nparameter._version\nmodule.__class__\n'_orig_mod'\n'_'\nname.endswith(('_part',))"
    )
    found = [name for _, name in private_names(ast.parse(code))]
    assert sorted(found) == ["_Registry", "_argument", "_name", "_step", "_x"]


def private_names(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Names with one leading underscore that are read of anything but `self`, `cls` and this package."""
    affixes = {  # parts of names are no names
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.endswith("with")
        for part in ast.walk(node)
    }
    for node in ast.walk(tree):
        names = []
        if id(node) in affixes:
            continue
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name) | ast.Constant(value=str(name)) | ast.keyword(arg=str(name)):
                names = [name]
            case ast.ImportFrom(module=str(module)) if not module.startswith("nag"):
                names = [*module.split("."), *(alias.name for alias in node.names)]
            case ast.Import():
                names = [part for alias in node.names for part in alias.name.split(".")]
        for name in names:
            if name.isidentifier() and name[0] == "_" and name.strip("_") and name[1] != "_" and name not in OTHERS:
                yield node, name
