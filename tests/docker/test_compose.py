"""docker-compose.yml: the published schema, and what each container may do."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from app.auth.keys_file import read_keys
from app.catalog import Catalog
from app.settings import Settings
from app.worker.worker import LEAVE_S
from tests.docker import compose, dockerfile
from tests.docker.compose import ROOT, seconds

SERVICES: dict[str, dict[str, Any]] = compose.load()["services"]
WORKERS = ("worker", "worker-gpu", "worker-gpus")
OURS = [name for name, each in SERVICES.items() if "build" in each]


def test_it_is_what_the_compose_specification_says() -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    check = jsonschema.Draft7Validator(schema)
    assert [error.message for error in check.iter_errors(yaml.safe_load(compose.FILE.read_text()))] == []
    assert list(check.iter_errors({"services": {"a": {"imagee": "b"}}}))


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_can_do_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    user = service.get("user") or dockerfile.load()[service["build"]["target"]].user
    assert user.split(":")[0] not in ("", "0", "root")
    assert {"memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
    assert service["logging"]["options"]["max-size"]
    assert "privileged" not in service
    assert "docker.sock" not in json.dumps(service)


@pytest.mark.parametrize("name", SERVICES)
def test_it_is_known_when_it_is_well(name: str) -> None:
    service = SERVICES[name]
    target = service.get("build", {}).get("target")
    assert service.get("healthcheck") or dockerfile.load()[target].healthcheck
    for each in service["depends_on"].values() if "depends_on" in service else ():
        assert each == {"condition": "service_healthy"}


@pytest.mark.parametrize("name", OURS)
def test_it_is_given_the_time_to_drain(name: str) -> None:
    service = SERVICES[name]
    drain_s = float(service["environment"]["NAG_DRAIN_S"])
    assert seconds(service["stop_grace_period"]) >= drain_s + LEAVE_S + 10
    if name == "api":
        assert drain_s >= Settings().wait_max_s


@pytest.mark.parametrize("name", OURS)
def test_its_settings_are_settings(name: str) -> None:
    named = {key.removeprefix("NAG_").lower() for key in SERVICES[name]["environment"] if key.startswith("NAG_")}
    assert named <= set(Settings.model_fields)


def test_nothing_is_reached_from_another_machine_unless_asked() -> None:
    published = [port for each in SERVICES.values() for port in each.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert compose.load()["networks"]["queue"]["internal"] is True
    assert SERVICES["redis"]["networks"] == ["queue"]


def test_folders_mounted_from_here_exist_and_are_read_only() -> None:
    mounts = [each for service in SERVICES.values() for each in service.get("volumes", ()) if each.startswith(".")]
    assert [each for each in mounts if not each.endswith(":ro") or not (ROOT / each.split(":")[0]).exists()] == []


def test_volumes_and_secrets_are_declared() -> None:
    read = compose.load()
    used = {each.split(":")[0] for service in SERVICES.values() for each in service.get("volumes", ())}
    assert {each for each in used if not each.startswith(".")} == set(read["volumes"])
    assert {each for service in SERVICES.values() for each in service.get("secrets", ())} == set(read["secrets"])


def test_the_image_has_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {SERVICES[name]["image"] for name in OURS} == {
        f"nag-server:{version}-{target}" for target in ("cpu", "cuda")
    }
    assert all(":" in each["image"] and not each["image"].endswith(":latest") for each in SERVICES.values())


def test_a_gpu_is_asked_for_by_its_profile_alone() -> None:
    with_profile = {name: each["profiles"] for name, each in SERVICES.items() if "profiles" in each}
    assert with_profile == {"worker-gpu": ["gpu"], "worker-gpus": ["gpus"]}
    four = compose.load({"NAG_GPUS": "4"})["services"]
    for services, name, count in (
        (SERVICES, "worker-gpu", 1),
        (SERVICES, "worker-gpus", "2"),
        (four, "worker-gpus", "4"),
    ):
        devices = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert devices == [{"driver": "nvidia", "count": count, "capabilities": ["gpu"]}]
    assert compose.load({"NAG_CPU_WORKERS": "0"})["services"]["worker"]["deploy"]["replicas"] == "0"


def test_the_queue_is_on_the_disk_before_it_answers() -> None:
    command = SERVICES["redis"]["command"]
    options = dict(zip(command[2::2], command[3::2], strict=True))
    assert (options["--appendonly"], options["--appendfsync"], options["--dir"]) == ("yes", "always", "/data")
    assert options["--maxmemory-policy"] == "noeviction"  # a key that is thrown out would be a lost job


def test_prometheus_looks_where_the_others_are() -> None:
    read = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text())
    looked_at = {
        (name, each["port"])
        for job in read["scrape_configs"]
        for each in job["dns_sd_configs"]
        for name in each["names"]
    }
    workers = {(name, int(SERVICES[name]["environment"]["NAG_METRICS_PORT"])) for name in WORKERS}
    assert looked_at == {("api", 8000), *workers}
    mounted = {f"/run/secrets/{name}" for name in SERVICES["prometheus"]["secrets"]}
    assert {
        job["authorization"]["credentials_file"] for job in read["scrape_configs"] if "authorization" in job
    } == mounted
    for name in WORKERS:
        assert str(SERVICES[name]["environment"]["NAG_METRICS_PORT"]) in SERVICES[name]["healthcheck"]["test"][-1]


def test_workers_have_the_hubs_token_and_all_have_the_catalog() -> None:
    for name in WORKERS:
        assert SERVICES[name]["environment"]["HF_TOKEN_PATH"] == "/run/secrets/hf_token"
        assert "hf_token" in SERVICES[name]["secrets"]
    own = compose.load({"NAG_CATALOG": "./own.toml"})["services"]
    for name in OURS:
        target = SERVICES[name]["environment"]["NAG_CATALOG"]
        assert f"./docker/models.toml:{target}:ro" in SERVICES[name]["volumes"]
        assert f"./own.toml:{target}:ro" in own[name]["volumes"]
    catalog = Settings(catalog=ROOT / "docker" / "models.toml")
    assert Catalog.load(catalog) == Catalog.load(Settings())


def make_secrets(folder: Path, *arguments: str, **environment: str) -> str:
    script = [str(ROOT / "docker" / "secrets.sh"), *arguments]
    return subprocess.run(
        script,
        env={"PATH": "/usr/bin:/bin", "NAG_SECRETS_FOLDER": str(folder), **environment},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_secrets_are_made_once_and_are_each_there(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    shown = make_secrets(folder)
    files = {path.name: path.read_text() for path in folder.iterdir()}
    assert {Path(each["file"]).name for each in compose.load()["secrets"].values()} == set(files)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert files["redis.conf"].split()[1] in files["nag_redis_url"]
    with_them = {name: text for name, text in files.items() if name.startswith("nag_")}
    assert {name.removeprefix("nag_") for name in with_them} <= set(Settings.model_fields)
    assert Settings.model_validate({"webhook_secret": files["nag_webhook_secret"]}).webhook_secret is not None
    assert {key.id for key in read_keys(folder / "api_keys.toml")} == {"prometheus", "first"}
    assert make_secrets(folder) == ""
    assert {path.name: path.read_text() for path in folder.iterdir()} == files
    assert all(shown.split()[-1] not in text for text in files.values())
    assert files["hf_token"] == ""
    make_secrets(folder, HF_TOKEN="hf_x")
    assert (folder / "hf_token").read_text() == "hf_x"


def test_an_api_key_is_added_to_the_file_that_is_mounted(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    inode = (tmp_path / "api_keys.toml").stat().st_ino
    assert make_secrets(tmp_path, "key", "ada", "art").startswith("nag_")
    assert (tmp_path / "api_keys.toml").stat().st_ino == inode
    keys = tomllib.loads((tmp_path / "api_keys.toml").read_text())["keys"]
    assert {name: each["tenant"] for name, each in keys.items()} == {
        "prometheus": "prometheus",
        "first": "first",
        "ada": "art",
    }
    assert len({each["sha256"] for each in keys.values()}) == 3
