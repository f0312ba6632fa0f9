from __future__ import annotations

import ssl
import time
from datetime import timedelta

import pytest

from dataplane.edge.server_tls import ServerContexts, build_server_contexts
from dataplane.tls import try_handshake
from harness.certificates import Authority, Mistakes
from policies.edge.server_certificates import CertificateReference, ServerCertificate
from policies.edge.tls import ListenerTls
from policies.errors import BadServerCertificate, IdentityError
from policies.mesh import TlsLimits

CA = Authority()
WEB, API, PIN = (CertificateReference("own", name) for name in ("web", "api", "pin"))
KNOWN = {WEB: CA.server("web.com"), API: CA.server("*.api.com"), PIN: CA.server("pin.com")}
NOW = time.time()


def built(tls: ListenerTls, known: dict[CertificateReference, ServerCertificate] = KNOWN) -> ServerContexts:
    contexts = build_server_contexts(tls, known)
    assert contexts is not None
    return contexts


def client(ciphers: str = "ALL", version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=CA.pem)
    context.set_ciphers(ciphers)
    if version is not None:
        context.maximum_version = version
    return context


def test_the_name_chooses_and_the_first_answers_all_others() -> None:
    contexts = built(ListenerTls((WEB, API), {"*.shop.com": PIN}))
    web, api, pin = (contexts.choose(name, NOW) for name in ("web.com", "v1.api.com", "a.b.shop.com"))
    assert len({web, api, pin}) == 3
    assert {contexts.choose(name, NOW) for name in ("", "WEB.com.", "other.com", "pin.com")} == {web}


def test_a_strict_listener_answers_only_names_that_it_has() -> None:
    contexts = built(ListenerTls((WEB,), strict_sni=True))
    contexts.choose("web.com", NOW)
    for name in ("", "other.com"):
        with pytest.raises(IdentityError) as caught:
            contexts.choose(name, NOW)
        assert caught.value.reason == "unknown_name"


def test_a_certificate_is_shown_until_its_end() -> None:
    contexts = built(ListenerTls((WEB,)), {WEB: CA.server("web.com", mistakes=Mistakes(ends=timedelta(minutes=1)))})
    now = time.time()  # this file may have been read minutes ago
    contexts.choose("web.com", now)
    with pytest.raises(IdentityError) as caught:
        contexts.choose("web.com", now + 120)
    assert caught.value.reason == "certificate_ended"


def test_nothing_is_built_before_a_certificate_is_known() -> None:
    assert build_server_contexts(ListenerTls((WEB,)), {}) is None
    assert built(ListenerTls((WEB, API)), {API: KNOWN[API]}).choose("web.com", NOW)


def test_only_what_differs_is_built_again() -> None:
    tls = ListenerTls((WEB, API))
    before = built(tls)
    assert build_server_contexts(tls, KNOWN, before=before) is before
    after = build_server_contexts(tls, {**KNOWN, WEB: CA.server("web.com")}, before=before)
    assert after is not None
    assert after.choose("x.api.com", NOW) is before.choose("x.api.com", NOW)
    assert after.choose("web.com", NOW) is not before.choose("web.com", NOW)
    stricter = build_server_contexts(ListenerTls((WEB, API), limits=TlsLimits("TLSv1_3")), KNOWN, before=before)
    assert stricter is not None
    assert stricter.choose("web.com", NOW) is not before.choose("web.com", NOW)


def test_one_name_may_have_a_certificate_of_each_kind_of_key() -> None:
    known = {WEB: CA.server("web.com"), API: CA.server("web.com", rsa_key=True)}
    context = built(ListenerTls((WEB, API)), known).choose("web.com", NOW)
    for ciphers in ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"):
        try_handshake(context, client(ciphers, ssl.TLSVersion.TLSv1_2))


