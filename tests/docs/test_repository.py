"""Files that people and forges look for at the top of a repository."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import yaml

from tests.docs.test_links import ROOT


def project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_readme_is_short_and_names_the_oldest_python() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
    assert f"Python 3.11, at least {project()['requires-python'].removeprefix('>=')}" in readme


def test_commands_of_make_that_pages_and_workflows_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        assert set(re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= {
            pair for target in targets for pair in ((target, ""), ("", target))
        }, page
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        jobs = yaml.safe_load(path.read_text())["jobs"].values()
        commands = {
            step["run"].replace("${{ matrix.part }}", part)
            for job in jobs
            for part in job.get("strategy", {}).get("matrix", {}).get("part", [""])
            for step in job["steps"]
            if "run" in step
        }
        assert {command.split()[1] for command in commands} <= targets


def test_the_workflow_runs_each_part_of_all_tests() -> None:
    makefile = (ROOT / "Makefile").read_text()
    [parts] = re.findall(r"^test-all: lint (.+?)  ##", makefile, re.MULTILINE)
    matrix = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]["all"]["strategy"]["matrix"]
    assert set(matrix["part"]) == set(parts.split())
    assert {row["part"] for row in matrix["include"]} <= set(matrix["part"])
    assert set(matrix["python"]).isdisjoint(row["python"] for row in matrix["include"])


def test_the_citation_is_of_this_version_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project()["version"]
    assert citation["license"] == project()["license"]


def test_the_hooks_before_a_commit_are_programs_of_the_environment() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    development = " ".join(project()["optional-dependencies"]["dev"])
    for hook in repository["hooks"]:
        program = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert {"lint-imports": "import-linter"}.get(program, program) in development


def test_forms_for_issues_have_what_a_forge_asks_for() -> None:
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        if path.name != "config.yml":
            assert form.keys() >= {"name", "description", "body"}
            assert all(part["attributes"]["label"] for part in form["body"])


def test_the_glossary_is_short() -> None:
    glossary = (ROOT / "CONTRIBUTING.md").read_text().split("## Glossary")[1]
    terms = re.findall(r"^\| ([^|]+) \|", glossary, re.MULTILINE)[2:]
    assert 20 < len(terms) <= 40
    assert terms == sorted(terms, key=lambda term: term.replace("+", "!").lower())
