"""Contexts from the operator's files, and which certificate is the right one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dataplane.egress.origination import Originations, build_context, check_name
from harness.certificates import Authority
from harness.outside import write_leaf, write_root
from policies.egress.links import Origination
from policies.errors import ConnectFailed, IdentityError


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


# --- whose certificate ---------------------------------------------------------------------------------------------


def names(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"subject": ((("commonName", "cn.example.com"),),), "subjectAltName": pairs}


@pytest.mark.parametrize(
    ("kind", "value", "sni"),
    [
        ("DNS", "api.example.com", "api.example.com"),
        ("DNS", "API.example.com", "api.EXAMPLE.com"),
        ("DNS", "*.example.com", "api.example.com"),
        ("IP Address", "192.0.2.1", "192.0.2.1"),
        ("IP Address", "2001:DB8:0:0:0:0:0:1\n", "2001:db8::1"),
        ("URI", "spiffe://other/api", "spiffe://other/api"),
        ("email", "ops@example.com", "ops@example.com"),
    ],
)
def test_a_certificate_for_the_name_passes(kind: str, value: str, sni: str) -> None:
    check_name(names(("DNS", "first.example.com"), (kind, value)), sni)


@pytest.mark.parametrize(
    ("kind", "value", "sni"),
    [
        ("DNS", "api.example.com", "api.example.org"),
        ("DNS", "*.example.com", "example.com"),
        ("DNS", "*.example.com", "a.b.example.com"),
        ("DNS", "a*.example.com", "api.example.com"),
        ("DNS", "*.com", ".com"),
        ("DNS", "*", "localhost"),
        ("DNS", "192.0.2.1", "192.0.2.2"),
        ("IP Address", "192.0.2.1", "192.0.2.2"),
        ("URI", "spiffe://other/API", "spiffe://other/api"),
        ("email", "*@example.com", "ops@example.com"),
        ("DirName", "api.example.com", "api.example.com"),
    ],
)
def test_a_certificate_for_another_name_does_not(kind: str, value: str, sni: str) -> None:
    with pytest.raises(IdentityError) as caught:
        check_name(names((kind, value)), sni)
    assert caught.value.reason == "wrong_name"


def test_a_common_name_is_none() -> None:
    for certificate in (names(), {}, None):
        with pytest.raises(IdentityError):
            check_name(certificate, "cn.example.com")


# --- the files -----------------------------------------------------------------------------------------------------


async def test_the_same_files_are_read_once(tmp_path: Path, authority: Authority) -> None:
    origination, held = Origination(write_root(tmp_path, authority)), Originations()
    first = await held.context(origination)
    assert await held.context(origination) is first
    assert held.problems == ()


async def test_who_comes_while_the_files_are_read_waits_for_them(tmp_path: Path, authority: Authority) -> None:
    origination, held = Origination(write_root(tmp_path, authority)), Originations()
    held.follow({origination})
    await asyncio.sleep(0)
    first, second = await asyncio.gather(held.context(origination), held.context(origination))
    assert first is second


async def test_changed_files_make_another_context(tmp_path: Path, authority: Authority) -> None:
    origination, held = Origination(write_root(tmp_path, authority)), Originations()
    first = await held.context(origination)
    other = Authority("another root")
    (tmp_path / "new").write_text(other.pem)
    (tmp_path / "new").rename(tmp_path / "ca.pem")
    second = await held.context(origination)
    assert second is not first
    assert second.get_ca_certs()[0]["subject"] == ((("commonName", "another root"),),)
    assert first.get_ca_certs()[0]["subject"] == ((("commonName", authority.name),),), "who has it goes on with it"


async def test_files_that_other_people_may_read_now_are_read_again(tmp_path: Path, authority: Authority) -> None:
    origination, held = Origination(write_root(tmp_path, authority)), Originations()
    first = await held.context(origination)
    (tmp_path / "ca.pem").chmod(0o400)
    assert await held.context(origination) is not first


@pytest.mark.parametrize("content", ["", "not a certificate", "-----BEGIN CERTIFICATE-----\nMIIB"])
async def test_a_half_written_file_leaves_the_last_good_one_and_is_told(
    tmp_path: Path, authority: Authority, content: str
) -> None:
    origination, held = Origination(write_root(tmp_path, authority)), Originations()
    good = await held.context(origination)
    (tmp_path / "ca.pem").write_text(content)
    assert await held.context(origination) is good
    assert "the last good files stay in use" in str(held.problems[0])
    (tmp_path / "ca.pem").unlink()
    assert await held.context(origination) is good
    assert "No such file" in str(held.problems[0])
    write_root(tmp_path, authority)
    assert await held.context(origination) is not good
    assert held.problems == ()


async def test_files_that_never_were_good_keep_the_service_closed(tmp_path: Path, authority: Authority) -> None:
    origination, held = Origination(str(tmp_path / "ca.pem")), Originations()
    for _ in range(2):
        with pytest.raises(ConnectFailed, match=r"ca\.pem: No such file"):
            await held.context(origination)
    assert str(held.problems[0]).endswith("No such file or directory; closed until it can be read")
    write_root(tmp_path, authority)
    assert await held.context(origination) is not None
    assert held.problems == ()


async def test_a_certificate_and_a_key_of_another_do_not_count(tmp_path: Path, authority: Authority) -> None:
    root = write_root(tmp_path, authority)
    (cert, _), (_, key) = write_leaf(tmp_path, authority, "one"), write_leaf(tmp_path, authority, "two")
    held = Originations()
    with pytest.raises(ConnectFailed, match="belong together"):
        await held.context(Origination(root, cert, key))


async def test_what_no_table_names_is_forgotten(tmp_path: Path) -> None:
    held, gone = Originations(), Origination(str(tmp_path / "ca.pem"))
    with pytest.raises(ConnectFailed):
        await held.context(gone)
    held.follow(frozenset())
    assert held.problems == ()


async def test_files_are_read_when_a_table_names_them_and_not_only_when_somebody_calls(tmp_path: Path) -> None:
    held = Originations()
    held.follow({Origination(str(tmp_path / "ca.pem"))})
    while not held.settled:  # noqa: ASYNC110 - nobody else waits for that
        await asyncio.sleep(0.01)
    assert str(held.problems[0]).endswith("No such file or directory; closed until it can be read")
    held.close()


def test_an_encrypted_key_asks_nobody(tmp_path: Path, authority: Authority) -> None:
    from cryptography.hazmat.primitives import serialization

    cert, key = write_leaf(tmp_path, authority, "one")
    loaded = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    Path(key).write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ValueError, match="encrypted"):
        build_context(Origination(write_root(tmp_path, authority), cert, key))
