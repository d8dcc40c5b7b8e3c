from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from app.cli import main
from app.cli.local_service import running
from app.queue.embedded import socket_path
from tests.limits import HANG_S
from tests.loras.lora_files import good
from tests.tiers import slow_but


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A whole service, with the embedded model."""
    with running(tmp_path_factory.mktemp("service"), settings={"NAG_MODELS": "shapes-flux"}) as url:
        yield url


def test_generate_writes_the_picture_and_says_what_was_used(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.png"
    asked = ["a shape", "--negative", "a red shape", "--seed", "7", "--steps", "2", "--alpha", "0.5", "--out", str(out)]
    assert main(["generate", *asked, "--url", url]) == 0
    with Image.open(out) as picture:
        assert picture.size == (64, 64)
    said = capsys.readouterr()
    assert "seed     7" in said.out
    assert "applied: scale 5, tau 2.5, alpha 0.5, end 1" in said.out
    assert re.search(r"queue +[0-9.]+ ms", said.out)
    assert "2/2 steps" in said.err


def test_the_same_seed_is_the_same_picture(url: str, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        assert main(["generate", "a shape", "--seed", "7", "--out", str(tmp_path / name), "--url", url]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_an_image_is_changed_as_far_as_the_strength_goes(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, out = tmp_path / "start.png", tmp_path / "a.png"
    Image.new("RGB", (64, 64), "blue").save(start)
    asked = ["a shape", "--negative", "a red shape", "--image", str(start), "--strength", "0.25", "--out", str(out)]
    assert main(["generate", *asked, "--url", url]) == 0
    assert f"input    {start} as image" in capsys.readouterr().out
    with Image.open(out) as image:
        red, green, blue = image.resize((1, 1)).getpixel((0, 0))  # type: ignore[misc]
    assert blue > max(red, green) + 50


def test_openais_route_on_the_real_pipeline(url: str) -> None:
    body = {"prompt": "a shape", "n": 2, "nag_negative_prompt": "a red shape", "output_format": "jpeg"}
    answer = httpx.post(f"{url}/v1/images/generations", json=body, timeout=HANG_S, trust_env=False)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["data"]) == 2
    assert answer.json()["nag"]["applied"]
    assert float(answer.headers["x-inference-time"]) > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--steps", "0"], "num_inference_steps: must be 1 to 50"),
        (["--model", "gone"], "no model 'gone'"),
        (["--scale", "0.5"], "nag.scale: must be 1 to 100"),
        (["--out", "a.tiff"], "the name must end in .png"),
        (["--out", "/nowhere/a.png"], "there is no folder /nowhere"),
    ],
)
def test_generate_repeats_the_servers_refusal(
    url: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "a shape", "--url", url, *arguments]) == 1
    assert said in capsys.readouterr().err


def test_generate_without_a_server_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "a shape", "--url", "http://127.0.0.1:1"]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line == "nag-server: no server at http://127.0.0.1:1; start one with `nag-server up`"


@pytest.mark.parametrize("address", ["nonsense", "http://", "ftp://x"])
def test_generate_with_a_wrong_url(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "a shape", "--url", address]) == 1
    assert "not a URL of a server" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "value"), [("NAG_PORT", "abc"), ("NAG_LOG_LEVEL", "loud"), ("NAG_BATCH_SIZE", "0")])
def test_a_wrong_setting_is_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    assert main(["models", "list"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"nag-server: {name}={value}: ")


@pytest.mark.parametrize("command", slow_but(["up"], ["api", "up"]))
def test_a_taken_port_is_one_line(command: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        environment = os.environ | {"NAG_PORT": port, "NAG_DATA_DIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", command], env=environment, capture_output=True, text=True, timeout=HANG_S
        )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert port in line


def test_models_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    assert "shapes-flux" in capsys.readouterr().out


def test_models_check_says_by_which_settings_the_weights_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more.toml").write_text('[models.others]\nextends = "flux-dev"\nrepository = "others/weights"\n')
    monkeypatch.setenv("NAG_CATALOG", str(tmp_path / "more.toml"))
    assert main(["models", "check", "flux-dev", "sdxl", "others", "--memory", "16GB,24GB,80"]) == 0
    lines = [re.split(r"\s*│\s*", line.strip("│ \n")) for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert lines == [
        ["flux-dev", "group 3.2 / 33.7", "cast + model 16.7 / 26.6", "own 33.7 / 23.8"],
        ["sdxl", "own 6.9 / 5.1", "own 6.9 / 5.1", "own 6.9 / 5.1"],
        ["others", "?", "?", "?"],
    ]
    assert main(["models", "check", "flux-dev", "--memory", "2GB"]) == 1
    with pytest.raises(SystemExit):
        main(["models", "check", "--memory", "much"])
    assert "must be sizes such as 24GB or 16GB,24GB, got much" in capsys.readouterr().err


@pytest.mark.slow
def test_models_bench_prints_the_times_of_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "bench", "shapes-flux", "--images", "1"]) == 0
    out = capsys.readouterr().out
    for label in ("load: ", "first image", "steady: ", "switch: back after another model, from its files"):
        (line,) = [line for line in out.splitlines() if label in line]
        assert re.search(r" [0-9]+\.[0-9]{2} ", line)
    assert main(["models", "bench", "gone"]) == 1
    assert "no model 'gone'" in capsys.readouterr().err
    assert main(["models", "bench", "sdxl", "--images", "1"]) == 1
    assert "sdxl: the model could not be loaded" in capsys.readouterr().err


def test_models_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["models", "check"]) == 0
    said = capsys.readouterr().out
    assert "FluxPipeline" in said
    assert "HunyuanVideoPipeline" in said

    (tmp_path / "empty").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "model_index.json").write_text(json.dumps({"_class_name": "NoSuchPipeline"}))
    entry = (Path(__file__).parents[2] / "app" / "models.toml").read_text().partition("[models.shapes-flux]")[2]
    entry = entry.partition("\n[models.")[0]
    entries = [
        f"[models.{name}]" + re.sub(r'repository = "[^"]*"', f'repository = "{name}"', entry)
        for name in ("empty", "odd", "gone")
    ]
    (tmp_path / "good.safetensors").write_bytes(good())
    (tmp_path / "bad.safetensors").write_bytes(good()[:-1])
    entries += [
        f'[loras.{name}]\nbase = "{base}"\npath = "{file}.safetensors"'
        for name, base, file in (
            ("fits", "shapes-flux", "good"), ("cut", "shapes-flux", "bad"), ("missing", "shapes-flux", "none"),
            ("other", "shapes-sd", "good"), ("none", "pixart-sigma", "good"),
        )
    ]  # fmt: skip
    (tmp_path / "more.toml").write_text("\n".join(entries))
    monkeypatch.setenv("NAG_CATALOG", str(tmp_path / "more.toml"))
    assert main(["models", "check"]) == 1
    said = capsys.readouterr().out
    assert "\nempty: repository: no model_index.json" in said
    assert re.search(r"\nodd: repository: diffusers .* has no NoSuchPipeline", said)
    assert "\ngone: repository: no folder gone" in said
    assert "\ncut: bad.safetensors: it is truncated" in said
    assert "\nmissing: path: no file" in said
    assert re.search(r"\nother: good.safetensors: transformer\.\S+: the model has no such layer in its unet", said)
    assert "\nnone: base: requests of pixart-sigma may name no LoRAs" in said
    assert "\nfits:" not in said
    assert main(["models", "check", "fits"]) == 0
    assert "LoRA for shapes-flux" in capsys.readouterr().out
    assert main(["models", "check", "gone"]) == 1
    assert "odd" not in capsys.readouterr().out
    assert main(["models", "check", "flux-dev", "sdxl-dmd2", "--cache"]) == 0
    assert "sdxl-dmd2: to download: stabilityai/stable-diffusion-xl-base-1.0 is not on " in capsys.readouterr().out
    assert main(["models", "check", "nothing"]) == 1
    assert "no model or LoRA 'nothing': there are shapes-flux, " in capsys.readouterr().err


def test_a_catalog_that_does_not_fit_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NAG_CATALOG", "/nowhere/models.toml")
    assert main(["models", "list"]) == 1
    assert capsys.readouterr().err == "nag-server: /nowhere/models.toml: cannot be read: No such file or directory\n"


@pytest.mark.slow
def test_up_serves_until_ctrl_c_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"NAG_PORT": str(port), "NAG_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "app.cli", "up"]
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=os.environ | settings, stdout=out, stderr=out, start_new_session=True)
    try:
        deadline = time.monotonic() + HANG_S
        while "ready at" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        assert main(["generate", "a shape", "--out", str(tmp_path / "a.png"), "--url", f"http://127.0.0.1:{port}"]) == 0
        process.send_signal(signal.SIGINT)
        assert process.wait(HANG_S) == 0, log.read_text()
    finally:
        process.kill()
    assert "Traceback" not in log.read_text()
    assert not socket_path(tmp_path).exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1)


def test_models_check_compares_the_devices_of_a_model_with_those_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more.toml").write_text('[models.split]\nextends = "shapes-flux"\nparallel = { ulysses = 2 }\n')
    monkeypatch.setenv("NAG_CATALOG", str(tmp_path / "more.toml"))
    monkeypatch.setenv("NAG_DEVICES", "0,1,2")
    assert main(["models", "check", "split", "shapes-flux"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == (
        "split: parallel: split asks for 2 devices on 1 nodes, and NAG_DEVICES has 3"
    )
    monkeypatch.setenv("NAG_DEVICES", "0,1,2,3")
    assert main(["models", "check", "split"]) == 0
