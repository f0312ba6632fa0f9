"""`lictor completion`: the script that completes words, flags and their values in bash, zsh and fish.

The script is written from the flags themselves, so that it cannot say another thing. Of the kept libraries argcomplete
starts Python at each key, and shtab (1.13) gives fish `-s kind`, which makes one-letter flags of Consul's `-kind`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lictor.commands.agent import Environment, say
from lictor.definitions import KINDS as SERVICE_KINDS
from lictor.flags import Words, word
from policies.entries import KINDS

_EXAMPLES = """examples:
  lictor completion bash > ~/.local/share/bash-completion/completions/lictor
  lictor completion zsh > ~/.zfunc/_lictor              a folder that is in $fpath before compinit runs
  lictor completion fish > ~/.config/fish/completions/lictor.fish
"""
FILES, FOLDERS, ENTRIES = "files", "folders", "entries"  # what a shell finds out by itself, or by asking Consul
_BY_METAVAR: Mapping[str, str | tuple[str, ...]] = {
    "FILE": FILES,
    "DIR": FOLDERS,
    "ENTRY": ENTRIES,
    "KIND": tuple(KINDS),
    "SERVICE_KIND": SERVICE_KINDS,
}
Values = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag in all its spellings. `values` is None for a switch, () where nothing can be offered."""

    spellings: tuple[str, ...]
    text: str
    values: Values | None


@dataclass(frozen=True, slots=True)
class Place:
    """What may stand after some words, such as `config write`: more words, or flags and arguments."""

    path: str
    words: Mapping[str, str]
    flags: tuple[Flag, ...]
    arguments: Values


def add_to(words: Words) -> None:
    """Add the word."""
    parser = word(words, "completion", "print the script that completes words and flags in a shell", _EXAMPLES)
    parser.add_argument("shell", choices=tuple(_SHELLS), help="whose script")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, _: Environment) -> int:
    from lictor.cli import build_parser  # noqa: PLC0415 - it imports this module

    say(_SHELLS[arguments.shell](tuple(places(build_parser()))))
    return 0


