"""The compose stack agrees with the settings and the metrics it names."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.metrics import MetricWrapperBase

from pipeline import metrics
from pipeline.settings import PREFIX, Settings, load

COMPOSE = Path(__file__).resolve().parents[2] / "compose"
ONE_SHOT = {"init"}
PROFILES = ("cpu", "gpu", "observability")
ALERTS = {
    "LagGrowing",
    "LagSecondsHigh",
    "ClassifierErrors",
    "DegradedVerdicts",
    "DeadLetterRatio",
    "VerdictMixShift",
    "NoTraffic",
    "WorkerNotReady",
    "PublishErrors",
    "PolicyRefused",
    "ChainHeadsStale",
}
# What others measure: Prometheus itself, its Python client, Triton (docs/user_guide/metrics.md).
FOREIGN_METRICS = {
    "up",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "nv_inference_request_success",
    "nv_inference_queue_duration_us",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_pending_request_count",
    "nv_gpu_utilization",
    "nv_gpu_memory_used_bytes",
    "nv_gpu_memory_total_bytes",
}
FOREIGN_LABELS = {"instance", "job", "le", "gpu_uuid", "id", "version", "digest"}
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
    "info": ("_info",),
}
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
MATCHERS = re.compile(r"\{([^}]*)\}")
NAME = re.compile(r"(?<![\w:$.])[a-zA-Z_:][\w:]*(?!\s*\()(?![\w:])")


def _yaml(*parts: str) -> Any:
    return yaml.safe_load(COMPOSE.joinpath(*parts).read_text())


STACK = _yaml("compose.yaml")
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
RULES = [rule for group in _yaml("prometheus", "alerts.yml")["groups"] for rule in group["rules"]]
ALERT_RULES = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
DASHBOARD = json.loads((COMPOSE / "grafana" / "dashboards" / "sluice.json").read_text())


def _collectors() -> list[MetricWrapperBase]:
    return [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]


def _declared() -> set[str]:
    """Every series name that pipeline/metrics.py gives rise to."""
    return {
        described.name + suffix
        for collector in _collectors()
        for described in collector.describe()
        for suffix in SUFFIXES[described.type]
    }


def _labels() -> set[str]:
    return {label for collector in _collectors() for label in collector._labelnames}


def _dashboard_expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (annotation["expr"] for annotation in DASHBOARD["annotations"]["list"])
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield re.sub(
                r"label_values\((\w+), (\w+)\)", r"sum by (\2) (\1)", variable["definition"]
            )


def _expressions() -> list[str]:
    return [*(rule["expr"] for rule in RULES), *_dashboard_expressions()]


def _names_in(expression: str) -> set[str]:
    """The series an expression reads: what is left without labels, ranges and functions."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\[[^]]*\]", "", MATCHERS.sub("", GROUPING.sub("", bare)))
    bare = re.sub(r"\b\d[\w.]*", "", bare)
    return set(NAME.findall(bare)) - {"and", "or", "unless", "offset", "bool"}


def _labels_in(expression: str) -> set[str]:
    groups = (name.strip() for found in GROUPING.findall(expression) for name in found.split(","))
    bare = re.sub(r'"[^"]*"', "", expression)
    matched = re.findall(r"(\w+)\s*[=!]", " ".join(MATCHERS.findall(bare)))
    return {*filter(None, groups), *matched}


def _settings_in(environment: dict[str, Any]) -> dict[str, str]:
    """A service's SLUICE_ variables with their defaults filled in."""
    filled = {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(v)) for name, v in environment.items()}
    return {name: value for name, value in filled.items() if name.startswith(PREFIX)}


def _seconds(duration: str) -> float:
    found = re.fullmatch(r"(\d+)s", duration)
    assert found, duration
    return float(found[1])


def _run(*command: str, cwd: Path = COMPOSE, **environment: str) -> None:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_file_has_no_version_key() -> None:
    """Compose ignores `version` and warns about it."""
    assert "version" not in STACK


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned(name: str) -> None:
    """A tag names one release: it has a digit and is not `latest`."""
    _, _, tag = SERVICES[name]["image"].rpartition("/")[2].partition(":")
    assert tag != "latest"
    assert re.search(r"\d", tag), f"{SERVICES[name]['image']} has no pinned tag"


