"""A wire between a store and a server that a test can cut where it likes: before a message, after it, in the middle of one.

    with Proxy(server) as wire:
        store = treestore.open_sync(wire.url("database"))
        wire.fault = lambda sent: Fault.LOSE_REPLY if sent.says("COMMIT") else Fault.NONE

It listens on a free port of the loopback interface and forwards to the server's socket, each connection in two threads of its
own. It knows of PostgreSQL's protocol (version 3, without TLS) where messages begin and end, and when the server is done.
"""

from __future__ import annotations

import enum
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import quote, urlencode

from tests.postgres.server import Server


class Message(NamedTuple):
    """What a client sends: the kind as the protocol's letter (b"" for the one that begins a connection), its content, and how
    many bytes this connection's client had sent before it."""

    kind: bytes
    content: bytes
    before: int

    def says(self, sql: str) -> bool:
        """Whether it is a statement that begins with this."""
        statement = self.content if self.kind == b"Q" else self.content.partition(b"\0")[2]
        return self.kind in (b"Q", b"P") and statement.lstrip().upper().startswith(sql.encode())


class Fault(enum.Enum):
    """What becomes of a message. ``CUT``: it does not reach the server, the connection ends. ``HALVE``: half of it does.
    ``LOSE_REPLY``: it does, the server does what it says, and the connection ends before the reply. ``SILENCE``: as that, but
    the connection stays, and nothing comes any more."""

    NONE = 0
    CUT = 1
    HALVE = 2
    LOSE_REPLY = 3
    SILENCE = 4


class _Lost(Exception):
    """The connection ended, or is to end."""


class Proxy:
    """A listening proxy in front of a server. ``fault`` is asked about each message of each client; ``seen`` are the messages
    since it was last set to another list."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.fault: Callable[[Message], Fault] = lambda sent: Fault.NONE
        self.seen: list[Message] = []
        self._sockets: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, database: str, **parameters: str) -> str:
        """The URL of a database of the server's, by way of this wire."""
        query = urlencode({"sslmode": "disable", **parameters})
        return f"postgresql://{self._server.user}@127.0.0.1:{self.port}/{quote(database, safe='')}?{query}"

    def by_way(self, url: str, **parameters: str) -> str:
        """The same database as that of a URL of the server's."""
        return self.url(url.partition("@/")[2].partition("?")[0], **parameters)

    def cut_all(self) -> None:
        """End all connections."""
        for one in self._sockets:
            _end(one)
        self._sockets.clear()

    def close(self) -> None:
        """End all connections, and take no more."""
        _end(self._listening)
        self.cut_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(f"{self._server.host}/.s.PGSQL.{self._server.port}")
            except OSError:  # the server does not run
                _end(client)
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or each message waits 40 ms for the one before
            self._sockets += [client, server]
            connection = _Connection(self, client, server)
            for pump in (connection.to_server, connection.to_client):
                threading.Thread(target=pump, daemon=True).start()


class _Connection:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._swallows: Fault | None = None
        self._last = b""

    def to_server(self) -> None:
        """Forward what the client sends, message by message."""
        sent = 0
        with suppress(OSError, _Lost):
            begins = _take(self._client, 4)
            begins += _take(self._client, struct.unpack("!I", begins)[0] - 4)
            self._forward(Message(b"", begins[4:], 0), begins)
            sent += len(begins)
            while self._swallows is not Fault.SILENCE:
                head = _take(self._client, 5)
                content = _take(self._client, struct.unpack("!I", head[1:])[0] - 4)
                self._forward(Message(head[:1], content, sent), head + content)
                sent += len(head) + len(content)
            return
        self._end()

    def _forward(self, message: Message, raw: bytes) -> None:
        self._proxy.seen.append(message)
        fault = self._proxy.fault(message)
        if fault in (Fault.CUT, Fault.HALVE):
            self._server.sendall(raw[: len(raw) // 2] if fault is Fault.HALVE else b"")
            raise _Lost
        if fault is not Fault.NONE:
            # Only what ends with these is answered by "ready for query"; what else is sent, by any message.
            self._last = b"Z" if message.kind in (b"Q", b"S", b"c") else bytes(range(256))
            self._swallows = fault  # before it is sent, so that no reply slips through
        self._server.sendall(raw)

    def to_client(self) -> None:
        """Forward what the server sends, until its replies are to be lost: then wait until it is ready for the next query."""
        with suppress(OSError, _Lost):
            while True:
                head = _take(self._server, 5)
                content = _take(self._server, struct.unpack("!I", head[1:])[0] - 4)
                if self._swallows is None:
                    self._client.sendall(head + content)
                elif self._swallows is Fault.LOSE_REPLY and head[:1] in self._last:
                    break
        if self._swallows is not Fault.SILENCE:
            self._end()

    def _end(self) -> None:
        _end(self._client)
        _end(self._server)


def _take(source: socket.socket, count: int) -> bytes:
    """So many bytes. Raises _Lost where the connection ends before."""
    found = bytearray()
    while len(found) < count:
        some = source.recv(count - len(found))
        if not some:
            raise _Lost
        found += some
    return bytes(found)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)  # close alone does not wake the thread that waits for it
    one.close()
