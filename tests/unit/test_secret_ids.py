"""vault/keep-secret-ids.sh, the orchestrator of docker compose, with a `vault` and a `wget` that do as told."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent.parent / "vault" / "keep-secret-ids.sh"
VAULT = """#!/bin/sh
echo "$VAULT_TOKEN $*" >>asked
[ ! -e away ] || exit 2
case "$*" in
*role-id) echo role ;;
*broken/secret-id) exit 2 ;;
*secret-id) echo wrapped ;;
esac
"""
WGET = """#!/bin/sh
[ ! -e away ]
"""


class Kept:
    """The script at work in a folder; the file `away` there makes Vault go away."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ready = folder, folder / "secrets" / ".ready"
        self.away = folder / "away"
        self._process: subprocess.Popen[bytes] | None = None
        for name, text in (("vault", VAULT), ("wget", WGET)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        (folder / "token").write_text("first")
        (folder / "secrets").mkdir()

    def start(self, *pairs: str) -> None:
        path = f"{self.folder}:{os.environ['PATH']}"
        environment = {"PATH": path, "VAULT_TOKEN_FILE": str(self.folder / "token"), "VAULT_ADDR": "http://vault"}
        self._process = subprocess.Popen(
            ["sh", str(SCRIPT), str(self.folder / "secrets"), *pairs], cwd=self.folder, env=environment
        )

    def asked(self) -> list[str]:
        file = self.folder / "asked"
        return file.read_text().splitlines() if file.exists() else []

    def until(self, check: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 15
        while not check():
            assert time.monotonic() < deadline, self.asked()
            time.sleep(0.02)

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(10) == 0


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    script = Kept(tmp_path)
    yield script
    script.stop()
    assert not script.ready.exists(), "who has stopped is not ready"


def test_ready_is_said_once_every_instance_has_its_secret_id_and_no_longer_than_that(kept: Kept) -> None:
    kept.start("web=web", "api-v1=api")
    kept.until(kept.ready.exists)
    for instance in ("web", "api-v1"):
        assert (kept.folder / "secrets" / instance / "role-id").read_text() == "role\n"
        assert (kept.folder / "secrets" / instance / "wrapped-secret-id").read_text() == "wrapped\n"
    kept.away.touch()
    kept.until(lambda: not kept.ready.exists())
    assert (kept.folder / "secrets" / "web" / "role-id").read_text() == "role\n", "what was good is left alone"
    kept.away.unlink()
    kept.until(kept.ready.exists)


def test_one_that_cannot_be_issued_keeps_it_from_being_ready(kept: Kept) -> None:
    kept.start("web=web", "other=broken")
    kept.until(lambda: sum("broken/secret-id" in line for line in kept.asked()) > 1)
    assert (kept.folder / "secrets" / "web" / "wrapped-secret-id").exists()
    assert not kept.ready.exists()


def test_the_token_is_renewed_and_a_new_one_in_the_file_is_taken(kept: Kept) -> None:
    kept.start("web=web")
    kept.until(kept.ready.exists)
    assert kept.asked()[0] == "first token renew"
    (kept.folder / "token").write_text("second")
    (kept.folder / "secrets" / "web" / "wrapped-secret-id").unlink()
    kept.until(lambda: any(line.startswith("second write") for line in kept.asked()))
