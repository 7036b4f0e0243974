"""The SSRF guard: what the function may connect to, enforced inside the process.

Its base is an audit hook (grid_guard_hook), which nothing can remove: the interpreter calls it in
each connect, sendto and sendmsg of any socket with what the caller gave, and it lets only the
address literals pass that the list allows. Names are resolved above it: grid_guard_socket hands
checked literals down, and grid_guard_http words the error as callers of HTTP libraries expect it.

Out of its reach: native code (ctypes, extension modules, /proc/self/mem) and other programs
(subprocess, processes that multiprocessing spawns). There the firewall alone decides."""
import _socket
import os
import sys

from grid_guard_hook import make_hook, make_refused

AF_INET, AF_INET6 = _socket.AF_INET, _socket.AF_INET6


class SsrfBlocked(OSError):
    """A connection that the guard refused. `connect_ex` raises it as well: its callers would
    take a number for a fault of the network."""

    status = status_code = code = 452

    def __init__(self, address, host=None, port=None, why=""):
        super().__init__("SSRF guard blocked outbound request to %.253s%s" % (address, why))
        self.errno = 13  # EACCES
        self.address = address
        self.host = address if host is None else host
        self.port = port
        self.why = why

    def __str__(self):
        return self.args[0]

    def __reduce__(self):
        return SsrfBlocked, (self.address, self.host, self.port, self.why)


class ListError(Exception):
    """The list of ranges is missing or makes no sense."""


class Policy:
    """The list, parsed: tuples of (first, last) numbers."""

    def __init__(self, lines):
        found = {("deny", 4): [], ("allow", 16): [], ("deny", 16): []}
        for line in lines:
            words = line.split(None, 2)
            if not words or words[0].startswith("#"):
                continue
            try:
                text, _, length = words[1].partition("/")
                packed = pack(text)
                free = len(packed) * 8 - int(length)
                first = int.from_bytes(packed, "big") >> free << free
                found[words[0], len(packed)].append((first, first + (1 << free) - 1))
            except (IndexError, KeyError, ValueError, OSError):
                raise ListError("the list of ranges has a line that makes no sense: %s"
                                % line) from None
        if not all(found.values()):
            raise ListError("the list of ranges is not complete")
        self.refused = make_refused(*map(tuple, found.values()))

    def check(self, literal, host, port):
        """Raises SsrfBlocked for an address literal that is not allowed."""
        refused = self.refused(pack(literal))
        if refused is not None:
            family = AF_INET if len(refused) == 4 else AF_INET6
            raise SsrfBlocked(_socket.inet_ntop(family, refused), host, port)

    def check_answer(self, answer, host, port):
        """Checks every address of what getaddrinfo answered."""
        for *_, address in answer:
            if is_literal(address[0]):
                self.check(address[0], host, port)
        return answer


def pack(literal):
    return _socket.inet_pton(AF_INET6 if ":" in literal else AF_INET, literal)


def is_literal(host):
    try:
        pack(host)
        return True
    except (OSError, ValueError, TypeError):
        return False


def read_list():
    """The list's lines: beside the runner in an image, in a folder next to it in the sources."""
    here = os.path.dirname(os.path.abspath(__file__))
    for path in (here + "/egress.txt", os.path.dirname(here) + "/egress/ranges.txt"):
        try:
            with open(path, "rb") as file:
                return file.read().decode("ascii").splitlines()
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise ListError("cannot read %s: %s" % (path, error)) from None
    raise ListError("there is no %s/egress.txt" % here)


class _Finder:
    """Patches modules when they are imported, also again (reload, a new import after `del`)."""

    def __init__(self, patches):
        self._patches = patches

    def find_spec(self, name, path=None, target=None):
        patch = self._patches.get(name)
        if patch is None:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, patch)
                return spec
        return None


class _Loader:
    """Runs a module by its own loader, then patches it."""

    def __init__(self, loader, patch):
        self._loader = loader
        self._patch = patch

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        apply(self._patch, module)


def apply(patch, module):
    try:
        patch(module)
    except AttributeError:
        pass  # not the module, or not the version of it, that the patch knows: the hook holds


def install():
    """Guards the process from here on. Raises ListError when there is no usable list."""
    policy = Policy(read_list())
    # Loaded now: later, user code could put other modules in their place.
    import grid_guard_http
    import grid_guard_socket
    sys.addaudithook(make_hook(policy.refused, SsrfBlocked))
    patches = {**grid_guard_socket.patches(policy, SsrfBlocked), **grid_guard_http.patches(policy, SsrfBlocked)}
    for name, patch in patches.items():
        if name in sys.modules:
            apply(patch, sys.modules[name])
    sys.meta_path.insert(0, _Finder(patches))
