"""The scripts of completion: bash is really asked; fish and zsh too, where they are there."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from lictor.cli import build_parser, main
from lictor.commands.completion import ENTRIES, FILES, FOLDERS, places

PLACES = {place.path: place for place in places(build_parser())}


def script(shell: str) -> str:
    output = io.StringIO()
    with redirect_stdout(output):
        assert main(["completion", shell], {}) == 0
    return output.getvalue()


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "lictor.bash"
    file.write_text(script("bash"))
    return file


def completed(file: Path, folder: Path, *words: str) -> list[str]:
    """Return what bash offers for the last of these words."""
    program = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _lictor; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "--norc", "--noprofile", "-c", program, "bash", str(file), *words],
        capture_output=True,
        text=True,
        cwd=folder,
        check=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.stderr == ""
    return sorted(done.stdout.splitlines()) if done.stdout.strip() else []


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("lictor co", ["completion", "config"]),
        ("lictor config ", ["delete", "list", "read", "write"]),
        ("lictor config re", ["read"]),
        ("lictor intention m", ["match"]),
        ("lictor services ", ["deregister", "register"]),
        ("lictor config read -k", ["-kind"]),
        ("lictor config read --k", ["--kind"]),
        ("lictor config read -kind service-d", ["service-defaults"]),
        ("lictor config read --kind service-d", ["service-defaults"]),
        ("lictor config read -kind = service-d", ["service-defaults"]),
        ("lictor config read --kind = m", ["mesh"]),
        ("lictor config list -stale -kind ter", ["terminating-gateway"]),
        ("lictor config write -cas sp", ["split.hcl"]),
        ("lictor config write -ca-file sp", ["split.hcl"]),
        ("lictor config write a.hcl f", ["folder"]),
        ("lictor config write --ca-path ", ["folder"]),
        ("lictor services register -kind c", ["connect-proxy"]),
        ("lictor services register s", ["split.hcl"]),
        ("lictor services deregister -", None),
        ("lictor gateway -gateway i", ["ingress"]),
        ("lictor sidecar --issuer ", ["consul", "vault"]),
        ("lictor sidecar --config s", ["split.hcl"]),
        ("lictor completion ", ["bash", "fish", "zsh"]),
        ("lictor intention create -meta ", []),
        ("lictor config read -name x", []),
        ("lictor nonsense ", []),
    ],
)
def test_bash_completes(words: str, offered: list[str] | None, bash_script: Path, tmp_path: Path) -> None:
    (tmp_path / "split.hcl").touch()
    (tmp_path / "folder").mkdir()
    found = completed(bash_script, tmp_path, *words.split(" "))
    if words == "lictor nonsense ":
        assert "config" in found  # the word is not known, so it is passed over
    elif offered is None:
        assert {"-id", "--id", "-http-addr", "--help"} <= set(found)
    else:
        assert found == offered


def test_a_file_name_with_a_space_is_one_answer(bash_script: Path, tmp_path: Path) -> None:
    (tmp_path / "a split.hcl").touch()
    assert completed(bash_script, tmp_path, "lictor", "config", "write", "a") == ["a split.hcl"]


def test_every_flag_of_every_word_is_offered() -> None:
    for shell in ("bash", "zsh", "fish"):
        text = script(shell)
        for place in PLACES.values():
            for flag in place.flags:
                for spelling in flag.spellings:
                    bare = spelling.lstrip("-")
                    letter = "l" if spelling.startswith("--") else "s" if len(bare) == 1 else "o"
                    wanted = f"-{letter} {bare} " if shell == "fish" else spelling
                    assert wanted in text, (shell, place.path, spelling)


def test_hidden_flags_are_not_offered() -> None:
    assert "-token" not in [spelling for flag in PLACES["config list"].flags for spelling in flag.spellings]
    assert not any("=" in spelling for place in PLACES.values() for flag in place.flags for spelling in flag.spellings)


def test_what_a_flag_takes_is_known_from_how_it_is_shown() -> None:
    flags = {flag.spellings[0]: flag.values for flag in PLACES["config delete"].flags}
    assert flags["--cas"] is None
    assert flags["--filename"] == FILES
    assert flags["--ca-path"] == FOLDERS
    assert flags["--name"] == ENTRIES
    assert flags["--http-addr"] == ()
    assert "service-intentions" in (flags["--kind"] or ())
    assert PLACES["config write"].arguments == FILES
    assert PLACES["completion"].arguments == ("bash", "zsh", "fish")


def run_shell(shell: str, *arguments: str) -> str:
    program = shutil.which(shell)
    assert program is not None
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=True, timeout=30).stdout


def test_the_script_of_fish_is_what_fish_reads(tmp_path: Path) -> None:
    """Where there is no fish, what its script must hold is looked for in the text."""
    text = script("fish")
    file = tmp_path / "lictor.fish"
    file.write_text(text)
    line = "complete -c lictor -n '__lictor_at \\'config read\\'' -l kind -o kind -x -a '"
    assert line in text
    assert "complete -c lictor -n '__lictor_at \\'config write\\'' -F" in text
    assert text.count("function ") == text.count("\nend\n") == 2
    if shutil.which("fish"):
        ask = f"source {file}; complete -C 'lictor config read -kind service-d'"
        assert run_shell("fish", "--no-config", "-c", ask).split() == ["service-defaults"]


def test_the_script_of_zsh_is_what_zsh_reads(tmp_path: Path) -> None:
    """Where there is no zsh, what its script must hold is looked for in the text."""
    text = script("zsh")
    file = tmp_path / "_lictor"
    file.write_text(text)
    assert text.startswith("#compdef lictor\n")
    assert "'config read:--kind'|'config read:-kind') compadd -- 'service-defaults'" in text
    assert "'config write') _files ;;" in text
    assert text.count("case ") == text.count("esac")
    if shutil.which("zsh"):
        stand_ins = "compdef() { : }; compset() { : }; compadd() { print -r -- ${@[2,-1]} }"
        ask = f"{stand_ins}; source {file}; words=(lictor completion ''); CURRENT=3; _lictor"
        assert run_shell("zsh", "-f", "-n", str(file)) == ""
        assert run_shell("zsh", "-f", "-c", ask).split() == ["bash", "zsh", "fish"]


def test_a_text_with_quotes_stays_one_word(tmp_path: Path, bash_script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(bash_script)], check=False).returncode == 0
    assert "the agent\\'s own" in script("fish")
    assert "the agent'\\''s own" in script("zsh")


def test_it_can_be_typed_as_the_help_says() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lictor", "completion", "bash"], capture_output=True, text=True, check=True
    )
    assert done.stdout == script("bash")