@pytest.mark.parametrize("path", sorted(COMPOSE.glob("*.Dockerfile")), ids=lambda path: path.name)
def test_every_base_image_is_pinned(path: Path) -> None:
    """A build starts from a release, and Triton's from the same one as profile gpu."""
    bases = re.findall(r"^FROM (\S+)", path.read_text(), re.MULTILINE)
    assert bases
    assert all(re.search(r":\S*\d+\.\d+", base) for base in bases)
    if "triton" in path.name:
        assert bases == [SERVICES["triton-gpu"]["image"]]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_only(name: str) -> None:
    """Nothing of this stack is reachable from another host."""
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))


@pytest.mark.parametrize("name", sorted(set(SERVICES) - ONE_SHOT))
def test_every_lasting_service_has_a_health_check(name: str) -> None:
    """Whoever depends on a service can wait for it."""
    assert SERVICES[name]["healthcheck"]["test"]


@pytest.mark.parametrize("name", SERVICES)
def test_dependencies_wait_for_what_they_need(name: str) -> None:
    """A one-shot service must have ended well, any other be healthy."""
    for other, wanted in SERVICES[name].get("depends_on", {}).items():
        ended = "service_completed_successfully"
        assert wanted["condition"] == (ended if other in ONE_SHOT else "service_healthy")
        assert (
            not SERVICES[other].get("profiles")
            or "profiles" in SERVICES[name]
            or (wanted["required"] is False)
        )


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_gains_privileges(name: str) -> None:
    """Every container runs with no-new-privileges."""
    assert "no-new-privileges:true" in SERVICES[name]["security_opt"]


@pytest.mark.parametrize("name", ["init", "worker"])
def test_our_own_containers_are_read_only_and_without_rights(name: str) -> None:
    """They write to /tmp only, have no capability and do not run as root."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert re.search(r"^USER [1-9]\d+", (COMPOSE / "worker.Dockerfile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", ["init", "worker"])
def test_settings_exist_and_are_valid(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every SLUICE_ variable is a key of a section, and the values pass validation."""
    environment = _settings_in(SERVICES[name]["environment"])
    values: dict[str, dict[str, str]] = {}
    for variable, value in environment.items():
        section, _, key = variable.removeprefix(PREFIX).lower().partition("__")
        assert section in Settings.model_fields, variable
        annotation: Any = Settings.model_fields[section].annotation
        assert key in annotation.model_fields, variable
        values.setdefault(section, {})[key] = value
    monkeypatch.setenv("SLUICE_CONFIG", _empty_file(tmp_path))
    settings = load(values)
    assert settings.worker.drain_s + 10 < _seconds(SERVICES["worker"]["stop_grace_period"])


def _empty_file(folder: Path) -> str:
    path = folder / "empty.toml"
    path.touch()
    return str(path)


def test_the_example_environment_offers_only_what_compose_reads() -> None:
    """A variable in .env.example that nothing reads would mislead."""
    offered = set(re.findall(r"^#?(\w+)=", (COMPOSE / ".env.example").read_text(), re.MULTILINE))
    read = set(re.findall(r"\$\{(\w+):-", (COMPOSE / "compose.yaml").read_text()))
    assert offered - {"COMPOSE_PROFILES"} <= read
    assert {name for name in read if name.startswith(PREFIX)} <= offered


def test_this_host_reaches_the_stack_where_its_ports_are_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """host.toml, which the quick start has you name, leads to Kafka, registry and Triton."""
    start = re.findall(r"```\n(.*?)```", (COMPOSE / "README.md").read_text(), re.DOTALL)[0]
    assert "export SLUICE_CONFIG=compose/host.toml\n" in start
    monkeypatch.setenv("SLUICE_CONFIG", str(COMPOSE / "host.toml"))
    settings = load()
    named = {
        "kafka": settings.kafka.bootstrap_servers,
        "registry": (settings.registry.url or "").removeprefix("http://"),
        "triton-cpu": settings.triton.url,
    }
    for service, address in named.items():
        port = re.sub(r"\$\{\w+:-(\d+)\}", r"\1", SERVICES[service]["ports"][0])
        assert port.startswith(f"{address}:"), service


def test_no_variable_of_the_host_s_settings_reaches_the_workers() -> None:
    """What the quick start exports is not read by compose, where addresses are others."""
    assert "SLUICE_CONFIG" not in (COMPOSE / "compose.yaml").read_text()


