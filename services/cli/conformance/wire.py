"""A client on a raw socket: sends exactly these bytes, reads exactly what comes."""

import asyncio
import socket
import ssl
from types import TracebackType

import httptools
import msgspec


class Answer(msgspec.Struct):
    """One answer. body: without its framing. whole: it ended as its framing says."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = []
    body: bytes = b""
    whole: bool = False
    interim: list[int] = []

    def header(self, name: str) -> bytes | None:
        return next((value for key, value in self.headers if key.lower() == name.encode().lower()), None)


class RawClient:
    """`async with RawClient(port) as client`. tls, name: over TLS, and what the certificate must be for, if not the host."""

    def __init__(
        self,
        port: int,
        receive_buffer: int = 0,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        name: str = "",
    ) -> None:
        self._name = name or host
        self._port, self._host, self._tls = port, host, tls
        self._receive_buffer = receive_buffer
        self._parser = httptools.HttpResponseParser(self)
        self._answers: list[Answer] = [Answer()]
        self._close_delimited = False

    async def __aenter__(self) -> "RawClient":
        if self._host != "127.0.0.1":
            self.reader, self.writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls, limit=2**16)
            return self
        sock = socket.socket()
        if self._receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
        except OSError:
            sock.close()
            raise
        self.reader, self.writer = await asyncio.open_connection(
            sock=sock, limit=2**16, ssl=self._tls, server_hostname=self._name if self._tls else None
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.transport.abort()
        del self._parser  # it holds us as we hold it
        await asyncio.sleep(0)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def finish_sending(self) -> None:
        self.writer.write_eof()

    def close(self) -> None:
        """As a process that ends: the kernel closes the socket."""
        self.writer.close()

    def reset(self) -> None:
        self.writer.transport.abort()

    async def answer(self, seconds: float = 10.0) -> Answer:
        """The next answer; what came of it when the connection ends first."""
        async with asyncio.timeout(seconds):
            while not self._answers[0].whole:
                data = await self.reader.read(2**16)
                if not data:
                    break
                self._parser.feed_data(data)
        answer = self._answers.pop(0)
        if not self._answers:
            self._answers.append(Answer())
        return answer

    async def head(self, seconds: float = 10.0) -> Answer:
        """The next answer's head, as far as a request of HEAD has any."""
        async with asyncio.timeout(seconds):
            self._parser.feed_data(await self.reader.readuntil(b"\r\n\r\n"))
        return self._answers[0]

    async def until_body(self, part: bytes, seconds: float = 10.0) -> Answer:
        """Read until the body so far contains `part`."""
        async with asyncio.timeout(seconds):
            while part not in self._answers[0].body:
                data = await self.reader.read(2**16)
                assert data, f"ended after {self._answers[0]!r}"
                self._parser.feed_data(data)
        return self._answers[0]

    async def ended(self, seconds: float = 10.0) -> bytes:
        """Everything up to the end of the connection, raw."""
        async with asyncio.timeout(seconds):
            return await self.reader.read()

    # The parser's callbacks.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answers[-1].headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._answers[-1].status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self._answers[-1].body += data

    def on_message_complete(self) -> None:
        answer = self._answers[-1]
        if answer.status < 200:
            self._answers[-1] = Answer(interim=[*answer.interim, answer.status])
            return
        answer.whole = True
        self._answers.append(Answer())
