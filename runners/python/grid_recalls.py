"""What the edge has called back: requests that it sent ahead of their turn and that must not begin any more."""
import os


class Recalls:
    def __init__(self, settings):
        self._path = os.path.join(os.path.dirname(settings.socket), "recalls")
        self._file = None

    def has(self, request):
        """Whether this request was called back."""
        turns = request.headers.get("x-grid-turn")
        if not turns or not turns[0].isdigit():
            return False
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            last = os.pread(self._file, 8, 0)
        except OSError:
            return False  # only the function itself can have brought that about
        return len(last) == 8 and int(turns[0]) <= int.from_bytes(last, "little")
