"""The paper's table on small models and random metric networks: what is drawn, what goes on, what is refused."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import nag
from app.catalog import Catalog, Range
from app.jobs import AppliedGuidance
from app.loading.pipeline import load
from app.settings import Settings
from app.worker.engine.pipeline_call import run_calls
from benchmarks.paper_table import draw, prompts
from benchmarks.paper_table.__main__ import main
from benchmarks.paper_table.image_cache import ImageCache, StaleImageError
from benchmarks.paper_table.measure import Scores
from benchmarks.paper_table.metrics import random_networks
from benchmarks.paper_table.metrics.clip_score import ClipScore
from benchmarks.paper_table.metrics.networks import Networks
from benchmarks.paper_table.paper_rows import ROWS
from benchmarks.paper_table.plan import METHODS, Plan, PlanError
from benchmarks.paper_table.prompts import NEGATIVE, Prompt, PromptFileError
from benchmarks.paper_table.table import Run, write
from tests.worker.small import in_folder

pytestmark = pytest.mark.slow  # runs benchmarks

CPU = torch.device("cpu")
ASKED = [("a small red circle", "a red shape"), ("a large shape", ""), *[(f"a {each} square", "") for each in "abcd"]]
KNOWN = Catalog.known(Settings())


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`table(name, *arguments)` runs the command on shapes-flux with its files under that name."""
    monkeypatch.setattr(draw, "load", lambda _, device: shapes_flux(device))
    (tmp_path / "prompts.csv").write_text("prompt,negative\n" + "".join(f"{a},{b}\n" for a, b in ASKED))
    real = tmp_path / "real"
    real.mkdir()
    for i, size in enumerate([(64, 64), (80, 50), (30, 70), (20, 20)]):
        pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(real / f"{i}.png")

    def run(name: str, *arguments: Any) -> None:
        main(
            [
                *("--model", "shapes-flux", "--prompt-file", str(tmp_path / "prompts.csv"), "--reference", str(real)),
                *("--metric-weights", "random", "--patch", "24", "--num-inference-steps", "1", "--device", "cpu"),
                *("--seed", "7", "--folder", str(tmp_path / name), "--results", str(tmp_path / f"{name}-table")),
                *arguments,
            ]
        )

    return run


@functools.cache
def shapes_flux(device: Any) -> Any:
    return load(KNOWN["shapes-flux"], device)


def files(folder: Path) -> dict[str, Any]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def refused(capsys: pytest.CaptureFixture[str], run: Any, *arguments: Any) -> Any:
    with pytest.raises(SystemExit):
        run(*arguments)
    return capsys.readouterr().err


