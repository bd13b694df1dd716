"""``docker/compose.yaml``: valid by the Compose Specification, locked down, of files and settings that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from service.http.server import GRACE_SECONDS, LAST_WORDS_SECONDS
from service.settings import load_settings
from tests.image.dockerfile import read_dockerfile

FILE = Path(__file__).parents[2] / "docker" / "compose.yaml"
IMAGE = read_dockerfile(FILE.parent / "service.Dockerfile").stage("service")
TEXT = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", FILE.read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
VOLUMES: dict[str, Any] = yaml.safe_load(TEXT)["volumes"]


def mounts(service: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """What is mounted, where, and whether it is read-only."""
    parts = [volume.split(":") for volume in service["volumes"]]
    return [(part[0], part[1], part[2:] == ["ro"]) for part in parts]


def test_it_is_valid() -> None:
    compose = PyCompose.from_yaml(TEXT)
    compose.validate()
    assert set(compose.service_names()) == {"service", "prometheus", "grafana"}


@pytest.mark.parametrize("change", [("read_only", "read_onl"), ("condition: service_healthy", "condition: happy")])
def test_what_is_not_valid_is_found(change: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="services"):
        PyCompose.from_yaml(TEXT.replace(*change))


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_locked_down(name: str) -> None:
    service = SERVICES[name]
    assert service["user"].partition(":")[0] not in ("", "0", "root")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert not {"privileged", "network_mode", "pid", "cap_add"} & service.keys()
    assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+(-cpu)?", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there_and_read_only(name: str) -> None:
    for source, target, is_read_only in mounts(SERVICES[name]):
        if source in VOLUMES:
            assert not is_read_only
        else:
            assert is_read_only, target
            assert source == "../build/bundles" or (FILE.parent / source).exists(), source


def test_settings_of_the_service_are_settings() -> None:
    service = SERVICES["service"]
    settings = load_settings({}, IMAGE.environment() | service["environment"])
    ((_, folder, _),) = mounts(service)
    assert settings.bundles
    assert all(bundle.is_relative_to(folder) for bundle in settings.bundles)
    assert service["ports"] == [f"127.0.0.1:{settings.port}:{settings.port}"]
    assert f":{settings.port}/readyz" in service["healthcheck"]["test"][-1]
    seconds = int(service["stop_grace_period"].removesuffix("s"))
    assert seconds > settings.drain_seconds + LAST_WORDS_SECONDS + GRACE_SECONDS
    assert [user.text for user in IMAGE.of("USER")] == [service["user"]]


def test_prometheus_reads_our_files_and_scrapes_the_service() -> None:
    service = SERVICES["prometheus"]
    mounted = {target: FILE.parent / source for source, target, _ in mounts(service) if source not in VOLUMES}
    options = dict(option.removeprefix("--").split("=") for option in service["command"])
    config = Path(options["config.file"])
    read = yaml.safe_load(mounted[str(config)].read_text(encoding="utf-8"))
    (scraping,) = read["scrape_configs"]
    files = [*read["rule_files"], *scraping["file_sd_configs"][0]["files"]]
    assert {str(config.parent / file) for file in files} == mounted.keys() - {str(config)}
    (group,) = yaml.safe_load(mounted[str(config.parent / "targets.yaml")].read_text(encoding="utf-8"))
    port = load_settings({}, IMAGE.environment() | {"XMC_BUNDLES": "/m"}).metrics_port
    assert group["targets"] == [f"service:{port}"]


def test_grafana_has_the_dashboard_and_asks_the_prometheus_beside_it() -> None:
    places = {
        target: FILE.parent / source for source, target, _ in mounts(SERVICES["grafana"]) if source not in VOLUMES
    }
    provisioning = places["/etc/grafana/provisioning"]
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "xmcserve.yaml").read_text())["providers"]
    scraping = yaml.safe_load((FILE.parent / "monitoring" / "prometheus.yaml").read_text())["global"]
    board = f"{provider['options']['path']}/xmcserve.json"
    assert json.loads(places[board].read_text())["uid"] == "xmcserve"
    assert SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == board
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == scraping["scrape_interval"]
