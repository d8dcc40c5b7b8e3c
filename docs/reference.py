"""Writes the generated tables of the documentation: `make reference`, after a family, setting, metric or model changed.

A page marks its table by `<!-- name -->` and `<!-- end -->`. Tests hold each page to what this module makes.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

import nag
from app.catalog import Catalog
from app.metrics.definitions import ALL, Source
from app.settings import SECRET, Settings
from app.settings.api import ApiSettings
from app.settings.inputs import InputSettings
from app.settings.models import ModelSettings
from app.settings.queue import QueueSettings
from app.settings.results import ResultSettings
from app.settings.settings import ProcessSettings
from app.settings.types import SettingsGroup
from app.settings.webhooks import WebhookSettings
from app.settings.workers import WorkerSettings

__all__ = ["DOCS", "PAGES", "rendered"]

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks/results"

#: Families whose cost `benchmarks.nag_cost` reads, by the name of its result.
COSTS = {
    "Flux.1": "flux",
    "Stable Diffusion 3": "sd3",
    "SDXL": "sdxl",
    "SANA": "sana",
    "Wan": "wan",
    "Qwen-Image": "qwen-image",
}

#: Headings of the settings, by subject.
GROUPS: dict[str, type[SettingsGroup]] = {
    "Models": ModelSettings,
    "Workers": WorkerSettings,
    "Queue": QueueSettings,
    "Results and links": ResultSettings,
    "Inputs and LoRAs": InputSettings,
    "Webhooks": WebhookSettings,
    "API": ApiSettings,
    "Process": ProcessSettings,
}

SOURCES = {
    Source.SERVICE: "The service",
    Source.API: "An API process",
    Source.WORKER: "A worker",
}


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Returns a Markdown table."""
    head = list(columns)
    lines = [head, ["---"] * len(head), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def families() -> str:
    """Returns the table of model families, with the cost of a guided step over a plain one if it was measured."""
    return nag.families().markdown({"cost of a step": {name: cost(result) for name, result in COSTS.items()}})


def cost(result: str) -> str:
    """Returns a guided step over a plain one, as last measured on a CPU; empty if it was not."""
    path = RESULTS / f"nag_cost-{result}-cpu.json"
    if not path.exists():
        return ""
    data = json.loads(path.read_text())["data"]
    plain, ours = data["no guidance"]["seconds"], data["NAG, ours"]["seconds"]
    return f"{statistics.median(mine / other for mine, other in zip(ours, plain, strict=True)):.2f}"


def models() -> str:
    """Returns the table of the models that the catalog knows without further files."""
    rows = []
    for name, model in Catalog.known(Settings()).items():
        card = f"app/builtin/{name}"
        repository = f"[{card}](../../{card}/README.md)" if "builtin" in model.repository else model.repository
        size, numbers = f"{model.width.default}x{model.height.default}", model.nag
        size += f", {model.num_frames.default} frames" if model.num_frames else ""
        added = "".join(f", {part.repository}" for part in (*model.lora[:1], model.denoiser, model.vae) if part)
        rows.append(
            (
                f"`{name}`",
                repository + added,
                str(model.num_inference_steps.default),
                f"{model.guidance_scale.default:g}",
                size,
                f"{numbers.scale:g}, {numbers.tau:g}, {numbers.alpha:g}, {numbers.end:g}" if numbers else "–",
                model.licence or "–",
            )
        )
    return table(("model", "repository", "steps", "CFG", "size (px)", "NAG scale, tau, alpha, end", "licence"), rows)


def settings() -> str:
    """Returns a table of settings for each subject, with their defaults and their descriptions."""
    return "\n\n".join(
        f"### {heading}\n\n"
        + table(
            ("variable", "default", "meaning"),
            (
                (
                    f"`NAG_{name.upper()}`",
                    "–" if name in SECRET else _value(field.default),
                    _cell(" ".join((field.description or "").split())),
                )
                for name, field in group.model_fields.items()
            ),
        )
        for heading, group in GROUPS.items()
    )


def metrics() -> str:
    """Returns a table of metrics for each kind of process that shows them."""
    return "\n\n".join(
        f"### {heading}\n\n"
        + table(
            ("metric", "kind", "labels", "meaning"),
            (
                (
                    f"`{metric.name}`",
                    metric.kind.value,
                    ", ".join(f"`{label}`" for label in metric.labels) or "–",
                    _cell(metric.help),
                )
                for metric in ALL
                if metric.source is source
            ),
        )
        for source, heading in SOURCES.items()
    )


def alerts() -> str:
    """Returns a table of the alerts, and what to do first."""
    groups = yaml.safe_load((DOCS.parent / "docker/prometheus/alerts.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    return table(
        ("alert", "severity", "summary", "what to do first"),
        (
            (
                f"`{rule['alert']}`",
                rule["labels"]["severity"],
                _cell(re.sub(r"{{ .*? }}", "…", rule["annotations"]["summary"])),
                _cell(rule["annotations"]["runbook"]),
            )
            for rule in rules
        ),
    )


def _value(value: Any) -> str:
    if value is None or value == ():
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:g}`" if value < 1e6 else f"`{value:.0f}`"
    return f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


#: The generated tables of each page, by their marks.
PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "library/families.md": {"families": families},
    "server/models.md": {"models": models},
    "server/settings.md": {"settings": settings},
    "operations/metrics.md": {"metrics": metrics},
    "operations/runbook.md": {"alerts": alerts},
}


def rendered(name: str) -> str:
    """Returns a page with its tables made anew."""
    text = (DOCS / name).read_text()
    for mark, make in PAGES[name].items():
        begin, end = f"<!-- {mark} -->\n", "<!-- end -->"
        count = text.count(begin)
        if count != 1:
            raise ValueError(f"{name}: expected one <!-- {mark} --> … <!-- end -->, found {count}")
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        text = f"{before}{begin}\n{make()}\n\n{found}{after}"
    return text


def main() -> None:
    """Writes every page with generated tables."""
    for name in PAGES:
        (DOCS / name).write_text(rendered(name))


if __name__ == "__main__":
    main()
