"""NAG by brute force: every prompt pair as two whole rows of a doubled batch, attention and formula in float64.

Shares nothing with `nag`. The pipeline and its denoiser run as they are; the denoiser's batch is doubled, the second
half reading the negative prompt, and torch's attention is answered by a plain softmax, after which the image's outputs
in both halves are replaced by equations 7 to 10. Both halves get the same image outputs and the same timestep, so their
images stay equal, which is what "the same Q against both prompts" asks for.
"""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from unittest import mock

import torch
import torch.nn.functional as F

from tests.nag.support import Subject


def generate(subject: Subject, prompt, negative, scale, tau, alpha, *, seeds=None):
    """Latents as `subject.generate`, guided. prompt, negative: equally many, of the same token count."""
    case = subject.case
    negative_call = subject.calls(negative, num_inference_steps=case.fewest_steps)[0][0]
    texts = {name: negative_call[name] for name in case.text if negative_call.get(name) is not None}
    rows = 1 if isinstance(prompt, str) else len(prompt)
    length = case.text_tokens or texts[case.text[0]].shape[1]
    phi, tau, alpha = (
        torch.as_tensor(each, dtype=torch.float64).view(-1, 1, 1) for each in (torch.as_tensor(scale) - 1, tau, alpha)
    )

    def formula(plus, minus):
        tilde = plus + phi * (plus - minus)
        ratio = tilde.abs().sum(-1, keepdim=True) / plus.abs().sum(-1, keepdim=True)
        hat = torch.minimum(ratio, tau) / ratio * tilde
        return alpha * hat + (1 - alpha) * plus

    def attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        groups = query.shape[1] // key.shape[1]
        q, k, v = query.double(), key.double().repeat_interleave(groups, 1), value.double().repeat_interleave(groups, 1)
        logits = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
        if attn_mask is not None:
            logits = logits.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else logits + attn_mask
        out = logits.softmax(-1).nan_to_num() @ v  # padding may see nothing
        image = image_queries(case.attention, query.shape[2], key.shape[2], length)
        if image is not None:
            z = out[:, :, image].transpose(1, 2).flatten(2)
            guided = formula(*z.chunk(2))
            guided = guided.unflatten(-1, (out.shape[1], -1)).transpose(1, 2)
            out[:, :, image] = torch.cat([guided, guided])
            shared = slice(image.stop, image.stop + case.shared) if case.attention == "text_last" else slice(0, 0)
            out[len(out) // 2 :, :, shared] = out[: len(out) // 2, :, shared]
        return out.to(query.dtype)

    signature = inspect.signature(subject.denoiser.forward)

    def double(module, args, kwargs):
        patch.start()
        call = dict(signature.bind(*args, **kwargs).arguments)
        return (), {name: twice(name, value) for name, value in call.items()}

    def twice(name, value):
        if name in texts or (name in case.text and value is not None):
            theirs = texts.get(name)  # no mask is a mask of ones
            if isinstance(value, list) and isinstance(value[0], torch.Tensor) and value[0].ndim == 3:
                return [torch.cat(pair) for pair in zip(value, theirs, strict=True)]  # a layer each, not a prompt
            if isinstance(value, list):
                return value + theirs
            ours = torch.ones_like(theirs) if value is None else value
            theirs = torch.ones_like(value) if theirs is None else theirs
            return torch.cat([ours, theirs], dim=ours.shape.index(rows * case.frames))
        if isinstance(value, torch.Tensor) and value.ndim and len(value) == rows:
            return torch.cat([value, value])
        if isinstance(value, list) and all(isinstance(each, torch.Tensor) and len(each) == rows for each in value):
            return [torch.cat([each, each]) for each in value]  # an adapter's or a ControlNet's
        if isinstance(value, list) and len(value) == rows:
            return value + value
        if isinstance(value, dict):
            return {key: twice(key, each) for key, each in value.items()}
        if isinstance(value, tuple):
            return tuple(twice(name, each) for each in value)
        return value

    def halve(module, args, output):
        patch.stop()
        if isinstance(output, dict):
            return type(output)(**{name: each[:rows] for name, each in output.items()})
        return tuple(each[:rows] if isinstance(each, torch.Tensor | list) else each for each in output)

    def modulate_by_the_positive(module, args, kwargs):
        def positive(value):
            return torch.cat([value[:rows], value[:rows]]) if isinstance(value, torch.Tensor) and value.ndim else value

        return tuple(map(positive, args)), {name: positive(value) for name, value in kwargs.items()}

    patch = mock.patch.object(F, "scaled_dot_product_attention", attention)
    with ExitStack() as stack:
        for denoiser in subject.denoisers:
            stack.callback(denoiser.register_forward_pre_hook(double, with_kwargs=True).remove)
            stack.callback(denoiser.register_forward_hook(halve, always_call=True).remove)
            if case.in_one_call:
                for module in (each for each in denoiser.modules() if hasattr(each, "processor")):
                    stack.enter_context(mock.patch.object(module, "processor", case.in_one_call()))
            if case.modulation:
                module = denoiser.get_submodule(case.modulation)
                stack.callback(module.register_forward_pre_hook(modulate_by_the_positive, with_kwargs=True).remove)
        return subject.generate(prompt, seeds=seeds)


def image_queries(attention, queries, keys, text):
    """The image's places among an attention's queries; None where it does not attend to a prompt."""
    if "cross" in attention and keys == text and queries != text:
        return slice(None)
    if attention == "cross":
        return None
    if attention == "beside":
        return slice(None) if keys == queries + text else None
    if queries > keys or queries <= text:  # a reference image's tokens may be keys alone
        return None
    return slice(text, None) if attention == "text_first" else slice(0, queries - text)
