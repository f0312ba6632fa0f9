from __future__ import annotations

import ssl

import pytest

from dataplane.handshakes import reason_of
from policies.errors import IdentityError


def ssl_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


def verification(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "verify failed")
    error.verify_code = code
    return error


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (IdentityError("two_uris", "x"), "two_uris"),
        (verification(20), "foreign_ca"),
        (verification(10), "expired"),
        (verification(9), "not_yet_valid"),
        (verification(26), "wrong_usage"),
        (verification(999), "bad_certificate"),
        (ssl_error("PEER_DID_NOT_RETURN_A_CERTIFICATE"), "no_certificate"),
        (ssl_error("SSLV3_ALERT_BAD_CERTIFICATE"), "refused_by_peer"),
        (ssl_error("UNSUPPORTED_PROTOCOL"), "protocol_version"),
        (ssl_error("TLSV1_ALERT_PROTOCOL_VERSION"), "protocol_version"),
        (ssl_error("BAD_KEY_SHARE"), "handshake"),
        (TimeoutError(), "timeout"),
        (ConnectionResetError(), "broken"),
        (OSError(), "handshake"),
    ],
)
def test_every_failure_has_a_word_for_counters(error: Exception, word: str) -> None:
    assert reason_of(error) == word