def test_both_tritons_answer_to_the_name_that_workers_use() -> None:
    """Changing the profile changes no setting."""
    host, _, port = _settings_in(SERVICES["worker"]["environment"])["SLUICE_TRITON__URL"].partition(
        ":"
    )
    for name in ("triton-cpu", "triton-gpu"):
        assert host in SERVICES[name]["networks"]["default"]["aliases"]
        assert SERVICES[name]["ports"][0].endswith(f":{port}")


def test_prometheus_asks_workers_where_they_listen() -> None:
    """Its scrape port is the worker's."""
    port = SERVICES["worker"]["environment"]["SLUICE_WORKER__HTTP_PORT"]
    jobs = {job["job_name"]: job for job in _yaml("prometheus", "prometheus.yml")["scrape_configs"]}
    assert jobs["sluice-worker"]["dns_sd_configs"][0]["port"] == port


@pytest.mark.parametrize("expression", _expressions())
def test_expressions_read_only_metrics_and_labels_that_exist(expression: str) -> None:
    """Rules and dashboard name series from pipeline/metrics.py, recordings or a known list."""
    names = _names_in(expression)
    assert names
    assert names <= _declared() | RECORDED | FOREIGN_METRICS
    assert _labels_in(expression) <= _labels() | FOREIGN_LABELS


def test_the_names_in_an_expression_are_found() -> None:
    """The check above sees a wrong name and a wrong label."""
    expression = 'sum by (kind) (rate(wrong_total{odd="x{y}"}[5m] offset 1h)) > 3 and 1e6 * up'
    assert _names_in(expression) == {"wrong_total", "up"}
    assert _labels_in(expression) == {"kind", "odd"}


def test_every_alert_is_there_and_leads_to_its_runbook() -> None:
    """Each rule says what happened and which section of the README tells what to do."""
    readme = (COMPOSE / "README.md").read_text()
    assert set(ALERT_RULES) == ALERTS
    for name, rule in ALERT_RULES.items():
        annotations = rule["annotations"]
        assert annotations["summary"]
        assert annotations["description"]
        assert annotations["runbook_url"] == f"compose/README.md#{name.lower()}"
        assert f"\n### {name}\n" in readme
        assert rule["labels"]["severity"] in {"warning", "critical"}


def test_every_alert_is_tested() -> None:
    """alerts.test.yml makes each alert fire."""
    fired = {
        case["alertname"]
        for test in _yaml("prometheus", "alerts.test.yml")["tests"]
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    assert fired == ALERTS


def test_the_dashboard_is_provisioned_with_a_fixed_address() -> None:
    """Its uid and its data source are those that links and provisioning use."""
    source = _yaml("grafana", "provisioning", "datasources", "prometheus.yml")["datasources"][0]
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert DASHBOARD["uid"] == "sluice-overview"
    assert variables["datasource"]["current"]["value"] == source["uid"]
    queried = [panel["datasource"]["uid"] for panel in DASHBOARD["panels"] if "targets" in panel]
    assert set(queried) == {"${datasource}"}


def test_the_dashboard_has_one_row_for_each_question() -> None:
    """Panels have ids of their own and stand under a question."""
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == [
        "Is it working?",
        "How fast?",
        "Where is the time?",
        "What does it decide?",
        "Capacity",
    ]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("profile", ["", *PROFILES, "*"])
def test_docker_compose_accepts_the_file(profile: str) -> None:
    """`docker compose config` finds nothing wrong, with any profile."""
    docker = shutil.which("docker")
    if (
        not docker
        or subprocess.run(
            [docker, "compose", "version"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("there is no docker compose here")
    _run(docker, "compose", "-f", "compose.yaml", "config", "-q", COMPOSE_PROFILES=profile)


@pytest.mark.parametrize("check", [("check", "rules", "alerts.yml"), ("test", "rules")])
def test_promtool_accepts_the_rules(check: tuple[str, ...]) -> None:
    """`promtool` parses the rules, and they fire as alerts.test.yml says."""
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("there is no promtool here")
    arguments = check if len(check) == 3 else (*check, "alerts.test.yml")
    _run(promtool, *arguments, cwd=COMPOSE / "prometheus")
