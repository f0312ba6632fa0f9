from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.issuer.settings import (
    LoginSettings,
    VaultSettings,
    check_vault,
    kubernetes_token_file,
    vault_settings,
)
from policies.errors import ConfigError


def test_vault_in_the_environment_needs_a_role_to_be_meant() -> None:
    assert vault_settings({"VAULT_ADDR": "http://v:8200"}) is None
    assert vault_settings({"LICTOR_VAULT_ROLE": "mesh"}) is None


def test_the_environment_is_read() -> None:
    found = vault_settings(
        {
            "VAULT_ADDR": "https://v:8200",
            "VAULT_NAMESPACE": "team",
            "LICTOR_VAULT_ROLE": "mesh",
            "LICTOR_VAULT_MOUNT": "pki",
            "LICTOR_VAULT_AUTH": "jwt",
            "LICTOR_VAULT_AUTH_ROLE": "web",
            "LICTOR_VAULT_JWT_FILE": "/run/jwt",
        }
    )
    assert found is not None
    assert (found.mount, found.role, found.namespace) == ("pki", "mesh", "team")
    assert (found.login.method, found.login.role, found.login.path) == ("jwt", "web", "jwt")


@pytest.mark.parametrize(
    ("login", "missing"),
    [
        (LoginSettings("approle"), {"role_id_file", "secret_id_file"}),
        (LoginSettings("jwt"), {"jwt_file", "role"}),
        (LoginSettings("kubernetes"), {"role"}),
        (LoginSettings("cert"), {"cert_file", "key_file"}),
        (LoginSettings("token"), {"token_file"}),
        (LoginSettings("token", token="x"), set()),
    ],
)
def test_each_method_says_what_it_needs(login: LoginSettings, missing: set[str]) -> None:
    problems = check_vault(VaultSettings("http://v:8200", login=login), "vault")
    assert {problem.where.rpartition(".")[2] for problem in problems} == missing


def test_a_wrong_address_method_or_ca_is_told(tmp_path: Path) -> None:
    settings = VaultSettings("v:8200", ca_file=str(tmp_path / "none"), login=LoginSettings("magic"))
    told = [problem.where for problem in check_vault(settings, "vault")]
    assert told == ["vault.address", "vault.ca_file", "vault.auth.method"]
    with pytest.raises(ConfigError):
        vault_settings({"VAULT_ADDR": "nonsense", "LICTOR_VAULT_ROLE": "mesh", "LICTOR_VAULT_AUTH": "token"})


def test_no_token_is_shown() -> None:
    assert "s3cret" not in repr(LoginSettings("token", token="s3cret"))


def test_the_service_accounts_token_has_its_usual_place() -> None:
    assert kubernetes_token_file(LoginSettings("kubernetes")).endswith("/serviceaccount/token")
    assert kubernetes_token_file(LoginSettings("kubernetes", jwt_file="/x")) == "/x"
