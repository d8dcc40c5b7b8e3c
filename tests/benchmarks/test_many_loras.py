"""The benchmark of many LoRAs, with few: they reach the worker, and images are compared with the right ones."""

from __future__ import annotations

from pathlib import Path

from benchmarks import many_loras
from benchmarks.joining.load import connect
from benchmarks.many_loras import bodies, compare, serve, upload, write_loras
from benchmarks.resident_memory import worker_process


def test_every_lora_is_named() -> None:
    names = [f"l{i}" for i in range(20)]
    first, second = ({lora["id"] for body in bodies(names, 20) for lora in body["loras"]} for _ in range(2))
    assert first == second == set(names)


async def test_images_are_those_of_the_requests_alone(service: str, tmp_path: Path) -> None:
    paths, one_bytes = write_loras(tmp_path, 3)
    async with connect(service) as http:
        loras = await upload(http, paths)
        try:
            requests = bodies(loras, 6)
            samples, images = await serve(service, worker_process(), requests, range(6), every=3)
            compared = await compare(service, requests, images)
            swapped = {place: images[(place + 1) % 6] for place in images}
            wrong = await compare(service, requests, swapped)
        finally:
            for lora in loras:
                (await http.delete(f"/v1/loras/{lora}")).raise_for_status()
    assert [sample.requests for sample in samples] == [0, 3, 6]
    assert samples[-1].events["loaded"] >= samples[0].events["loaded"] + len(paths)
    assert samples[-1].lora_bytes >= len(paths) * one_bytes
    assert all(comparison.alone <= 1 < comparison.without for comparison in compared)
    assert all(comparison.alone > 1 for comparison in wrong)


def test_reads_are_told_apart_by_the_log() -> None:
    line = "2026 info lora_read model=shapes-flux lora={}@1 bytes=10 read_ms={}\n"
    log = line.format("a", 5.25) + line.format("b", 3) + line.format("a", 1.0)
    assert many_loras._read_times_ms(log) == ([5.25, 3.0], [1.0])
