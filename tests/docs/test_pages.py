"""Names in pages of the documentation exist, and what belongs on a page is there."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest

import nag
from app.api.requests.generation import LORAS_MAX, N_MAX, PREVIEWS_MAX, STRENGTH
from app.api.sdapi import PATH, translate
from app.api.sdapi import routes as sdapi
from app.api.sdapi.schemas import Img2ImgBody, Txt2ImgBody
from app.catalog import Catalog, Quantization, SpeedSettings
from app.catalog.aliases import DEFAULT_ALIASES
from app.catalog.profiles import CAST_SHARE, DEVICE_SHARE
from app.loras.check import RANK_MAX
from app.loras.header import HEADER_MAX_BYTES
from app.metrics.definitions import ALL
from app.settings import Settings

ROOT = Path(__file__).parents[2]
STEP = r"^\| [\w ]+ \| `([\w.]+:[\w.]+)` \|"
JOURNEY = (ROOT / "docs/architecture/request.md").read_text()


@pytest.mark.parametrize("name", re.findall(STEP, JOURNEY, re.MULTILINE))
def test_each_step_of_the_journey_is_a_function(name: str) -> None:
    module, path = name.split(":")
    found = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    assert callable(found)


def find(pattern: str, text: str, group: int) -> str:
    """Returns a group of the first match, which there must be."""
    match = re.search(pattern, text, re.DOTALL)
    assert match is not None, pattern
    return str(match[group])


def test_the_journey_is_told_whole() -> None:
    assert len(re.findall(STEP, JOURNEY, re.MULTILINE)) >= 10


def test_the_example_of_a_catalog_is_one(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/server/models.md").read_text(), re.DOTALL)
    (tmp_path / "mine.toml").write_text(example)
    models = Catalog.load(Settings(catalog=tmp_path / "mine.toml")).models
    assert (models["flux-dev"].offload, models["my-style"].lora[0].scale) == ("model", 0.8)


def test_the_tree_leads_to_files() -> None:
    folder = ROOT
    for line in find(r"## The tree\n\n```\n(.*?)```", JOURNEY, 1).splitlines():
        name = line.split()[0]
        folder = ROOT / name if not line.startswith(" ") else folder
        assert (folder if not line.startswith(" ") else folder / name).exists(), line


def test_the_page_on_the_engine_names_files_settings_and_metrics_that_exist() -> None:
    page = (ROOT / "docs/architecture/engine.md").read_text()
    known = {file.name for file in (ROOT / "app/worker").rglob("*.py")}
    named = set(re.findall(r"`(\w+\.py)`", page))
    assert len(named) > 20
    assert named <= known
    assert [name for name in re.findall(r"`(\w+/[\w./]+)`", page) if not (ROOT / name).exists()] == []
    table = page.partition("| folder | file | task |\n|---|---|---|\n")[2].partition("\n\n")[0]
    folder = ""
    for row in table.splitlines():
        of, files, _ = (cell.strip(" `") for cell in row.strip("|").split("|"))
        folder = of or folder
        for name in re.findall(r"\w+\.py", files):
            assert (ROOT / "app/worker" / folder / name).exists(), row
    assert folder, "the table was found"
    assert set(re.findall(r"`NAG_(\w+)", page)) <= {name.upper() for name in Settings.model_fields}
    assert set(re.findall(r"`(nag_\w+)`", page)) <= {metric.name for metric in ALL}


def test_the_page_on_loras_has_a_catalog_and_settings_that_exist(tmp_path: Path) -> None:
    page = (ROOT / "docs/server/loras.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "mine.toml").write_text(example)
    loras = Catalog.load(Settings(catalog=tmp_path / "mine.toml")).loras
    assert {name: lora.base for name, lora in loras.items()} == {
        "watercolor": "flux-dev", **dict.fromkeys(("sketched", "dotted", "underlined"), "shapes-flux"),
    }  # fmt: skip
    assert set(re.findall(r"`NAG_(\w+)", page)) <= {name.upper() for name in Settings.model_fields}
    assert f"at most {LORAS_MAX} LoRAs" in page
    assert f"at most {HEADER_MAX_BYTES // 2**20} MiB" in page
    assert f"at most {RANK_MAX}; " in page


def test_the_page_on_speed_has_catalogs_settings_and_fields_that_exist(tmp_path: Path) -> None:
    page = (ROOT / "docs/server/speed.md").read_text()
    examples = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert examples
    for example in examples:
        (tmp_path / "mine.toml").write_text(example)
        Catalog.load(Settings(catalog=tmp_path / "mine.toml"))
    assert set(re.findall(r"`NAG_(\w+)", page)) <= {name.upper() for name in Settings.model_fields}
    table = find(r"\| setting \|.*?\n\n", page, 0)
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(SpeedSettings.model_fields)
    for method in get_args(Quantization.model_fields["method"].annotation):
        assert f"`{method}`" in page
    assert f"at most {DEVICE_SHARE:.0%} of the memory".replace("%", " %") in page
    assert f"{CAST_SHARE:.0%} is counted".replace("%", " %") in page


def test_the_page_on_clients_has_aliases_settings_and_metrics_that_exist(tmp_path: Path) -> None:
    page = (ROOT / "docs/server/clients.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "mine.toml").write_text(example)
    alias = Catalog.load(Settings(catalog=tmp_path / "mine.toml")).aliases["gpt-image-1"]
    assert (alias.model, alias.negative_prompt) == ("shapes-sd", "a red shape")
    table = find(r"\| alias \| means \|\n(.*?)\n\n", page, 1)
    assert set(re.findall(r"`([\w.-]+)`", table)) == DEFAULT_ALIASES.keys()
    assert set(re.findall(r"`NAG_(\w+)", page)) <= {name.upper() for name in Settings.model_fields}
    assert set(re.findall(r"`(nag_\w+)`", page)) <= {metric.name for metric in ALL}


def test_the_page_on_automatic1111_names_every_route_and_field() -> None:
    page = (ROOT / "docs/server/automatic1111.md").read_text()
    routes = {*sdapi.NOTHING, *sdapi.REFRESHES}
    routes |= {path.removeprefix(f"{PATH}/") for path in openapi()["paths"] if path.startswith(PATH)}
    assert set(re.findall(rf"`(?:GET|POST) {PATH}/([\w-]+)`", page)) == routes
    table = find(r"## Fields\n\n(.*?)\n\n", page, 1)
    named = {name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    known = {*Txt2ImgBody.model_fields, *Img2ImgBody.model_fields, *translate.REFUSED}
    known |= {name for group in (*translate.LEFT_OUT, *translate.LEFT_OUT_OF_MASKED) for name in group.fields}
    assert named == known | {"resize_mode"}
    assert f"{STRENGTH} if absent" in table
    assert f"their product, {N_MAX} at the most" in table
    assert f"asks for {PREVIEWS_MAX} previews" in table
    assert set(re.findall(r"`NAG_(\w+)", page)) <= {name.upper() for name in Settings.model_fields}


def openapi() -> Any:
    return json.loads((ROOT / "app/api/openapi/openapi.json").read_text())


def test_what_is_set_for_compose_is_told() -> None:
    text = " ".join((ROOT / "docs/operations/compose.md").read_text().split())
    read = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    told = find(r"Set in `.env` or the environment: (.*?)\. ", text, 1)
    assert set(re.findall(r"`(\w+)`", told)) == read


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], ids=lambda page: page.name)
def test_files_and_settings_that_a_page_names_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        pytest.skip("it names what was removed, too")
    text = page.read_text()
    paths = re.findall(r"`((?:app|benchmarks|docker|docs|examples|nag|tests|training)/[\w./-]*)`", text)
    made_later = set((ROOT / ".gitignore").read_text().splitlines())
    assert [path for path in paths if not (ROOT / path).exists() and path not in made_later] == []
    settings = {name.upper() for name in Settings.model_fields}
    settings |= set(re.findall(r"\$\{NAG_(\w+)", (ROOT / "docker-compose.yml").read_text()))
    assert set(re.findall(r"`NAG_(\w+)[`=]", text)) <= settings


def test_public_names_are_exact() -> None:
    assert sorted(nag.__all__) == sorted(name for name in nag.__all__ if hasattr(nag, name))
    assert set(nag.__all__) >= {"guide", "supports", "defaults_for", "normalized_attention_guidance", "NAGError"}