@pytest.mark.parametrize("ciphers", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES128-SHA256"])
def test_by_default_there_is_no_cipher_without_forward_secrecy_and_aead(ciphers: str) -> None:
    context = built(ListenerTls((WEB,))).choose("web.com", NOW)
    try_handshake(context, client(version=ssl.TLSVersion.TLSv1_2))
    with pytest.raises(ssl.SSLError):
        try_handshake(context, client(ciphers, ssl.TLSVersion.TLSv1_2))


@pytest.mark.parametrize("version", ["TLSv1_0", "TLSv1_1"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_versions_are_spoken_only_where_the_entry_says_so(version: str) -> None:
    old = client("ALL:@SECLEVEL=0", ssl.TLSVersion.TLSv1_1)
    old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.raises(ssl.SSLError):
        try_handshake(built(ListenerTls((WEB,))).choose("", NOW), old)
    try_handshake(built(ListenerTls((WEB,), limits=TlsLimits(version))).choose("", NOW), old)


@pytest.mark.parametrize(
    "limits",
    [
        TlsLimits(cipher_suites=("TLS_NO_SUCH",)),
        TlsLimits("TLSv1_3", "TLSv1_2"),
        TlsLimits("", "TLSv1_2", ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",)),  # for a key of another kind
    ],
)
def test_settings_that_nobody_could_speak_are_told_at_once(limits: TlsLimits) -> None:
    with pytest.raises(BadServerCertificate, match="cannot be shown"):
        built(ListenerTls((WEB,), limits=limits))


NEW = (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.MAXIMUM_SUPPORTED)
OLD = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)
BOTH = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.MAXIMUM_SUPPORTED)


@pytest.mark.parametrize(
    ("name", "versions"),
    [
        ("web.com", NEW),
        ("Web.com.", NEW),
        ("v1.api.com", OLD),
        ("api.com", OLD),
        ("strict.api.com", NEW),
        ("elsewhere.org", BOTH),
        ("", BOTH),
    ],
)
def test_hosts_may_have_versions_of_their_own(name: str, versions: tuple[ssl.TLSVersion, ssl.TLSVersion]) -> None:
    new, old = TlsLimits("TLSv1_3"), TlsLimits("TLSv1_2", "TLSv1_2")
    by_host = {"web.com": new, "*.api.com": old, "strict.api.com": new}
    chosen = built(ListenerTls((WEB, API), limits_by_host=by_host)).choose(name, NOW)
    assert (chosen.minimum_version, chosen.maximum_version) == versions


def test_a_host_for_all_others_answers_those_without_a_name_too() -> None:
    contexts = built(ListenerTls((WEB,), limits_by_host={"web.com": TlsLimits(), "*": TlsLimits("TLSv1_3")}))
    minima = [contexts.choose(name, NOW).minimum_version for name in ("web.com", "a.b.org", "")]
    assert minima == [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3]


def test_of_hosts_with_versions_of_their_own_only_what_differs_is_built_again() -> None:
    tls = ListenerTls((WEB, API), limits_by_host={"web.com": TlsLimits("TLSv1_3"), "*.api.com": TlsLimits()})
    before = built(tls)
    after = build_server_contexts(tls, {**KNOWN, WEB: CA.server("web.com")}, before=before)
    assert after is not None
    assert after.choose("x.api.com", NOW) is before.choose("x.api.com", NOW)
    assert after.choose("web.com", NOW) is not before.choose("web.com", NOW)


def test_a_callers_certificate_is_demanded_where_it_is_required() -> None:
    tls = ListenerTls((WEB,), client_ca_file="ca.pem", require_client_certificate=True)
    contexts = build_server_contexts(tls, KNOWN, CA.pem)
    assert contexts is not None
    assert contexts.choose("", NOW).verify_mode is ssl.CERT_REQUIRED
    for text in ("", "no certificate at all"):
        with pytest.raises(BadServerCertificate, match="ca.pem names nobody"):
            build_server_contexts(tls, KNOWN, text)
