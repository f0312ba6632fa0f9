"""The embedded servers answer as the real ones: the dialogues of `dialogues/*.http`, held with both, step by step.

Files called vault_* are held with Vault, all others with Consul. What is meant to differ is in `DIFFERENCES` and in a
table in docs/dev-server.md; an exception that nothing needs any more fails, and so does a row that is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from harness.dialogues import Said, Speaker, Step, hold, read_dialogues
from harness.servers import MANAGEMENT_TOKEN, consul_server, dev_server, vault_server
from harness.signing_requests import signing_requests
from harness.vault_dialogues import VAULT

FOLDER = Path(__file__).parent / "dialogues"
DOCS = Path(__file__).resolve().parents[2] / "docs" / "dev-server.md"
STEPS = {file.stem: read_dialogues(file) for file in sorted(FOLDER.glob("*.http"))}
ROOT_TOKEN = "s.ABCDEFGHIJKLMNOPQRSTUVWX"  # of the form of a real one
NOT_HERE = "the dev server of Lictor does not do this; a real Vault may"
Answers = dict[str, dict[Step, tuple[Said, Said]]]


@dataclass(frozen=True)
class Difference:
    """A difference that is meant: in which dialogues, of which steps, where in the answer, and its row in the docs.

    `at` is a place in the body; "" is the whole answer, of which ours has to be a 404 that names what is not done.
    """

    file: str
    step: str  # an expression for the text of a step, from its method on
    row: str  # the first cell of its row
    at: str = ""


DIFFERENCES = (
    # --- paths that neither has: Vault knows all of its own, the dev server names whatever it does not do
    Difference("vault_system", r"(GET|PUT|LIST|DELETE) sys/nothing.*|LIST sys/mounts", "Unknown paths", "errors"),
    Difference("vault_policies", r"PUT sys/policies/rgp/x .*", "Unknown paths", "errors"),
    Difference("vault_tokens", r"PUT auth/token/renew/.*", "Unknown paths", "errors"),
    Difference("vault_approle", r"\w+ auth/approle/(role/web/)?nothing.*", "Unknown paths", "errors"),
    Difference("vault_approle", r"GET .*/bind-secret-id|LIST .*/role-id", "Unknown paths", "errors"),
    Difference("vault_pki", r"\w+ pki_root/nothing.*|GET pki_root/?|PUT pki_mesh/sign {.*", "Unknown paths", "errors"),
    # --- what a real Vault has besides
    Difference("vault_system", r"GET sys/(metrics|audit|host-info|key-status|config/cors)", "The operator's sys/"),
    Difference("vault_system", r"\w+ sys/(leases|plugins|quotas|namespaces)\b.*", "The operator's sys/"),
    Difference("vault_system", r"\w+ sys/(internal/counters|tools|rotate|remount)\b.*", "The operator's sys/"),
    Difference("vault_policies", r"GET sys/internal/ui/resultant-acl", "The operator's sys/"),
    Difference("vault_system", r"PUT sys/(mounts|auth)/\w+ .*(kv|transit|jwt|userpass).*", "Other engines and logins"),
    Difference("vault_system", r"\w+ cubbyhole/.*", "Other engines and logins"),
    Difference("vault_identity", r"PUT identity/(entity|lookup/group) .*", "Identity by hand"),
    Difference("vault_tokens", r"PUT auth/token/create .*batch.*", "Batch tokens"),
    Difference("vault_approle", r"PUT auth/approle/login .*<batch_role>.*", "Batch tokens"),
    Difference("vault_tokens", r"PUT auth/token/roles/r .*", "Roles of tokens"),
    Difference("vault_approle", r"PUT auth/approle/tidy/secret-id", "Tidying"),
    Difference("vault_pki", r"\w+ pki_\w+/(tidy|tidy-status|config/auto-tidy|config/cluster)\b.*", "Tidying"),
    Difference("vault_pki", r"PUT pki_mesh/sign-verbatim.*", "PKI: sign-verbatim"),
    Difference("vault_pki", r"PUT pki_mesh/roles/bad .*(use_pss|generate_lease|policy_id).*", "PKI: rare fields"),
    Difference("vault_pki", r"PUT pki_mesh/sign/mesh .*2001-01-01.*", "PKI: certificates that ended"),
    # --- the same said in other words
    Difference("vault_policies", r"GET sys/policies/acl/default", "Text of the policy `default`", "data.policy"),
    Difference("vault_system", r'PUT sys/policies/acl/x {"policy": (}|7|.*trailing).*', "Garbage", "errors"),
    Difference("vault_policies", r"PUT sys/policies/acl/bad .*capabilities = .}", "Garbage", "errors"),
    Difference("vault_pki", r"PUT pki_mesh/sign/mesh .*<root_pem>.*", "Garbage", "errors"),
    Difference("vault_tokens", r'PUT auth/token/create .*"id": .*', "Advice", "warnings"),
    Difference("vault_pki", r"PUT pki_\w+/(root|intermediate)/(generate|rotate)/.*", "Advice", "warnings"),
    Difference(
        "vault_pki", r"PUT pki_\w+/.*(sign-intermediate|set-signed|config/ca|import/cert) .*", "Advice", "warnings"
    ),
    Difference("vault_pki", r"DELETE pki_mesh/(root|issuer/<next>)", "Advice", "warnings"),
)


def speakers(name: str) -> Iterator[tuple[Speaker, Speaker]]:
    """The real server and ours, for one file."""
    if name.startswith("vault_"):
        requests = signing_requests()
        arguments = ["--root-token", ROOT_TOKEN]
        with vault_server() as real, dev_server(arguments=arguments) as dev:
            servers = (real, replace(dev.vault, token=ROOT_TOKEN))
            pair = [
                Speaker(
                    server.address,
                    {"management": server.token, "unknown": "s.unknownunknownunknownunk"},
                    VAULT,
                    {"unseal_key": server.unseal_key, **requests},
                )
                for server in servers
            ]
            yield pair[0], pair[1]
        return
    acl = name == "acl"
    with consul_server(acl=acl) as real, dev_server(acl=acl) as dev:
        tokens = {"management": MANAGEMENT_TOKEN, "unknown": "00000000-1111-2222-3333-444444444444"}
        yield Speaker(real.http_addr, tokens), Speaker(dev.http_addr, tokens)


@pytest.fixture(scope="module")
def answers() -> Answers:
    """What both said, by file: each file talks to servers of its own, when its first step is looked at."""
    return {}


def both(answers: Answers, name: str, step: Step) -> tuple[Said, Said]:
    if name not in answers:
        for pair in speakers(name):
            answers[name] = {one: (first, second) for one, first, second in hold(STEPS[name], *pair)}
    return answers[name][step]


def meant(name: str, step: Step) -> Difference | None:
    """The difference that is meant at a step."""
    text = f"{step.method} {step.path} {step.body}".rstrip()
    return next((one for one in DIFFERENCES if one.file == name and re.fullmatch(one.step, text)), None)


def without(said: Said, at: str) -> tuple[Said, Any]:
    """An answer without what stands at a place, and that."""
    *outer, last = at.split(".")
    body = value = {**said.body}
    for word in outer:
        value[word] = {**value[word]}
        value = value[word]
    return replace(said, body=body), value.pop(last, None)


@pytest.mark.parametrize(("name", "step"), [(name, step) for name, steps in STEPS.items() for step in steps], ids=str)
def test_both_say_the_same(answers: Answers, name: str, step: Step) -> None:
    real, dev = both(answers, name, step)
    difference = meant(name, step)
    if difference is None or dev == real:
        assert dev == real, step.text
    elif not difference.at:
        assert dev.status == 404, step.text
        assert NOT_HERE in dev.body["errors"][0], step.text
    else:
        assert without(dev, difference.at)[0] == without(real, difference.at)[0], step.text
    if difference is not None and difference.row == "Unknown paths":
        assert NOT_HERE in dev.body["errors"][0], step.text


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda one: f"{one.row}: {one.step}")
def test_every_difference_is_still_one_and_has_its_row_in_the_docs(answers: Answers, difference: Difference) -> None:
    found = [
        (step, *both(answers, difference.file, step))
        for step in STEPS[difference.file]
        if meant(difference.file, step) is difference
    ]
    assert any(dev != real for _, real, dev in found), "nothing differs any more"
    assert f"\n| {difference.row} |" in DOCS.read_text()


def test_the_two_servers_are_asked_enough() -> None:
    assert sum(len(steps) for steps in STEPS.values()) >= 300
    assert sum(len(steps) for name, steps in STEPS.items() if name.startswith("vault_")) >= 120
