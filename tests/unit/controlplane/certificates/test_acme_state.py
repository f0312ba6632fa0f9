from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.certificates.acme_state import Account, AcmeState
from harness.certificates import Authority, Mistakes
from policies.edge.acme import AcmeCertificate
from policies.errors import BadServerCertificate, IssuerUnreachable

CA = Authority()


def state(folder: Path, *names: str, directory: str = "https://ca/directory") -> AcmeState:
    return AcmeState(AcmeCertificate(directory, names or ("web.com",), str(folder / "state")))


def test_nothing_is_kept_at_first(tmp_path: Path) -> None:
    assert state(tmp_path).account() is None
    assert state(tmp_path).certificate() is None


def test_what_is_kept_is_there_for_the_next_process_and_for_its_owner_alone(tmp_path: Path) -> None:
    made, account = CA.server("web.com"), Account("https://ca/acct/1", {"kty": "EC"})
    with state(tmp_path).alone() as free:
        assert free
        state(tmp_path).keep_account(account)
        state(tmp_path).keep_certificate(made.chain_pem, made.key_pem)
    kept = state(tmp_path).certificate()
    assert kept is not None
    assert (kept.chain_pem, kept.key_pem) == (made.chain_pem, made.key_pem)
    assert state(tmp_path).account() == account
    files = sorted((tmp_path / "state").iterdir())
    assert len(files) == 3
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert "kty" not in repr(account)


def test_another_ca_or_other_names_have_files_of_their_own(tmp_path: Path) -> None:
    made = CA.server("web.com")
    with state(tmp_path).alone():
        state(tmp_path).keep_certificate(made.chain_pem, made.key_pem)
        state(tmp_path).keep_account(Account("https://ca/acct/1", {}))
    assert state(tmp_path, directory="https://other/directory").certificate() is None
    assert state(tmp_path, directory="https://other/directory").account() is None
    assert state(tmp_path, "web.com", "www.web.com").certificate() is None
    assert state(tmp_path, "web.com", "www.web.com").account() is not None


@pytest.mark.parametrize("wrong", ["names", "ended", "key"])
def test_what_was_not_ordered_is_not_kept(tmp_path: Path, wrong: str) -> None:
    ended = Mistakes(starts=timedelta(hours=-2), ends=timedelta(hours=-1))
    made = CA.server("other.com" if wrong == "names" else "web.com", mistakes=ended if wrong == "ended" else Mistakes())
    key = CA.server("web.com").key_pem if wrong == "key" else made.key_pem
    with state(tmp_path).alone(), pytest.raises(BadServerCertificate):
        state(tmp_path).keep_certificate(made.chain_pem, key)
    assert state(tmp_path).certificate() is None


def test_one_holds_the_lock(tmp_path: Path) -> None:
    with state(tmp_path).alone() as first:
        assert first
        with state(tmp_path).alone() as second:
            assert not second
    with state(tmp_path).alone() as third:
        assert third


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"uri": 1}', '"text"', "17", "\xff"])
def test_a_file_that_holds_something_else_is_named_and_not_overwritten(tmp_path: Path, content: str) -> None:
    made = CA.server("web.com")
    with state(tmp_path).alone():
        state(tmp_path).keep_account(Account("https://ca/acct/1", {}))
        state(tmp_path).keep_certificate(made.chain_pem, made.key_pem)
    for file in (tmp_path / "state").glob("*.json"):
        file.write_text(content, encoding="latin-1")
    for read in (state(tmp_path).account, state(tmp_path).certificate):
        with pytest.raises(IssuerUnreachable, match=str(tmp_path)):
            read()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(IssuerUnreachable, match="state: "), state(tmp_path).alone():
        pass


@pytest.mark.parametrize("mode", [0o710, 0o720, 0o740, 0o701, 0o702, 0o704, 0o755, 0o777])
def test_a_folder_that_is_open_to_others_is_not_used(tmp_path: Path, mode: int) -> None:
    made = CA.server("web.com")
    with state(tmp_path).alone():
        state(tmp_path).keep_certificate(made.chain_pem, made.key_pem)
    (tmp_path / "state").chmod(mode)
    with pytest.raises(IssuerUnreachable, match=f"{tmp_path}/state: .*{mode:04o}.*chmod 700"):
        state(tmp_path).certificate()
    with pytest.raises(IssuerUnreachable, match="chmod 700"), state(tmp_path).alone():
        pass
    (tmp_path / "state").chmod(0o700)
    assert state(tmp_path).certificate() is not None


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o602])
def test_a_key_that_is_open_to_others_is_not_used(tmp_path: Path, mode: int) -> None:
    made = CA.server("web.com")
    with state(tmp_path).alone():
        state(tmp_path).keep_account(Account("https://ca/acct/1", {}))
        state(tmp_path).keep_certificate(made.chain_pem, made.key_pem)
    for file in (tmp_path / "state").glob("*.json"):
        file.chmod(mode)
    for read in (state(tmp_path).account, state(tmp_path).certificate):
        with pytest.raises(IssuerUnreachable, match=f"json: .*{mode:04o}.*chmod 600"):
            read()
