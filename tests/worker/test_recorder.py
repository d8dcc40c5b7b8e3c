from __future__ import annotations

import httpx
from prometheus_client import generate_latest

from app.metrics.definitions import ALL
from app.settings import Settings
from app.worker.metrics_server import serve_metrics
from app.worker.recorder import SHOWN, Event, Recorder, Stage
from tests.metrics_text import of_text


def said(recorder: Recorder) -> dict[tuple[str, ...], float]:
    return of_text(generate_latest(recorder.registry).decode())


def test_a_denoiser_call_is_recorded_by_its_images_rows_time_and_guidance() -> None:
    recorder = Recorder()
    recorder.denoiser_call("m", "nag_cfg", images=3, rows=6, pixels=600, seconds=0.02)
    recorder.denoiser_call("m", "plain", images=1, rows=1, pixels=100, seconds=0.008)
    read = said(recorder)
    assert read["nag_denoiser_call_images_count", "m"] == 2
    assert read["nag_denoiser_call_images_sum", "m"] == 4
    assert read["nag_denoiser_call_images_bucket", "2.0", "m"] == 1
    assert read["nag_denoiser_call_rows_sum", "m"] == 7
    assert read["nag_denoiser_call_rows_bucket", "4.0", "m"] == 1
    assert read["nag_step_seconds_bucket", "nag_cfg", "0.01", "m"] == 0
    assert read["nag_step_seconds_bucket", "nag_cfg", "0.025", "m"] == 1
    assert read["nag_denoised_pixels_total", "nag_cfg", "m"] == 600


def test_an_image_is_recorded_by_stage() -> None:
    recorder = Recorder()
    recorder.image("m", encode_ms=5.0, denoise_ms=80.0, decode_ms=10.0)
    read = said(recorder)
    assert [read["nag_stage_seconds_sum", "m", stage] for stage in ("encode", "denoise", "decode")] == [
        0.005, 0.08, 0.01
    ]  # fmt: skip


def test_images_are_in_flight_until_they_have_ended() -> None:
    recorder = Recorder()
    recorder.begin_images("m", 4)
    recorder.begin_images("other", 2)
    recorder.end_images("m", 3)
    read = said(recorder)
    assert (read["nag_images_in_flight", "m"], read["nag_images_in_flight", "other"]) == (1, 2)


def test_a_preemption_is_no_fault() -> None:
    recorder = Recorder()
    recorder.loaded("m", 1.0)
    assert said(recorder)["nag_preemptions_total", "m"] == 0
    recorder.add(Event.PREEMPTED, "m")
    recorder.add(Event.OUT_OF_MEMORY, "m")
    read = said(recorder)
    assert read["nag_preemptions_total", "m"] == 1
    faults = {name[1:]: count for name, count in read.items() if name[0] == "nag_engine_faults_total"}
    assert faults == {("out_of_memory", "m"): 1}


def test_every_event_is_shown_and_every_metric_of_a_worker() -> None:
    recorder = Recorder()
    assert SHOWN.keys() == set(Event)
    for number, event in enumerate(Event, 1):
        recorder.add(event, "m", number)
    recorder.begin_images("m", 1)
    recorder.first_step("m", 0.5)
    recorder.denoiser_call("m", "plain", images=1, rows=1, pixels=1, seconds=1.0)
    recorder.loaded("m", 2.0)
    recorder.lora_read("m", 0.1)
    recorder.lora_bytes("m", 5)
    with recorder.timed(Stage.STORE, "m"):
        pass
    read = said(recorder)
    assert read["nag_prompt_cache_total", "m", "hit"] == 1
    assert read["nag_model_events_total", "loaded", "m"] == 4  # of the event itself, 3, and of the loading
    assert read["nag_time_to_first_step_seconds_sum", "m"] == 0.5
    names = {metric.name for metric in ALL if metric.source == "worker" and "_gpu_" not in metric.name}
    shown = {name[0].removesuffix("_count") for name in read}
    assert names <= shown


def test_two_workers_on_one_host_show_their_metrics(settings: Settings) -> None:
    first, second = Recorder(), Recorder()
    first.add(Event.PROMPT_HIT, "m", 7)
    with serve_metrics(first.registry, settings) as one, serve_metrics(second.registry, settings) as other:
        assert one != other
        texts = [httpx.get(f"http://{each}/metrics", trust_env=False).text for each in (one, other)]
    assert of_text(texts[0])["nag_prompt_cache_total", "m", "hit"] == 7
    assert ("nag_prompt_cache_total", "m", "hit") not in of_text(texts[1])
