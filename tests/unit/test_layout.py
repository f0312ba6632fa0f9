"""The tree keeps its promises: no Python beside the configuration, tests beside the code, nothing of one machine."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("policies", "dataplane", "controlplane", "sidecar", "gateway", "lictor")
# Judged through real sockets or real servers instead of by a file of their own.
ELSEWHERE = {
    "policies/table.py": "policies/test_compiler.py",
    "policies/outbounds.py": "policies/test_compiler.py",
    "policies/watches.py": "policies/test_snapshot.py",
    "policies/updates.py": "policies/test_snapshot.py",
    "policies/reducer.py": "policies/test_snapshot.py",
    "dataplane/downstream.py": "shell/test_http.py",
    "dataplane/states.py": "shell/test_http.py",
    "dataplane/serve.py": "shell/test_live.py",
    "dataplane/welcomes.py": "shell/test_live.py",
    "dataplane/upstream.py": "shell/test_http.py",
    "dataplane/pool.py": "shell/test_circuit.py",
    "dataplane/pools.py": "shell/test_balancing.py",
    "dataplane/circuits.py": "shell/test_circuit.py",
    "dataplane/outliers.py": "shell/test_outliers.py",
    "dataplane/inbound.py": "shell/test_http.py",
    "dataplane/entrance.py": "shell/test_live.py",
    "dataplane/egress/doors.py": "shell/test_egress.py",
    "dataplane/egress/outside.py": "shell/test_egress.py",
    "dataplane/credentials.py": "shell/test_egress.py",
    "dataplane/attempts.py": "shell/test_retries.py",
    "dataplane/outbound.py": "shell/test_balancing.py",
    "dataplane/revocation.py": "shell/test_live.py",
    "dataplane/tcp.py": "shell/test_tcp.py",
    "dataplane/edge/passthrough.py": "shell/test_passthrough.py",
    "dataplane/edge/requests.py": "shell/test_edge.py",
    "dataplane/edge/listeners.py": "shell/test_edge.py",
    "dataplane/edge/guests.py": "shell/test_edge.py",
    "dataplane/edge/slow_clients.py": "shell/test_edge.py",
    "policies/protection.py": "unit/gateway/test_protection.py",
    "dataplane/peek.py": "unit/dataplane/edge/test_client_hello.py",
    "dataplane/dialling.py": "shell/test_origination.py",
    "dataplane/egress/dialling.py": "shell/test_origination.py",
    "dataplane/egress/forward_proxy.py": "shell/test_forward_proxy.py",
    "dataplane/tls_transport.py": "shell/test_tls.py",
    "controlplane/consul/catalog.py": "conformance/test_catalog.py",
    "controlplane/consul/client.py": "conformance/test_catalog.py",
    "controlplane/consul/paths.py": "conformance/test_catalog.py",
    "controlplane/consul/default_action.py": "conformance/test_authorize.py",
    "controlplane/follower.py": "conformance/test_follower.py",
    "controlplane/issuer/vault.py": "conformance/test_vault_issuer.py",
    "controlplane/certificates/vault.py": "conformance/test_edge_certificates.py",
    "controlplane/certificates/sources.py": "conformance/test_edge_certificates.py",
    "controlplane/certificates/acme_client.py": "conformance/test_acme.py",
    "controlplane/issuer/session.py": "conformance/test_vault_issuer.py",
    "controlplane/issuer/renewal.py": "conformance/test_vault_issuer.py",
    "controlplane/issuer/login.py": "conformance/test_vault_issuer.py",
    "controlplane/issuer/consul.py": "conformance/test_consul_issuer.py",
    "sidecar/process.py": "conformance/test_failures.py",
    "sidecar/generations.py": "conformance/test_failures.py",
    "sidecar/introduction.py": "conformance/test_drop_in.py",
    "sidecar/membership.py": "conformance/test_drop_in.py",
    "sidecar/patience.py": "conformance/test_failures.py",
    "sidecar/sources.py": "conformance/test_failures.py",
    "sidecar/admin.py": "conformance/test_drop_in.py",
    "sidecar/settings.py": "unit/sidecar/test_config.py",
    "lictor/flags.py": "unit/lictor/test_cli.py",
    "lictor/commands/agent.py": "conformance/commands/test_agent.py",
    "lictor/commands/config.py": "conformance/commands/test_entry_files.py",
    "lictor/commands/intention.py": "conformance/commands/test_invocations.py",
    "lictor/commands/services.py": "conformance/commands/test_service_files.py",
    "lictor/commands/dev.py": "conformance/test_dev_server.py",
    "lictor/commands/up.py": "conformance/test_up.py",
    "lictor/dev/faults.py": "conformance/test_dev_server.py",
    "lictor/dev/server.py": "conformance/test_dev_server.py",
    "lictor/dev/mesh.py": "conformance/test_changes.py",
    "lictor/dev/consul": "conformance/test_dialogues.py",
    "lictor/dev/vault": "conformance/test_dialogues.py",
    "lictor/up/run.py": "conformance/test_up.py",
}


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return [ROOT / line for line in listed.splitlines() if (ROOT / line).is_file()]


def test_the_folders_of_consul_and_vault_hold_no_python() -> None:
    """A package named `consul` here would shadow python-consul2."""
    assert [file for folder in ("consul", "vault") for file in (ROOT / folder).rglob("*.py")] == []
    import consul.base

    assert "site-packages" in str(consul.base.__file__)


def modules() -> list[str]:
    found = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    return sorted(str(file.relative_to(ROOT)) for file in found if not file.name.startswith("__"))


@pytest.mark.parametrize("module", modules())
def test_every_module_has_its_tests(module: str) -> None:
    tests = ROOT / "tests"
    own = tests / "unit" / Path(module).parent / f"test_{Path(module).name}"
    package = tests / "unit" / f"test_{Path(module).parent.name}.py"  # of small modules that are one thing together
    elsewhere = ELSEWHERE.get(module) or ELSEWHERE.get(str(Path(module).parent), "")
    places = (own, package, tests / elsewhere, tests / "unit" / elsewhere)
    assert any(place.is_file() for place in places)


@pytest.mark.parametrize("module", modules())
def test_no_module_has_outgrown_its_reader(module: str) -> None:
    assert len((ROOT / module).read_text().splitlines()) <= 600


def test_nothing_tells_of_one_machine_or_of_a_registry() -> None:
    forbidden = re.compile(
        r"(?<![\w}])/(?:work|root)/|/home/[a-z]|pypi\.org|files\.pythonhosted|registry\.npmjs|deb\.debian|proxy\.golang"
    )
    found = [
        f"{file.relative_to(ROOT)}: {line.strip()[:80]}"
        for file in tracked()
        if file.name != Path(__file__).name and file.suffix not in {".sum", ".png"}
        for line in file.read_text(errors="replace").splitlines()
        if forbidden.search(line)
    ]
    assert found == []


def test_every_requirement_is_pinned_by_hash() -> None:
    for name in ("constraints.txt", "requirements.txt"):
        text = (ROOT / name).read_text()
        pinned = re.findall(r"^[a-z0-9._-]+(?:\[[a-z,]+\])?==", text, re.MULTILINE | re.IGNORECASE)
        assert len(pinned) > 10
        assert text.count("--hash=sha256:") >= len(pinned)
        assert "index-url" not in text


def test_the_version_is_told_once() -> None:
    import lictor

    assert f"## {lictor.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_wheel_holds_every_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {
        str(file.parent.relative_to(ROOT)).replace("/", ".") for one in PACKAGES for file in (ROOT / one).rglob("*.py")
    }
    assert set(settings["tool"]["setuptools"]["packages"]) == packages
