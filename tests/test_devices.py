"""Which devices each worker of a machine has, and what contradicts itself."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from app.catalog import Catalog, CatalogError, Model, Parallelism
from app.devices import device_sets, devices_of_worker, show_devices
from app.loading.checks import problems
from app.settings import Settings
from app.supervisor.supervisor import Supervisor
from app.worker.devices.gpu import set_precision

KNOWN = Catalog.known(Settings())


def entry(name: str = "shapes-flux", **changes: Any) -> Model:
    """A known entry with changes, validated as if the catalog had them."""
    return Model.model_validate(KNOWN[name].model_dump() | changes)


def split(devices: int, name: str = "a") -> Model:
    return entry(id=name, parallel={"ulysses": devices})


@pytest.mark.parametrize(
    ("given", "models", "sets"),
    [
        ({}, [], ((),)),
        ({"devices": (0, 3)}, [], ((0,), (3,))),
        ({}, [split(2)], ((0, 1),)),
        ({"devices": (4, 5, 6, 7)}, [split(2), entry()], ((4, 5), (6, 7))),
        ({"devices": (0, 1), "nodes": 2, "rendezvous": "tcp://a:1"}, [split(4)], ((0, 1),)),
    ],
)
def test_each_worker_has_as_many_devices_as_its_models_ask_for(
    given: dict[str, Any], models: list[Model], sets: object
) -> None:
    assert device_sets(Settings(**given), models) == sets


@pytest.mark.parametrize(
    ("given", "models", "message"),
    [
        ({"devices": (0, 1, 2)}, [split(2)], "a asks for 2 devices on 1 nodes, and NAG_DEVICES has 3"),
        ({}, [split(2), split(4, "b")], r"a for 2, b for 4 devices; .*NAG_MODELS"),
        ({"nodes": 2, "rendezvous": "tcp://a:1"}, [split(3)], "a asks for 3 devices, which NAG_NODES=2 cannot share"),
        ({"devices": (0, 1, 2, 3)}, [split(2)], "NAG_DEVICES has 4 devices, and the served models ask for 2"),
        ({"devices": (0, 1)}, [], "NAG_DEVICES has 2 devices, and the served models ask for 1"),
    ],
)
def test_devices_that_do_not_fit_are_refused_by_name(given: dict[str, Any], models: list[Model], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        devices_of_worker(Settings(**given), models)


async def test_up_starts_a_worker_for_each_set_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, str | None, str]] = []
    start = asyncio.create_subprocess_exec

    async def note(*command: str, env: dict[str, str], **options: Any) -> asyncio.subprocess.Process:
        started.append((command[3], env.get("NAG_DEVICES"), env["NAG_METRICS_PORT"]))
        if len(started) == 3:
            supervisor._stop()
        return await start("sleep", "60", **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", note)
    settings = Settings(redis_url="redis://127.0.0.1:1", metrics_port=9100)
    supervisor = Supervisor(settings, insecure=False, device_sets=((0, 1), (2, 3)))
    assert await supervisor.run() == 0
    assert sorted(started) == [("api", None, "9100"), ("worker", "0,1", "9100"), ("worker", "2,3", "9101")]


@pytest.mark.parametrize(
    ("tf32", "device", "chosen"), [(True, "cuda", ["high"]), (False, "cuda", []), (True, "cpu", [])]
)
def test_a_gpu_multiplies_in_tf32_if_the_settings_say_so(
    monkeypatch: pytest.MonkeyPatch, tf32: bool, device: str, chosen: list[str]
) -> None:
    precisions: list[str] = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", precisions.append)
    set_precision(Settings(tf32=tf32), torch.device(device))
    assert precisions == chosen


def test_a_process_numbers_its_gpus_from_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    show_devices((2, 5))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,5"
    show_devices((0, 1))  # a rank that it starts
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,5"
    show_devices((1,))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nodes": 2}, "must be tcp://host:port if NAG_NODES is more than 1"),
        ({"nodes": 2, "node": 2, "rendezvous": "tcp://a:1"}, "NAG_NODE must be below NAG_NODES=2, got 2"),
        ({"rendezvous": "a:1"}, "rendezvous"),
        ({"devices": "0,x"}, "devices"),
    ],
)
def test_settings_that_contradict_each_other_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings(**given)


def test_devices_are_read_and_handed_on_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAG_DEVICES", "2, 0")
    assert Settings().devices == (2, 0)
    assert Settings().as_environment()["NAG_DEVICES"] == "2,0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parallel": {"ulysses": 1}}, "ulysses, ring or tensor must be 2 or more"),
        ({"parallel": {"ulysses": 2, "tensor": 2}}, "tensor cannot be combined"),
        ({"parallel": {"ring": 2}}, "log-sum-exp, which attention = native does not give; use one of _flash_3_hub"),
        ({"parallel": {"ulysses": 2}, "compile": "blocks"}, "cannot have compile"),
        ({"parallel": {"ulysses": 2}, "offload": "model"}, "cannot have offload"),
        ({"parallel": {"ulysses": 2}, "cache": {"method": "first_block"}}, "cannot have cache"),
        ({"parallel": {"tensor": 2}}, "set request_loras = false"),
        (
            {
                "parallel": {"tensor": 2},
                "request_loras": False,
                "quantization": {"method": "torchao-int8", "components": ["transformer"]},
            },
            "cannot have quantization",
        ),
        (
            {
                "parallel": {"tensor": 2},
                "request_loras": False,
                "lora": [{"repository": "a/b", "weight_name": "c.safetensors", "fuse": False}],
            },
            "take no LoRA beside them; set fuse = true",
        ),
        (
            {
                "parallel": {"tensor": 2},
                "request_loras": False,
                "denoiser": {"repository": "a/b", "weight_name": "c.gguf"},
            },
            "cannot split the quantized weights of a GGUF file",
        ),
    ],
)
def test_settings_that_several_devices_cannot_have_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        entry(**changes)


@pytest.mark.parametrize(
    ("name", "parallelism", "message"),
    [
        ("shapes-sd", {"ulysses": 2}, "UNet2DConditionModel is not guided exactly if its tokens are split"),
        ("shapes-wan", {"tensor": 2}, "diffusers does not say how the weights of WanTransformer3DModel"),
        ("sd35-large-turbo", {"ulysses": 2}, "SD3Transformer2DModel is not guided exactly"),
    ],
)
def test_denoisers_that_cannot_be_split_are_named(name: str, parallelism: dict[str, int], message: str) -> None:
    found = problems(entry(name, parallel=parallelism, request_loras=False))
    assert any(message in problem for problem in found), found


@pytest.mark.parametrize(
    ("name", "parallelism"),
    [("shapes-flux", {"ulysses": 2}), ("shapes-flux", {"tensor": 2}), ("shapes-wan", {"ulysses": 2})],
)
def test_denoisers_that_can_be_split_are_accepted(name: str, parallelism: dict[str, int]) -> None:
    assert problems(entry(name, parallel=Parallelism(**parallelism).model_dump(), request_loras=False)) == []
