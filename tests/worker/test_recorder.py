from __future__ import annotations

import httpx
from prometheus_client import generate_latest

from app.metrics.definitions import ALL
from app.settings import Settings
from app.worker.exposition import exposed
from app.worker.recorder import SHOWN, Event, Recorder, Stage
from tests.metrics_text import of_text


def said(recorder: Recorder) -> dict[tuple[str, ...], float]:
    return of_text(generate_latest(recorder.registry).decode())


def test_a_call_is_recorded_by_stage_and_step() -> None:
    recorder = Recorder()
    recorder.call("m", "nag", 4, 100, {Stage.PROMPTS: 5.0, Stage.DENOISE: 80.0, Stage.DECODE: 10.0})
    read = said(recorder)
    assert read["nag_batch_stage_seconds_sum", "m", "denoise"] == 0.08
    assert read["nag_step_seconds_count", "nag", "m"] == 4
    assert read["nag_step_seconds_bucket", "nag", "0.01", "m"] == 0
    assert read["nag_step_seconds_bucket", "nag", "0.025", "m"] == 4
    assert read["nag_denoised_pixels_total", "nag", "m"] == 400


def test_every_event_is_shown_and_every_metric_of_a_worker() -> None:
    recorder = Recorder()
    assert SHOWN.keys() == set(Event)
    for number, event in enumerate(Event, 1):
        recorder.add(event, "m", number)
    recorder.batch("m", "window", 3)
    recorder.call("m", "plain", 1, 1, {Stage.DENOISE: 1.0})
    recorder.loaded("m", 2.0)
    with recorder.timed(Stage.STORE, "m"):
        pass
    read = said(recorder)
    assert read["nag_prompt_cache_total", "m", "hit"] == 1
    assert read["nag_model_events_total", "loaded", "m"] == 4  # of the event itself, 3, and of the loading
    assert read["nag_batch_pictures_sum", "m", "window"] == 3
    names = {metric.name for metric in ALL if metric.source == "worker" and "_gpu_" not in metric.name}
    shown = {name[0].removesuffix("_count") for name in read}
    assert names <= shown


def test_two_workers_on_one_host_show_their_metrics(settings: Settings) -> None:
    first, second = Recorder(), Recorder()
    first.add(Event.PROMPT_HIT, "m", 7)
    with exposed(first.registry, settings) as one, exposed(second.registry, settings) as other:
        assert one != other
        texts = [httpx.get(f"http://{each}/metrics", trust_env=False).text for each in (one, other)]
    assert of_text(texts[0])["nag_prompt_cache_total", "m", "hit"] == 7
    assert ("nag_prompt_cache_total", "m", "hit") not in of_text(texts[1])
