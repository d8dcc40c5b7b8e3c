from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.cli import main
from app.cli.local_service import running
from tests.loras.lora_files import good

pytestmark = pytest.mark.slow  # starts a service


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("service")) as url:
        yield url


def test_from_added_to_deleted(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "style.safetensors"
    path.write_bytes(good())
    at = ["--url", url]
    options = ["--trigger-words", "in ink", "--scale-default", "0.5", "--scale-min", "-1"]
    assert main(["loras", "add", str(path), "--base", "shapes-flux", *options, *at]) == 0
    line = "style\town\tshapes-flux\t0.5 (-1 to 2)\tin ink\n"
    assert capsys.readouterr().out == line
    assert main(["loras", "list", "--model", "shapes-flux", *at]) == 0
    assert line in capsys.readouterr().out
    assert main(["loras", "list", "--model", "shapes-sd", *at]) == 0
    assert line not in capsys.readouterr().out
    assert main(["loras", "add", str(path), "--base", "shapes-flux", *at]) == 1
    assert "there is a LoRA 'style' already" in capsys.readouterr().err
    assert main(["loras", "delete", "style", *at]) == 0
    assert capsys.readouterr().out == "style\n"
    assert main(["loras", "delete", "style", *at]) == 1
    assert "no LoRA 'style'" in capsys.readouterr().err
    assert main(["loras", "add", str(tmp_path / "none"), "--base", "shapes-flux", *at]) == 1
    assert "No such file" in capsys.readouterr().err


def test_generate_sends_its_loras(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        "generate",
        "a shape",
        "--lora",
        "ink=9.5",
        "--lora",
        "oil",
        "--out",
        str(tmp_path / "a.png"),
        "--url",
        url,
    ]
    assert main(asked) == 1
    assert "no LoRA 'ink'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["generate", "a shape", "--lora", "ink=much"])
    assert "must be ID or ID=WEIGHT, got ink=much" in capsys.readouterr().err


def test_a_request_names_them_in_their_order(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bodies: list[dict[str, object]] = []

    def refuse(self: object, request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.read()))
        return httpx.Response(400, json={"error": {"message": "seen"}}, request=request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", refuse)
    main(["generate", "a shape", "--lora", "ink=-0.5", "--lora", "oil", "--out", str(tmp_path / "a.png"), "--url", url])
    assert bodies == [
        {"prompt": "a shape", "output_format": "png", "loras": [{"id": "ink", "scale": -0.5}, {"id": "oil"}]}
    ]
