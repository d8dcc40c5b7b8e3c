"""Guidance by brute force: the plain denoiser runs once for each prompt, attention and formula in float64.

Shares nothing with `nag`. The two runs of a denoiser call are lanes that wait for each other at every attention call:
torch's attention is answered by a plain softmax, after which the image's outputs of both are replaced by equations 7 to
10 or another method's. All but the text is the same in both, so their images stay equal, which is what "the same Q
against both prompts" asks for.
"""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import Any
from unittest import mock

import greenlet
import torch
import torch.nn.functional as F

from tests.nag.support import Subject

#: One for all rows, or one per row.
Numbers = float | Sequence[float]


def call(
    run: Callable[..., Any],
    positive: dict[str, Any],
    negative: dict[str, Any],
    numbers: tuple[Numbers | torch.Tensor, Numbers | torch.Tensor, Numbers | torch.Tensor],
    image_queries: Callable[[int, int, int], slice | None],
    *,
    modulation: torch.nn.Module | None = None,
    shared: int = 0,
    differential: bool = False,
    **other: Any,
) -> Any:
    """What `run(**positive)` returns, guided away from `run(**negative)`, whose arguments differ in the text alone.

    Args:
        run: the denoiser's plain forward.
        positive: its arguments by name.
        negative: the same with the text of the negative prompts.
        numbers: scale, tau and alpha, one or one per row.
        image_queries: the image's places among an attention's queries, or None where it does not attend to the prompt;
            from the counts of queries and keys and, for each lane, its number.
        modulation: a submodule that makes a modulation of the text, which stays the positive's.
        differential: whether an attention to the prompt is the difference of two in turn.
        shared: how many tokens behind the image are of no prompt: there is one of each, and it reads the positive.
        other: `method`, names by row; `blocks`, which of the attentions to the prompt guide, in the order of their
            calls; for value sign flip `text_keys`, the places of a prompt's keys, from the counts of the image's
            queries and of keys.

    """
    method: Sequence[str] = other.get("method", ("nag",))
    blocks: Collection[int] | None = other.get("blocks")
    text_keys: Callable[[int, int], slice] = other.get("text_keys", lambda image, keys: slice(0))
    counts = itertools.count(), itertools.count()  # of each lane's attentions to the prompt
    scale, tau, alpha = (torch.as_tensor(number, dtype=torch.float64).view(-1, 1, 1) for number in numbers)

    def formula(plus: torch.Tensor, minus: torch.Tensor, name: str) -> torch.Tensor:
        tilde = plus + (scale - 1) * (plus - minus)
        if name == "orthogonal":
            unit = plus / plus.norm(dim=-1, keepdim=True)
            tilde = plus - (scale - 1) * (minus - (minus * unit).sum(-1, keepdim=True) * unit)
        ratio = tilde.abs().sum(-1, keepdim=True) / plus.abs().sum(-1, keepdim=True)
        hat = torch.minimum(ratio, tau) / ratio * tilde
        return alpha * hat + (1 - alpha) * plus

    def flipped(plus: Sequence[torch.Tensor], minus: Sequence[torch.Tensor]) -> torch.Tensor:
        """One softmax of the positive lane's image over all that it sees and over the negative lane's text."""
        (logits, value), (others, other_value) = plus, minus
        text = text_keys(logits.shape[2], value.shape[2])
        weights = torch.cat([logits, others[..., text]], -1).softmax(-1)
        z = weights @ torch.cat([value, -(scale - 1)[..., None] * other_value[:, :, text]], 2)
        return z.transpose(1, 2).flatten(2)

    def guided(images: Sequence[torch.Tensor], seen: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        images = [image.transpose(1, 2).flatten(2) for image in images]
        by_method = {
            name: flipped(*seen) if name == "vsf" else formula(images[0], images[1], name) for name in set(method)
        }
        if len(by_method) == 1:
            return by_method[method[0]]
        return torch.stack([by_method[name][row] for row, name in enumerate(method)])

    def meet(value: Any) -> Any:
        """What both lanes have here, the positive's first."""
        return greenlet.getcurrent().parent.switch(value)

    def attention(query: torch.Tensor, key: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        logits, value = logits_and_values(query, key, *args, **kwargs)
        out = logits.softmax(-1).nan_to_num() @ value  # padding may see nothing
        lane = lanes.index(greenlet.getcurrent())
        place = image_queries(query.shape[2], key.shape[2], lane)
        if place is not None and differential:
            if lane not in first_of_two:
                first_of_two[lane] = out
                return torch.zeros_like(query)
            out = first_of_two.pop(lane) - out
        both = meet((out, place, logits, value))
        if place is not None:
            (plus, of_plus, *_), (minus, of_minus, *_) = both
            out = out.clone()  # which the other lane is still to read
            if blocks is None or next(counts[lane]) in blocks:
                seen = [(logits[:, :, image], value) for _, image, logits, value in both]
                z = guided((plus[:, :, of_plus], minus[:, :, of_minus]), seen)
                out[:, :, place] = z.unflatten(-1, (out.shape[1], -1)).transpose(1, 2)
            else:
                out[:, :, place] = plus[:, :, of_plus]
            behind = slice(place.stop, place.stop + shared) if shared else slice(0)
            out[:, :, behind] = plus[:, :, behind]
        return (-out if place is not None and differential else out).to(query.dtype)

    def modulate_by_the_positive(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return meet((args, kwargs))[0]

    first_of_two: dict[int, torch.Tensor] = {}  # by lane: the minuend of a difference whose subtrahend is to come
    lanes = [greenlet.greenlet(lambda arguments=arguments: run(**arguments)) for arguments in (positive, negative)]
    with ExitStack() as stack:
        # A compiler that ran here would take the stand-in for torch's own attention, and remember that for good.
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(mock.patch.object(F, "scaled_dot_product_attention", attention))
        if modulation is not None:
            hook = modulation.register_forward_pre_hook(modulate_by_the_positive, with_kwargs=True)
            stack.callback(hook.remove)
        both = tuple(lane.switch() for lane in lanes)
        while not lanes[0].dead:
            both = tuple(lane.switch(both) for lane in lanes)
    return both[0]


def logits_and_values(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What attention is made of, in float64."""
    groups = query.shape[1] // key.shape[1]
    q, k, v = query.double(), key.double().repeat_interleave(groups, 1), value.double().repeat_interleave(groups, 1)
    logits = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None:
        logits = logits.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else logits + attn_mask
    return logits, v


def generate(
    subject: Subject,
    prompt: str | list[str],
    negative: str | list[str],
    scale: Numbers,
    tau: Numbers,
    alpha: Numbers,
    *,
    seeds: Sequence[int] | None = None,
    other_texts: Mapping[str, Any] | None = None,
    **other: Any,
) -> torch.Tensor:
    """Latents as `subject.generate`, guided. prompt, negative: equally many, of the same token count.

    other_texts: arguments of the denoiser to take in place of the negative's, by name. other: as `call` takes it.
    """
    case = subject.case
    negative_calls = subject.calls(negative, num_inference_steps=case.fewest_steps)[0]
    negative_call = next(call for call in negative_calls if not case.is_plain(call))
    texts = {name: negative_call.get(name) for name in case.text} | dict(other_texts or {})
    length = case.text_tokens or negative_call[case.text[0]].shape[1]
    caches: dict[
        int, tuple[Any, Any]
    ] = {}  # of keys: an object of the call that the denoiser fills; each lane has its own

    def own_cache(cache: Any) -> Any:
        return caches.setdefault(id(cache), (cache, copy.deepcopy(cache)))[1]

    def place(queries: int, keys: int, lane: int) -> slice | None:
        return image_queries(case.attention, queries, keys, length)

    def guided(denoiser: Any, *args: Any, **kwargs: Any) -> Any:
        forward = type(denoiser).forward
        positive = dict(inspect.signature(forward).bind(denoiser, *args, **kwargs).arguments)
        if case.is_plain(positive):
            caches.clear()  # which such a call fills for both lanes
            return forward(**positive)
        others = texts | {name: own_cache(cache) for name, cache in positive.items() if name == "kv_cache" and cache}
        modulation = denoiser.get_submodule(case.modulation) if case.modulation else None
        return call(
            forward,
            positive,
            positive | others,
            (scale, tau, alpha),
            place,
            modulation=modulation,
            differential=case.differential,
            shared=case.shared if case.attention == "text_last" else 0,
            text_keys=functools.partial(text_keys, case.attention, length),
            **other,
        )

    with ExitStack() as stack:
        for denoiser in subject.denoisers:
            run = functools.wraps(denoiser.forward)(functools.partial(guided, denoiser))
            stack.enter_context(mock.patch.object(denoiser, "forward", run))
            if case.in_one_call:
                for module in (each for each in denoiser.modules() if hasattr(each, "processor")):
                    stack.enter_context(mock.patch.object(module, "processor", case.in_one_call()))
        return subject.generate(prompt, seeds=seeds)


def text_keys(attention: str, text: int, queries: int, keys: int) -> slice:
    """The places of a prompt's tokens among an attention's keys, of which none are of neither."""
    if attention == "text_last":
        return slice(keys - text, None)
    if attention == "gist_first" and keys != text + queries:
        return slice(None)
    return slice(0, text)


def image_queries(attention: str, queries: int, keys: int, text: int) -> slice | None:
    """The image's places among an attention's queries; None where it does not attend to a prompt."""
    if attention == "gist_first":
        return slice(text, None) if queries > text else None
    if "cross" in attention and keys == text and queries != text:
        return slice(None)
    if attention == "cross":
        return None
    if attention == "beside":
        return slice(None) if keys == queries + text else None
    if queries > keys or queries <= text:  # a reference image's tokens may be keys alone
        return None
    return slice(text, None) if attention == "text_first" else slice(0, queries - text)
