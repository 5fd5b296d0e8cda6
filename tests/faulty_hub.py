"""Ways in which a hub, or what lies between it and a job, misbehaves: for `misbehave_next`."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

from tests.hub_server import Answer, Misbehaviour

TRICKLE_S = 0.02


def headers(
    handler: BaseHTTPRequestHandler, answer: Answer, length: int | None = None, /, **changed: str
) -> None:
    """Send the answer's status and headers, with another length or other headers."""
    content_length = str(len(answer.content()) if length is None else length)
    named = {name.replace("_", "-"): value for name, value in changed.items()}
    sent = {**answer.headers, "Content-Length": content_length, **named}
    handler.send_response(answer.status)
    for name, value in sent.items():
        handler.send_header(name, value)
    handler.end_headers()


def silence(handler: BaseHTTPRequestHandler, answer: Answer, closed: threading.Event) -> None:
    """Accept the request and never answer."""
    closed.wait()


def headers_then_silence(
    handler: BaseHTTPRequestHandler, answer: Answer, closed: threading.Event
) -> None:
    """Promise a body and send none of it."""
    headers(handler, answer)
    closed.wait()


def half_then_silence(
    handler: BaseHTTPRequestHandler, answer: Answer, closed: threading.Event
) -> None:
    """Send half of the body, and nothing more."""
    headers(handler, answer)
    content = answer.content()
    handler.wfile.write(content[: len(content) // 2])
    closed.wait()


def trickle(handler: BaseHTTPRequestHandler, answer: Answer, closed: threading.Event) -> None:
    """Send a byte now and then."""
    headers(handler, answer)
    for byte in answer.content():
        if closed.wait(TRICKLE_S):
            return
        handler.wfile.write(bytes([byte]))


def header_trickle(
    handler: BaseHTTPRequestHandler, answer: Answer, closed: threading.Event
) -> None:
    """Send a byte of a header now and then, without end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while not closed.wait(TRICKLE_S):
        handler.wfile.write(b"x")


def refusal(status: int, **sent: str) -> Misbehaviour:
    """Answer with a status and headers, whose names have "_" for "-"."""

    def refuse(handler: BaseHTTPRequestHandler, answer: Answer, closed: threading.Event) -> None:
        headers(handler, Answer(status, body=b"no"), None, **sent)

    return refuse


def cut_at(share: float) -> Misbehaviour:
    """Promise the whole body, and close the connection after a share of it."""

    def cut(handler: BaseHTTPRequestHandler, answer: Answer, closed: threading.Event) -> None:
        headers(handler, answer)
        content = answer.content()
        handler.wfile.write(content[: int(len(content) * share)])

    return cut


def reset_at(share: float) -> Misbehaviour:
    """Reset the connection after a share of the body."""

    def reset(handler: BaseHTTPRequestHandler, answer: Answer, closed: threading.Event) -> None:
        cut_at(share)(handler, answer, closed)
        handler.wfile.flush()
        linger = struct.pack("ii", 1, 0)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.connection.close()

    return reset


def other_content(change: Callable[[bytes], bytes], **sent: str) -> Misbehaviour:
    """Send other bytes, with the length that they have."""

    def send(handler: BaseHTTPRequestHandler, answer: Answer, closed: threading.Event) -> None:
        content = change(answer.content())
        headers(handler, answer, len(content), **sent)
        handler.wfile.write(content)

    return send


def other_length(more: int) -> Misbehaviour:
    """Send the body with a wrong Content-Length."""

    def send(handler: BaseHTTPRequestHandler, answer: Answer, closed: threading.Event) -> None:
        content = answer.content()
        headers(handler, answer, len(content) + more)
        handler.wfile.write(content)

    return send


def without_length(change: Callable[[bytes], bytes]) -> Misbehaviour:
    """Send other bytes and no length: the end of the connection is the end of the body."""

    def send(handler: BaseHTTPRequestHandler, answer: Answer, closed: threading.Event) -> None:
        handler.send_response(answer.status)
        handler.end_headers()
        handler.wfile.write(change(answer.content()))

    return send


def redirect_loop(handler: BaseHTTPRequestHandler, answer: Answer, closed: threading.Event) -> None:
    """Redirect to the same place."""
    headers(handler, Answer(302), Location=handler.path)


def whole_but_cut_at(share: float) -> Misbehaviour:
    """Ignore ranges, and close the connection after a share of the whole file."""

    def send(handler: BaseHTTPRequestHandler, answer: Answer, closed: threading.Event) -> None:
        assert answer.file is not None
        content = answer.file.read_bytes()
        headers(handler, Answer(200, body=content))
        handler.wfile.write(content[: int(len(content) * share)])

    return send


def flip_last(content: bytes) -> bytes:
    """The content with its last byte changed."""
    return content[:-1] + bytes([content[-1] ^ 1])


html = other_content(lambda _: b"<html>Log in to use the network</html>", Content_Type="text/html")
flipped = other_content(flip_last)
wrong_gzip = other_content(lambda content: content, Content_Encoding="gzip")
