"""Sends a body that is produced while it is sent: its pieces leave one by one, as the iterator,
the async iterator or the file gives them."""
import os

import grid_log
from grid_failure import Failure, clean_text, show
from grid_http import CUT, STREAMED
from grid_result import BODILESS, stream_head

BLOCK_BYTES = 65536


class _Enough(Exception):
    """Nothing more is to be sent, and nothing is wrong."""


class _Gone(Exception):
    """The client has left."""


def _to_bytes(piece, number):
    if isinstance(piece, str):
        return clean_text(piece).encode("utf-8")
    if isinstance(piece, (bytes, bytearray, memoryview)):
        return bytes(piece)
    raise Failure("invalid_result", "piece %d of the body must be text or bytes, not %s: %s"
                  % (number, type(piece).__name__, show(piece)))


class _Sending:
    """Takes the pieces: the answer leaves with the first one, the others as they come."""

    def __init__(self, answer, may_have_head, job, settings):
        self.answer = answer
        self.begun = False
        self.sent = 0
        self._may_have_head = may_have_head
        self._job = job
        self._settings = settings
        self._count = 0
        self._process = os.getpid()

    def put(self, piece):
        if os.getpid() != self._process:  # a fork of the function goes on here: it is not the runner
            os._exit(0)
        if self._may_have_head:
            self._may_have_head = False
            head = stream_head(piece, self._settings)
            if head is not None:
                head.headers.append(("x-grid-outcome", "ok"))
                self.answer = head
                if head.status in BODILESS:
                    raise _Enough
                return
        self._count += 1
        data = _to_bytes(piece, self._count)
        if self.sent + len(data) > self._settings.max_response_bytes:
            raise Failure("response_too_large", "the response body has more than the %d bytes that "
                          "are allowed" % self._settings.max_response_bytes)
        self._write(data, isinstance(piece, str))
        self.sent += len(data)

    def _write(self, data, is_text):
        request, connection = self._job.request, self._job.connection
        try:
            if self.begun:
                if self._job.has_left:
                    raise _Gone
                if data:
                    connection.write_piece(request, data)
                return
            self._begin(is_text)
            if not self._job.claim():
                raise _Gone
            self.begun = True
            connection.begin_stream(request, self.answer, data)
        except OSError:
            raise _Gone from None

    def _begin(self, is_text):
        headers = self.answer.headers
        if all(name != "content-type" for name, _ in headers):
            headers.append(("content-type", "text/plain; charset=utf-8" if is_text
                            else "application/octet-stream"))
        self.answer.body = None
        if self._job.request.method == "HEAD":
            raise _Enough


def _blocks(file):
    # What is there already is better than waiting for a whole block.
    read = getattr(file, "read1", None)
    if not callable(read):
        read = file.read
    while True:
        block = read(BLOCK_BYTES)
        if not block:
            return
        yield block


def _iterator(value):
    if not callable(getattr(value, "read", None)):
        return value
    import io
    if isinstance(value, io.TextIOBase) and not value.seekable():
        return value  # by lines: a block of characters could be waited for
    return _blocks(value)


def _close(value):
    close = getattr(value, "close", None)
    if callable(close):
        try:
            close()
        except Exception as error:
            grid_log.stack(error)


def _drain(value, sending):
    try:
        if sending.answer.status in BODILESS:
            raise _Enough
        for piece in _iterator(value):
            sending.put(piece)
    finally:
        _close(value)


async def _drain_async(value, sending):
    """All of it in one task, as code that is made of `async with` expects it."""
    iterator = type(value).__aiter__(value)
    try:
        if sending.answer.status in BODILESS:
            raise _Enough
        async for piece in iterator:
            sending.put(piece)
    finally:
        close = getattr(iterator, "aclose", None)
        if callable(close):
            try:
                await close()
            except Exception as error:
                grid_log.stack(error)


def send(answer, may_have_head, job, settings, event_loop):
    """Sends `answer`, whose body is `answer.stream`. The result is STREAMED, CUT, or an answer
    that is still to be sent because there was nothing to stream; raises what goes wrong while
    nothing has been sent. For a job that `keeps` the pieces that is always so."""
    stream, answer.stream = answer.stream, None
    sending = _Sending(answer, may_have_head, job, settings)
    try:
        if hasattr(type(stream), "__aiter__"):
            event_loop().run_until_complete(_drain_async(stream, sending))
        else:
            _drain(stream, sending)
    except _Enough:
        pass
    except _Gone:
        return CUT
    except SystemExit:
        raise
    except BaseException as error:
        if not sending.begun or job.keeps or os.getpid() != sending._process:
            raise
        if isinstance(error, Failure):
            grid_log.note("%s: %s" % (error.kind, error.message))
        else:
            grid_log.stack(error)
        grid_log.note("The response was cut off after %d bytes." % sending.sent)
        return CUT
    return STREAMED if sending.begun else sending.answer
