"""The function's log: the marker lines around what a request writes, on each standard stream,
and the knowledge whether a stream stands inside a line that somebody did not end. A stream to
which a request writes nothing gets no markers: each line costs the engine more time than a
small request costs everybody else."""
import io
import os
import sys

from grid_secrets import hide, hide_bytes

_raws = []
_streams = []
_running = None


class _Raw(io.FileIO):
    """A file descriptor that remembers how its last output ended."""

    open_line = False
    marked = False

    def write(self, data):
        if len(data):
            _mark(self.fileno() - 1)
        count = super().write(data)
        if count:
            self.open_line = bytes(memoryview(data)[count - 1:count]) != b"\n"
        return count


class _Buffer(io.BufferedWriter):
    """What is written comes here as it was written; beyond, it may be cut in pieces."""

    def write(self, data):
        clean = hide_bytes(data)
        if clean is data:
            return super().write(data)
        super().write(clean)
        return memoryview(data).nbytes


def open_streams():
    """Replaces sys.stdout and sys.stderr; called before any user code runs."""
    for fd, name in ((1, "stdout"), (2, "stderr")):
        raw = _Raw(fd, "w", closefd=False)
        stream = io.TextIOWrapper(_Buffer(raw), encoding="utf-8",
                                  errors="backslashreplace", line_buffering=True)
        stream.mode = "w"
        _raws.append(raw)
        _streams.append(stream)
        setattr(sys, name, stream)
        setattr(sys, "__%s__" % name, stream)


def flush():
    """Flushes what user code may have put in place of the streams, and the streams."""
    for stream in (sys.stdout, sys.stderr, *_streams):
        try:
            stream.flush()
        except BaseException:
            pass  # closed, replaced by something odd, or in the middle of a write


def _line(index, text):
    data = text.encode("utf-8", "backslashreplace") + b"\n"
    raw = _raws[index]
    if raw.open_line:
        data = b"\n" + data
    raw.open_line = False
    try:
        while data:
            data = data[os.write(index + 1, data):]
    except OSError:
        pass  # nobody reads the log; the answer matters more


def _mark(index):
    """Before the first output of a request: from here on it is that request's."""
    if _running is not None and not _raws[index].marked:
        _raws[index].marked = True
        _line(index, "\x1eGRID START " + _running)


def _mark_replaced():
    """Streams that user code has put in place of ours write past the marks: those stand already."""
    for index, stream in enumerate((sys.stdout, sys.stderr)):
        if stream is not _streams[index]:
            _mark(index)


def start(request_id):
    global _running
    flush()
    _running = request_id
    _mark_replaced()


def end():
    global _running
    if _running is None:
        return
    _mark_replaced()
    flush()  # what is still held back is this request's
    request_id, _running = _running, None
    for index, raw in enumerate(_raws):
        if raw.marked:
            raw.marked = False
            _line(index, "\x1eGRID END " + request_id)


def note(text):
    """A line of the runner itself on standard error."""
    if _streams:
        flush()
        _mark(1)
        _line(1, hide(text))


def stack_text(error):
    """A raised exception with its stack, without the runner's own frames."""
    import traceback
    try:
        tb = error.__traceback__
        own = os.path.dirname(os.path.abspath(__file__)) + os.sep + "grid_"
        while tb is not None and tb.tb_frame.f_code.co_filename.startswith(own):
            tb = tb.tb_next
        lines = traceback.format_exception(type(error), error, tb)
        text = "".join(lines)
    except Exception:
        text = "%s: an exception that cannot be shown" % type(error).__name__
    return text.rstrip("\n")


def stack(error):
    """Notes it; the answer is what was noted, with whatever should not be in it."""
    text = stack_text(error)
    note(text)
    return text
