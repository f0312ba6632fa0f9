from __future__ import annotations

from dataplane.exchange import Reply


def test_a_reply_is_a_whole_answer_with_its_reason() -> None:
    assert Reply(403, "denied_by_intention", b"no").render(b"DATE", close=False, head_request=False) == (
        b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\ndate: DATE\r\nserver: lictor\r\n"
        b"x-lictor-reason: denied_by_intention\r\ncontent-type: text/plain\r\n\r\nno"
    )


def test_a_reply_to_head_has_the_length_and_no_body() -> None:
    rendered = Reply(404, "no_route", b"gone").render(b"DATE", close=True, head_request=True)
    assert b"content-length: 4\r\n" in rendered
    assert rendered.endswith(b"connection: close\r\n\r\n")


def test_a_status_without_a_phrase_will_do() -> None:
    assert Reply(299, "x").render(b"", close=False, head_request=False).startswith(b"HTTP/1.1 299 \r\n")