def places(parser: argparse.ArgumentParser, path: str = "") -> Iterator[Place]:
    """Yield what may stand where, the shortest paths first."""
    words: dict[str, str] = {}
    below: list[tuple[str, argparse.ArgumentParser]] = []
    flags: list[Flag] = []
    arguments: Values = ()
    for action in parser._actions:  # noqa: SLF001 - argparse tells it nowhere else
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            words = {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001
            below = list(action.choices.items())
        elif action.help != argparse.SUPPRESS:
            if action.option_strings:
                flags.append(Flag(tuple(action.option_strings), action.help or "", _values(action)))
            else:
                arguments = _values(action) or arguments
    yield Place(path, words, tuple(flags), arguments)
    for name, one in below:
        yield from places(one, f"{path} {name}".strip())


def _values(action: argparse.Action) -> Values | None:
    if action.nargs == 0:
        return None
    if action.choices is not None:
        return tuple(str(choice) for choice in action.choices)
    if action.type is Path:
        return FILES
    return _BY_METAVAR.get(str(action.metavar), ())


def _quoted(text: str) -> str:
    """Return a text as one word of bash and zsh."""
    return "'" + text.replace("'", "'\\''") + "'"


# --- bash ----------------------------------------------------------------------------------------------------------

_BASH = """\
_lictor_entries() { # the names of the entries of the kind that was typed; never expanded, they are of others
    local kind="" name i
    for ((i = 1; i < COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i]} == -kind || ${COMP_WORDS[i]} == --kind ]] || continue
        kind="${COMP_WORDS[i + 1]}"
        [[ $kind == "=" ]] && kind="${COMP_WORDS[i + 2]}"
    done
    [[ -n $kind ]] || return
    while IFS= read -r name; do
        [[ $name == "$1"* ]] && COMPREPLY+=("$(printf %q "$name")")
    done < <("${COMP_WORDS[0]}" config list -kind "$kind" 2>/dev/null)
}

_lictor_files() {
    local name
    compopt -o filenames 2>/dev/null
    while IFS= read -r name; do COMPREPLY+=("$name"); done < <(compgen "$1" -- "$2")
}

_lictor() {
    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD - 1]}" here="" word
    COMPREPLY=()
    if [[ $cur == "=" ]]; then # bash makes three words of -flag=value
        cur=""
    elif [[ $prev == "=" ]]; then
        prev="${COMP_WORDS[COMP_CWORD - 2]}"
    fi
    for word in "${COMP_WORDS[@]:1:COMP_CWORD - 1}"; do
        case "${here:+$here }$word" in
        @PATHS@) here="${here:+$here }$word" ;;
        esac
    done
    case "$here:$prev" in
@VALUES@
    esac
    case "$here:$cur" in
@FLAGS@
    esac
    case "$here" in
@ARGUMENTS@
    esac
}

complete -F _lictor lictor"""


def _bash(found: Sequence[Place]) -> str:
    def offer(values: Values) -> str:
        if values == FILES:
            return '_lictor_files -f "$cur"'
        if values == FOLDERS:
            return '_lictor_files -d "$cur"'
        if values == ENTRIES:
            return '_lictor_entries "$cur"'
        return f'COMPREPLY=($(compgen -W {_quoted(" ".join(values))} -- "$cur"))'

    def case(patterns: Sequence[str], todo: str) -> str:
        return f"    {'|'.join(patterns)}) {todo} ;;"

    values, flags, arguments = [], [], []
    for place in found:
        for flag in place.flags:
            if flag.values is not None:
                patterns = [_quoted(f"{place.path}:{spelling}") for spelling in flag.spellings]
                values.append(case(patterns, f"{offer(flag.values)}; return"))
        spellings = [spelling for flag in place.flags for spelling in flag.spellings]
        flags.append(case([f"{_quoted(f'{place.path}:-')}*"], f"{offer(spellings)}; return"))
        arguments.append(case([_quoted(place.path)], offer(tuple(place.words) or place.arguments)))
    return _filled(
        _BASH,
        PATHS="|".join(_quoted(place.path) for place in found if place.path),
        VALUES="\n".join(values),
        FLAGS="\n".join(flags),
        ARGUMENTS="\n".join(arguments),
    )


def _filled(text: str, **parts: str) -> str:
    for name, part in parts.items():
        text = text.replace(f"@{name}@", part)
    return text


# --- zsh -----------------------------------------------------------------------------------------------------------

_ZSH = """\
#compdef lictor

_lictor_entries() { # the names of the entries of the kind that was typed
    local kind="" i
    local -a names
    for ((i = 2; i < CURRENT; i++)); do
        case "${words[i]}" in
        -kind|--kind) kind="${words[i + 1]}" ;;
        -kind=*|--kind=*) kind="${words[i]#*=}" ;;
        esac
    done
    [[ -n $kind ]] || return 1
    names=(${(f)"$(${words[1]} config list -kind "$kind" 2>/dev/null)"})
    compadd -a names
}

_lictor() {
    local here="" word prev="${words[CURRENT - 1]}"
    local -a offered
    for word in "${(@)words[2,CURRENT - 1]}"; do
        case "${here:+$here }$word" in
        @PATHS@) here="${here:+$here }$word" ;;
        esac
    done
    if [[ ${words[CURRENT]} == -*=* ]]; then
        prev="${words[CURRENT]%%=*}"
        compset -P '*='
    fi
    case "$here:$prev" in
@VALUES@
    esac
    if [[ ${words[CURRENT]} == -* ]]; then
        case "$here" in
@FLAGS@
        esac
        _describe -o flag offered
        return
    fi
    case "$here" in
@ARGUMENTS@
    esac
}

if [[ ${funcstack[1]} == _lictor ]]; then
    _lictor "$@"
else
    compdef _lictor lictor
fi"""


def _zsh(found: Sequence[Place]) -> str:
    def offer(values: Values) -> str:
        if values in {FILES, FOLDERS}:
            return "_files" if values == FILES else "_files -/"
        if values == ENTRIES:
            return "_lictor_entries"
        return f"compadd -- {' '.join(_quoted(value) for value in values)}" if values else "return 1"

    def described(pairs: Sequence[tuple[str, str]]) -> str:
        return f"offered=({' '.join(_quoted(f'{name}:{text}') for name, text in pairs)})"

    values, flags, arguments = [], [], []
    for place in found:
        for flag in place.flags:
            if flag.values is not None:
                patterns = "|".join(_quoted(f"{place.path}:{spelling}") for spelling in flag.spellings)
                values.append(f"    {patterns}) {offer(flag.values)}; return ;;")
        spelled = [(spelling, flag.text) for flag in place.flags for spelling in flag.spellings]
        flags.append(f"        {_quoted(place.path)}) {described(spelled)} ;;")
        words = f"{described(tuple(place.words.items()))}; _describe word offered"
        arguments.append(f"    {_quoted(place.path)}) {words if place.words else offer(place.arguments)} ;;")
    return _filled(
        _ZSH,
        PATHS="|".join(_quoted(place.path) for place in found if place.path),
        VALUES="\n".join(values),
        FLAGS="\n".join(flags),
        ARGUMENTS="\n".join(arguments),
    )


# --- fish ----------------------------------------------------------------------------------------------------------

_FISH = """\
function __lictor_at -d 'whether the words typed so far lead to a place'
    set -l here ''
    for word in (commandline -opc)[2..-1]
        set -l next (string trim -- "$here $word")
        contains -- "$next" @PATHS@; and set here $next
    end
    test "$here" = "$argv[1]"
end

function __lictor_entries -d 'the names of the entries of the kind that was typed'
    set -l kind ''
    set -l typed (commandline -opc)
    for at in (seq (count $typed))
        switch $typed[$at]
            case -kind --kind
                set kind $typed[(math $at + 1)]
            case '-kind=*' '--kind=*'
                set kind (string replace -r '^[^=]*=' '' -- $typed[$at])
        end
    end
    test -n "$kind"; and $typed[1] config list -kind $kind 2>/dev/null
end

complete -c lictor -f
@LINES@"""


def _fish(found: Sequence[Place]) -> str:
    def quoted(text: str) -> str:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    def offer(values: Values) -> str:
        if values == FILES:
            return "-r -F"
        if values == FOLDERS:
            return "-x -a '(__fish_complete_directories)'"
        if values == ENTRIES:
            return "-x -a '(__lictor_entries)'"
        return f"-x -a {quoted(' '.join(values))}"

    lines = []
    for place in found:
        at = f"complete -c lictor -n {quoted(f'__lictor_at {quoted(place.path)}')}"
        lines += [f"{at} -a {name} -d {quoted(text)}" for name, text in place.words.items()]
        if place.arguments:
            lines.append(f"{at} {offer(place.arguments).removeprefix('-r ').removeprefix('-x ')}")
        for flag in place.flags:
            names = " ".join(_fish_name(spelling) for spelling in flag.spellings)
            taken = "" if flag.values is None else f" {offer(flag.values)}"
            lines.append(f"{at} {names}{taken} -d {quoted(flag.text)}")
    paths = " ".join(quoted(place.path) for place in found if place.path)
    return _filled(_FISH, PATHS=paths, LINES="\n".join(lines))


def _fish_name(spelling: str) -> str:
    """Return how fish is told of a flag: -s h, -o kind (one dash, many letters), -l kind."""
    bare = spelling.lstrip("-")
    return f"-{'l' if spelling.startswith('--') else 's' if len(bare) == 1 else 'o'} {bare}"


_SHELLS: Mapping[str, Callable[[Sequence[Place]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
