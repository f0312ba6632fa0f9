"""Invocations: each line does and says what the stock command line does and says.

What may differ stands in DIFFERENT, with its reason.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from harness.command_lines import BOTH, FILES, HTTP, Ran, bare, forget, ours, registered
from harness.servers import ConsulServer

# What differs in exit code, output or silence, and why.
DIFFERENT = {
    "config write a.hcl b.hcl": "ours writes several files",
    "config write a.hcl -cas": "Go's flags end at the first argument, ours may stand anywhere",
    "config read -kind service-defaults -name cmd-a more": "an argument that is passed over would hide a mistake",
    "config list -kind service-defaults more": "the same",
    "intention list more": "the same",
    "config list -token=x -kind service-defaults": "a token on a command line can be read by every user",
    "config list -namespace=default -partition=default -kind service-defaults": "`default` is the one that there is",
    "intention create -file": "no file at all is a mistake",
    "intention create -file row.hcl": "ours reads HCL too",
    "intention create -replace -file row.hcl": "the same",
    "intention create -file l7.json": "ours writes permissions too",
    "services register -port 5 s.hcl": "flags that are passed over would hide a mistake",
    "services register none.hcl": "a file that defines no service is a mistake",
    "services register empty.hcl": "the same",
    "services deregister none.hcl": "the same",
    "services register other.hcl": "ours tells what of a file it does not register",
    "services register s.txt": "ours does not ask for the name to end with .hcl",
    "services register kind.hcl": "an unknown kind of a file is told, not passed over",
    "services register camel.hcl": "ours takes the names of the API too",
    "services register fraction.hcl": "a port is a whole number",
}
"""Lines of a story, each run by both. `=>` begins what the stock text on standard error must hold in ours, too."""
CONFIG = """
config
config bogus
config write
config write nosuch.hcl
config write a.hcl b.hcl
config write a.hcl
config write -cas b.hcl
config write -cas -modify-index=0 b.hcl
config write --cas --modify-index 99 b.hcl
config write -cas=true -modify-index=99 b.hcl
config write -cas=false b.hcl
config write -cas=maybe b.hcl
config write -modify-index=x b.hcl
config write -modify-index=-1 b.hcl
config write -bogus a.hcl
config write wrong.hcl => invalid config key "Protocl"
config write nokind.hcl => Payload does not contain a kind/Kind key at the top level
config write empty.hcl => Payload does not contain a kind/Kind key at the top level
config write a.hcl -cas
config read => Must specify the -kind parameter
config read -kind service-defaults => Must specify the -name parameter
config read -name cmd-a => Must specify the -kind parameter
config read -kind service-defaults -name cmd-a
config read --kind=service-defaults --name=cmd-a
config read -kind=service-defaults -name=CMD-A
config read -kind service-defaults -name cmd-a more
config read -kind=service-defaults -name=cmd-none => Config entry not found for "service-defaults" / "cmd-none"
config read -kind=bogus -name=x => Error reading config entry bogus/x: invalid config entry kind: bogus
config read -kind
config list => Must specify the -kind parameter
config list -kind service-defaults
config list -kind=service-router
config list -kind=bogus => invalid config entry kind: bogus
config list -kind service-defaults -filter 'Name == "cmd-a"'
config list -kind service-defaults -filter nonsense
config list -kind service-defaults more
config list -datacenter=dc1 -stale -kind service-defaults
config list -datacenter=nowhere -kind service-defaults
config list -token=x -kind service-defaults
config list -namespace=default -partition=default -kind service-defaults
config list -namespace=x -kind service-defaults
config list -partition=x -kind service-defaults
config delete => Must specify the -kind or -filename parameter
config delete -kind service-defaults => Must specify the -name parameter
config delete -name cmd-a
config delete -kind service-defaults -name cmd-none
config delete -kind bogus -name x
config delete -kind service-defaults -name cmd-a -cas => Must specify a -modify-index greater than 0 with -cas
config delete -kind service-defaults -name cmd-a -cas -modify-index 1
config delete -kind service-defaults -name cmd-a -modify-index 1 => Cannot specify -modify-index without -cas
config delete -filename b.hcl
config delete -filename nosuch.hcl
config delete -filename wrong.hcl => invalid config key "Protocl"
config delete -filename b.hcl -kind service-defaults
config delete --kind=service-defaults --name=cmd-a
"""
INTENTIONS = """
intention
intention bogus
intention create => Must specify two arguments: source and destination
intention create cmd-w
intention create cmd-w cmd-x cmd-y
intention create -allow -deny cmd-w cmd-x => Only one of -allow or -deny may be specified.
intention create cmd-w cmd-x
intention create cmd-w cmd-x => defines "cmd-w"
intention create -replace cmd-w cmd-x
intention check cmd-w cmd-x
intention create --replace --deny cmd-w cmd-x
intention check cmd-w cmd-x
intention create -deny=false cmd-v cmd-x
intention create -deny=true cmd-u cmd-x
intention create -deny=x cmd-u cmd-x
intention create -meta a=b -meta=c=d cmd-t cmd-x
intention create -meta nope cmd-s cmd-x
intention create -meta =x cmd-s cmd-x
intention create -replace -meta e= cmd-t cmd-x
intention create '*' cmd-x
intention create cmd-w 'cmd*' => wildcard character '*' cannot be used with partial values
intention create default/cmd-m default/cmd-n
intention create other/cmd-m cmd-n
intention create a/b/cmd-m cmd-n
intention create -file
intention create -file nosuch.json
intention create -file row.json
intention create -file row.json => defines "cmd-f1"
intention create -replace -file row.json row2.json
intention create -file row.hcl
intention create -replace -file row.hcl
intention create -file nosource.json
intention create -file empty.hcl
intention create -file l7.json
intention check => command requires exactly two arguments: src and dst
intention check cmd-w
intention check cmd-f1 cmd-f2
intention check cmd-f5 cmd-web
intention check '*' cmd-x
intention check -bogus cmd-w cmd-x
intention match => command requires exactly one argument: src or dst
intention match cmd-w cmd-x
intention match cmd-x
intention match -destination cmd-x
intention match -source cmd-w
intention match -source=false cmd-x
intention match -source -destination cmd-x => only one of -source or -destination may be specified
intention match cmd-none
intention match cmd-web
intention get => command requires exactly 1 or 2 arguments
intention get cmd-w cmd-x
intention get cmd-t cmd-x
intention get cmd-f1 cmd-f2
intention get cmd-none cmd-none => Intention not found with source "cmd-none" and destination "cmd-none"
intention get 11111111-2222-3333-4444-555555555555 => Intention not found with ID "11111111-2222-3333-4444-555555555555"
intention get abc => UUID must be 36 characters
intention list
intention list more
intention delete => command requires exactly 1 or 2 arguments
intention delete a b c
intention delete cmd-w cmd-x
intention delete cmd-w cmd-x
intention delete 11111111-2222-3333-4444-555555555555 => non-existent intention
intention delete abc => UUID must be 36 characters
intention delete -x cmd-w cmd-x
"""
REGISTRATIONS = """
services
services bogus
services register => Service registration requires at least one argument or flags.
services register -id cmd-x => Service registration requires at least one argument or flags.
services register -name cmd-s
services register -name cmd-s s.hcl
services register -port 5 s.hcl
services register s.hcl
services register s.hcl t.json
services register -name cmd-s -id cmd-s-1 -address 192.0.2.1 -port 80 -tag a -tag=b -meta x=1 --meta y=2
services register -name cmd-s -id cmd-s-2 -tagged-address lan=192.0.2.1:80 -tagged-address wan=[::1]:81
services register -name cmd-s -id cmd-s-3 -tagged-address lan=192.0.2.1
services register -name cmd-s -id cmd-s-3 -tagged-address lan
services register -name cmd-s -id cmd-s-3 -meta nope
services register -name cmd-s -id cmd-s-3 -tag a,b
services register -name=cmd-gw -kind=terminating-gateway -port=1
services register -name=cmd-gw -kind=terminating-gateway => Port must be non-zero
services register -name=cmd-u -socket=/tmp/x
services register -name cmd-s -port x
services register -name cmd-s -port
services register nosuch.hcl
services register none.hcl
services register empty.hcl
services register other.hcl
services register s.txt
services register kind.hcl
services register camel.hcl
services register fraction.hcl
services deregister => Service deregistration requires at least one argument or -id.
services deregister -id=cmd-none => Unknown service ID "cmd-none"
services deregister -id=cmd-s-1
services deregister --id cmd-s-2
services deregister -id
services deregister -id cmd-x s.hcl
services deregister s.hcl
services deregister s.hcl => Unknown service ID "cmd-s"
services deregister t.json
services deregister none.hcl
services deregister nosuch.hcl
"""


def masked(text: str) -> str:
    """Return an output without what is new at each run."""
    text = re.sub(r'("(?:Create|Modify)Index": )\d+', r"\1N", text)
    text = re.sub(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", text)
    return re.sub(r"Created At: .*", "Created At: now", text)


def written(consul: ConsulServer) -> Any:
    return [bare(consul.api(f"config/{kind}")) for kind in ("service-defaults", "service-intentions")]


def story(consul: ConsulServer, run: Any, lines: list[str], state: Any) -> list[tuple[Ran, Any]]:
    """Run lines from a clean start; return what each said, and what was there afterwards."""
    forget(consul)
    consul.write(*({"Kind": "service-defaults", "Name": name, "Protocol": "http"} for name in HTTP))
    seen = []
    for line in lines:
        ran = run(consul, line)
        seen.append((ran, state(consul)))
    return seen


@pytest.mark.parametrize("lines", [CONFIG, INTENTIONS, REGISTRATIONS], ids=["config", "intention", "services"])
def test_each_invocation_does_and_says_what_the_stock_command_line_does_and_says(
    lines: str, server: ConsulServer
) -> None:
    for name, text in FILES.items():
        Path(name).write_text(text)
    state = registered if lines is REGISTRATIONS else written
    asked = [line.partition(" => ") for line in lines.strip().splitlines()]
    # Where they are to differ each runs it for itself, and what it left is removed for the others to compare.
    alike = [(words, text) for words, _, text in asked if words not in DIFFERENT]
    left, right = (story(server, run, [words for words, _ in alike], state) for run in BOTH)
    for (words, text), (theirs, their_state), (mine, my_state) in zip(alike, left, right, strict=True):
        assert (mine.code, masked(mine.out)) == (theirs.code, masked(theirs.out)), (words, mine, theirs)
        assert bool(mine.err) == bool(theirs.err), (words, mine, theirs)
        assert text in theirs.err, (words, theirs)
        assert text in mine.err, (words, mine)
        assert my_state == their_state, words
    if any(words in DIFFERENT for words, _, _ in asked):
        ours(server, "config write a.hcl")
    for words in [words for words, _, _ in asked if words in DIFFERENT]:
        theirs, mine = (run(server, words) for run in BOTH)
        assert (mine.code, mine.out, bool(mine.err)) != (theirs.code, theirs.out, bool(theirs.err)), f"{words} is alike"
        assert mine.code == 0 or mine.err