def test_a_broken_run_goes_on_to_the_same_table(table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table("whole")
    kept: list[Any] = []

    def keep(cache: Any, *arguments: Any) -> None:
        if len(kept) == 6:  # in the middle of the second call
            raise KeyboardInterrupt
        kept.append(arguments)
        plain(cache, *arguments)

    plain = ImageCache.keep
    monkeypatch.setattr(ImageCache, "keep", keep)
    with pytest.raises(KeyboardInterrupt):
        table("broken")
    monkeypatch.setattr(ImageCache, "keep", plain)
    assert len(files(tmp_path / "broken")) == 6
    (tmp_path / "broken" / "none" / "000004.part").write_bytes(b"half an image")
    table("broken")
    assert files(tmp_path / "whole").keys() == {f"{each}/{i:06d}.png" for each in METHODS for i in range(len(ASKED))}
    assert files(tmp_path / "broken") == files(tmp_path / "whole")
    for suffix in ("md", "json"):
        name = f"paper_table-shapes-flux.{suffix}"
        assert (tmp_path / "broken-table" / name).read_text() == (tmp_path / "whole-table" / name).read_text()


def test_shards_share_the_images_and_what_is_there_is_measured(
    table: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table("whole")
    whole = files(tmp_path / "whole")
    table("shards", "--shard", "0/2")
    first = files(tmp_path / "shards")
    assert first.keys() == {f"{each}/{i:06d}.png" for each in METHODS for i in range(4)}
    assert not (tmp_path / "shards-table").exists()
    capsys.readouterr()
    table("shards", "--time-limit", "0")
    assert "2 of 6 prompts are not drawn yet" in capsys.readouterr().out
    table("shards", "--shard", "1/2")
    assert files(tmp_path / "shards") == whole


def test_the_table_says_what_it_is_worth(table: Any, tmp_path: Path) -> None:
    table("run", "--prompts", "5")
    text = (tmp_path / "run-table" / "paper_table-shapes-flux.md").read_text()
    assert "Metric weights: random" in text
    assert "the numbers mean nothing" in text
    assert "away from each prompt's own" in text
    assert "without 1 images of the reference that are smaller" in text
    assert "paper:" not in text
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")][2:] == [
        "| none", "| NAG", "| NAG − none",
    ]  # fmt: skip
    data = json.loads((tmp_path / "run-table" / "paper_table-shapes-flux.json").read_text())["data"]
    score = ClipScore(random_networks.clip(), random_networks.tokenizer())
    found = {
        method: score(
            [Image.open(tmp_path / "run" / method / f"{i:06d}.png") for i in range(5)], [a for a, _ in ASKED[:5]]
        )
        for method in METHODS
    }
    for method in METHODS:
        assert data["scores"][method]["clip"] == pytest.approx(np.mean(found[method]), abs=1e-4)
        assert data["scores"][method].keys() == {"clip", "fid", "pfid", "imagereward"}
    apart = np.subtract(found["NAG"], found["none"])
    assert data["difference"]["clip"]["mean"] == pytest.approx(apart.mean(), abs=1e-4)
    assert data["difference"]["clip"]["interval_95"] == pytest.approx(1.96 * apart.std(ddof=1) / 5**0.5, abs=1e-4)


def test_the_papers_rows_stand_below_those_of_published_networks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan(KNOWN["flux-schnell"], [Prompt("a", NEGATIVE)] * 3, 1)
    scores = {"none": Scores([30, 31, 32], [1, 2, 3], 9), "NAG": Scores([31, 33, 32], [1, 2, 4], 8)}
    metrics: frozenset[Any] = frozenset(("imagereward", "fid", "clip"))
    write(Run(plan, [0, 1, 2], scores, Networks("pretrained", "theirs"), metrics, None, "here"), tmp_path)
    said = capsys.readouterr().out
    assert "| NAG − none |  | +1.00 ± 1.13 | -1.00 | +0.333 ± 0.653 |" in said
    assert "| paper: none, steps: 4 | 5000 | 31.40 | 25.47 | 1.029 |" in said
    assert "| paper: NAG, steps: 4 | 5000 | 32.00 | 24.46 | 1.099 |" in said
    assert "away from “Low resolution, blurry”" in said
    assert "mean nothing" not in said


def test_every_published_row_is_of_a_model_of_the_catalog() -> None:
    assert ROWS.keys() <= KNOWN.keys()


def test_what_is_drawn_is_the_pipelines_own(table: Any, tmp_path: Path) -> None:
    table("run", "--prompts", "2", "--metrics", "clip", "fid", "--width", "64")
    pipe, entry = shapes_flux(CPU), KNOWN["shapes-flux"]
    call = {"num_inference_steps": 1, "guidance_scale": 0.0, "width": 64, "height": 64, "output_type": "np"}
    for i, (text, negative) in enumerate(ASKED[:2]):
        with nag.guide(pipe, negative or NEGATIVE):
            guided = pipe(text, generator=torch.Generator().manual_seed(7 + i), **call, **entry.call).images[0]
        plain = pipe(text, generator=torch.Generator().manual_seed(7 + i), **call, **entry.call).images[0]
        assert np.abs(guided - plain).max() > 0.05
        for method, expected in (("none", plain), ("NAG", guided)):
            drawn = np.asarray(Image.open(tmp_path / "run" / method / f"{i:06d}.png"), dtype=float)
            assert np.abs(drawn - 255 * expected).max() <= 1.0


def test_images_of_other_parameters_are_not_taken_for_these(table: Any, capsys: pytest.CaptureFixture[str]) -> None:
    table("run", "--prompts", "2")
    assert "num_inference_steps" in refused(capsys, table, "run", "--prompts", "2", "--num-inference-steps", "2")
    assert "other nag: take another folder" in refused(capsys, table, "run", "--prompts", "2", "--scale", "3")
    assert "seed" in refused(capsys, table, "run", "--prompts", "2", "--seed", "8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "wan21-lightx2v"], "makes videos"),
        (["--model", "nothing"], "none of"),
        (["--patch", "299"], "299 px do not fit into 64x64"),
        (["--metrics", "clip"], "no metric that is asked for looks at it"),
        (["--shard", "2/2"], "must be I/N"),
        (["--batch", "0"], "at least 1"),
        (["--alpha", "2"], "nag.alpha"),
        (["--width", "65"], "width"),
        (["--time-limit", "0"], "0 prompts are drawn"),
        (["--scale", "1"], "changes nothing"),
    ],
)
def test_what_cannot_be_is_said(
    table: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert said in refused(capsys, table, "run", *arguments)


def test_a_distance_needs_real_images(table: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none").mkdir()
    assert "holds 0 images" in refused(capsys, table, "run", "--reference", str(tmp_path / "none"))


def test_a_model_with_cfg_keeps_it_in_both_methods(tmp_path: Path) -> None:
    entry = in_folder(KNOWN["sdxl"], tmp_path)
    size = Range(default=16, min=16, max=16)
    entry = entry.model_copy(update={"width": size, "height": size})
    plan = Plan(entry, [Prompt("a red circle", NEGATIVE)] * 3, 2, asked={"num_inference_steps": 2})
    cache = ImageCache(tmp_path / "cache", entry)
    draw.draw(plan, cache, CPU, draw.Limits())
    assert draw.missing(plan, cache) == []
    assert {plan.generation(method, 0).guidance_scale for method in METHODS} == {5.0}
    none, guided = (np.asarray(Image.open(cache.path(method, 2)), dtype=int) for method in METHODS)
    assert none.shape == (16, 16, 3)
    assert np.abs(none - guided).max() > 2
    with pytest.raises(StaleImageError, match="revision"):
        draw.missing(plan, ImageCache(tmp_path / "cache", entry.model_copy(update={"revision": "other"})))


@pytest.mark.parametrize(
    ("harm", "said"), [("nan", "prompt 2 holds pixels"), ("plain", "prompt 0 was drawn without NAG")]
)
def test_a_image_that_is_none_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str, said: str
) -> None:
    def run_and_harm(calls: Any) -> None:
        run_calls(calls)
        if harm == "nan":
            calls[2].made.pixels[5, 5, 0] = np.nan
            return
        for call in calls:
            call.made.applied = AppliedGuidance(False, "not_requested")

    entry = KNOWN["shapes-flux"]
    plan = Plan(entry, [Prompt("a circle", NEGATIVE)] * 3, 3, asked={"num_inference_steps": 1})
    monkeypatch.setattr(draw, "load", lambda _, device: shapes_flux(device))
    monkeypatch.setattr(draw, "run_calls", run_and_harm)
    with pytest.raises(RuntimeError, match=said):
        draw.draw(plan, ImageCache(tmp_path, entry), CPU, draw.Limits())


def test_a_model_without_nag_has_nothing_to_compare() -> None:
    entry = KNOWN["shapes-flux"].model_copy(update={"nag": None})
    with pytest.raises(PlanError, match="does not support NAG"):
        Plan(entry, [Prompt("a", "b")], 1)
    with pytest.raises(PlanError, match="prompt 1, counted from 0: prompt: model"):
        Plan(KNOWN["shapes-flux"], [Prompt("a", "b"), Prompt("a" * 2001, "b")], 1)


COCO = {"annotations": [{"image_id": 2, "id": 9, "caption": "late "}, {"image_id": 2, "id": 3, "caption": "early"},
                        {"image_id": 1, "id": 5, "caption": "first"}]}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.txt", "one\n\n two \n", [("one", "-"), ("two", "-")]),
        ("a.csv", 'prompt,negative\n"one, two",\nthree,four\n', [("one, two", "-"), ("three", "four")]),
        ("a.jsonl", '{"prompt": "one"}\n{"prompt": "two", "negative": "n"}\n', [("one", "-"), ("two", "n")]),
        ("a.json", '["one", "two"]', [("one", "-"), ("two", "-")]),
        ("a.json", json.dumps(COCO), [("first", "-"), ("early", "-")]),
    ],
)
def test_prompts_are_read_from_the_usual_files(
    tmp_path: Path, name: str, text: str, expected: list[tuple[str, str]]
) -> None:
    (tmp_path / name).write_text(text)
    assert prompts.read(tmp_path / name, "-") == [Prompt(*each) for each in expected]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", "", "must end in"),
        ("a.txt", "\n", "holds no prompt"),
        ("a.csv", "text\none\n", "the keys prompt"),
        ("a.csv", "prompt,negative\none\n", "are texts"),
        ("a.csv", "prompt\none,two\n", "the keys prompt"),
        ("a.jsonl", "{", "Expecting"),
        ("a.jsonl", '{"prompt": "one"}\n{"prompt": " "}', "prompt 1, counted from 0, is empty"),
        ("a.json", '{"captions": []}', "neither a list"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(PromptFileError, match=said):
        prompts.read(tmp_path / name, "-")
