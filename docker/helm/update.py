"""`make chart`: the rules and dashboards that the chart carries, and its README's table, from their sources."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DOCKER = Path(__file__).parents[1]
CHART = Path(__file__).parent / "nag-server"
#: Helm reads no file outside its chart.
COPIES = {
    "files/rules/recording.yml": "prometheus/recording.yml",
    "files/rules/alerts.yml": "prometheus/alerts.yml",
    **{
        f"files/dashboards/{each.name}": f"grafana/dashboards/{each.name}"
        for each in (DOCKER / "grafana" / "dashboards").glob("*.json")
    },
}
TABLE = re.compile(r"(?<=<!-- values -->\n\n).*?(?=\n\n<!-- end -->)", re.DOTALL)


def main() -> None:
    """Writes them all."""
    for target, source in COPIES.items():
        (CHART / target).parent.mkdir(parents=True, exist_ok=True)
        (CHART / target).write_text((DOCKER / source).read_text())
    readme = CHART / "README.md"
    readme.write_text(TABLE.sub(lambda _: table(), readme.read_text()))


def table() -> str:
    """Returns a table of the values that have a comment `# --` or lie beside one, with their defaults."""
    lines = ["| value | default | meaning |", "| --- | --- | --- |"]
    comments = _comments((CHART / "values.yaml").read_text())
    for path, default in _leaves(yaml.safe_load((CHART / "values.yaml").read_text()), comments):
        shown = yaml.safe_dump(default, default_flow_style=True, width=1000).removesuffix("...\n").strip()
        lines.append(f"| `{path}` | `{shown}` | {comments.get(path, '')} |")
    return "\n".join(lines)


def _leaves(node: dict[str, Any], comments: dict[str, str], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        path = f"{above}{key}"
        if isinstance(value, dict) and value and path not in comments:
            yield from _leaves(value, comments, f"{path}.")
        else:
            yield path, value


def _comments(text: str) -> dict[str, str]:
    """Returns by path the text behind `# --` on the line above a key."""
    found: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    pending = ""
    for line in text.splitlines():
        if match := re.match(r"\s*# -- (.*)", line):
            pending = match[1]
        elif match := re.match(r"(\s*)([\w-]+):", line):
            above = [*(each for each in above if each[0] < len(match[1])), (len(match[1]), match[2])]
            if pending:
                found[".".join(name for _, name in above)] = pending
            pending = ""
        else:
            pending = ""
    return found


if __name__ == "__main__":
    main()
