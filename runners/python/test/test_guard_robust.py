"""The guard against user code that works on it. What must hold each time afterwards: a denied address
is denied and an allowed one allowed, through `socket` and through `_socket`."""
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guard_probe import GuardTest, MESSAGE  # noqa: E402

# The means to connect, taken before the attack, so that it cannot break them.
BEFORE = "import _socket\n_s = _socket.socket\nundo = lambda: None\n"
DENIED = "try:\n    _s().connect(('10.1.2.3', 80))\nfinally:\n    undo()"
ALLOWED = DENIED.replace("10.1.2.3", "8.8.8.8")
FIND = ("import gc, types\nparts = [f for f in gc.get_objects() if type(f) is types.FunctionType\n"
        "         and f.__code__.co_filename.endswith('grid_guard_hook.py')]\n"
        "assert len(parts) >= 5, parts\n")

ATTACKS = {
    "patched builtins":
        "import builtins\nkept = dict(vars(builtins))\nundo = lambda: vars(builtins).update(kept)\n"
        "for name in ('isinstance', 'type', 'len', 'tuple', 'OSError', 'ValueError', 'frozenset'):\n"
        "    vars(builtins)[name] = lambda *args: None\n",
    "another socket class": "import socket\nsocket.socket = _s\nsocket.SocketType = _s\n",
    "methods put back":
        "import socket\nfor name in ('connect', 'connect_ex', 'sendto', 'sendmsg'):\n"
        "    delattr(socket.socket, name)\n",
    "socket reloaded": "import importlib, socket\nimportlib.reload(socket)\n",
    "socket imported again": "import sys, socket\ndel sys.modules['socket']\nimport socket\n",
    "_socket imported again":
        "import sys\ndel sys.modules['_socket']\nimport _socket\n_s = _socket.socket\n",
    "socket loaded under another name":
        "import importlib.util, _socket, socket\n"
        "spec = importlib.util.spec_from_file_location('other', socket.__file__)\n"
        "import sys\nother = sys.modules['other'] = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(other)\n"
        "_s = other.socket\n",
    "the finder removed": "import sys\ndel sys.meta_path[0]\nsys.modules.pop('socket', None)\nimport socket\n",
    "the guard's modules deleted":
        "import sys\nfor name in [n for n in sys.modules if n.startswith('grid_')]:\n"
        "    if 'guard' in name: del sys.modules[name]\n",
    "the guard's modules emptied":
        "import sys\nfor name in [n for n in sys.modules if n.startswith('grid_guard')]:\n"
        "    for key in list(vars(sys.modules[name])):\n"
        "        if key != '__builtins__': setattr(sys.modules[name], key, lambda *args: None)\n",
    "a harmless error class":
        "import grid_guard\ngrid_guard.SsrfBlocked.__str__ = lambda self: 'ok'\n",
    "an audit hook of its own": "import sys\nsys.addaudithook(lambda event, args: None)\n",
    "_socket emptied":
        "for name in list(vars(_socket)):\n    setattr(_socket, name, lambda *args: b'\\x08\\x08\\x08\\x08')\n",
    "methods of built-in types":
        "import gc\n"
        "for kind, name in ((str, '__contains__'), (int, 'from_bytes'), (bytes, 'decode'),\n"
        "                   (int, 'to_bytes'), (tuple, '__getitem__'), (str, 'endswith')):\n"
        "    gc.get_referents(kind.__dict__)[0][name] = lambda *args, **options: None\n",
    "tracing":
        "import sys, threading\ndef trace(frame, event, arg):\n"
        "    if 'host' in frame.f_locals: frame.f_locals['host'] = '8.8.8.8'\n"
        "    if 'text' in frame.f_locals: frame.f_locals['text'] = '8.8.8.8'\n"
        "    return trace\nundo = lambda: sys.settrace(None)\nsys.settrace(trace)\n",
    "tracing asked for by the hook":
        FIND + "for part in parts: part.__cantrace__ = True\n"
        "import sys\ndef trace(frame, event, arg):\n"
        "    for name in ('host', 'text'):\n"
        "        if name in frame.f_locals: frame.f_locals[name] = '8.8.8.8'\n"
        "    return trace\nundo = lambda: sys.settrace(None)\nsys.settrace(trace)\n",
    "the hook's cells":
        FIND + "for part in parts:\n    for cell in part.__closure__ or ():\n"
        "        cell.cell_contents = lambda *args: None\n",
    "the hook's dictionaries":
        FIND + "for part in parts:\n    part.__dict__.clear()\n    part.__globals__.clear()\n",
    "deep recursion":
        "def deep():\n    try:\n        deep()\n    except RecursionError:\n"
        "        _s().connect(('10.1.2.3', 80))\n        raise SystemExit('connected')\n"
        "try:\n    deep()\nexcept (RecursionError, OSError):\n    pass\n",
}


class AttackTest(GuardTest):
    def test_attacks(self):
        for name, attack in ATTACKS.items():
            with self.subTest(name):
                # Some attacks break the process for everything else, so each has its own.
                told = self.probe(BEFORE + attack + DENIED, self.fresh())
                self.assertIn("grid_guard.SsrfBlocked", told.get("kinds", told), told)
                if name != "a harmless error class":
                    self.assertEqual(told["text"], MESSAGE + "10.1.2.3")
                self.allowed(BEFORE + attack + ALLOWED, self.fresh())

    def test_the_patches_come_back(self):
        for name in ("socket reloaded", "socket imported again"):
            with self.subTest(name):
                code = BEFORE + ATTACKS[name] + "socket.create_connection(('localhost', 80))"
                self.blocked(code, ("127.0.0.1", "::1"), runner=self.fresh())
        self.blocked("import sys, urllib.request\nfor name in list(sys.modules):\n"
                     "    if name.startswith('urllib'): del sys.modules[name]\n"
                     "import urllib.request\nurllib.request.urlopen('http://10.1.2.3/')",
                     "10.1.2.3", "urllib.error.URLError", runner=self.fresh())

    def test_the_hooks_functions_cannot_be_changed(self):
        for change in ("part.__code__ = (lambda *args: None).__code__",
                       "part.__defaults__ = ()", "part.__defaults__ = None", "del part.__defaults__",
                       "part.__kwdefaults__ = {}"):
            with self.subTest(change):
                told = self.probe(FIND + "for part in parts:\n    %s" % change)
                self.assertEqual(told.get("text"), "the SSRF guard cannot be changed")
        self.works("def own(a=1): pass\nown.__defaults__ = (2,)\n"
                   "own.__code__ = (lambda a: 3).__code__\nresult = own()", 3)

    def test_no_second_interpreter(self):
        told = self.probe("import _xxsubinterpreters\n_xxsubinterpreters.create()")
        self.assertIn("no second interpreter", told["text"])
        told = self.probe(
            "import importlib.machinery as m, importlib.util, sys\n"
            "real = m.PathFinder.find_spec('_xxsubinterpreters')\n"
            "class Name(str):\n    def endswith(self, *args): return False\n"
            "loader = m.ExtensionFileLoader(Name('a._xxsubinterpreters'), real.origin)\n"
            "spec = importlib.util.spec_from_loader(loader.name, loader, origin=real.origin)\n"
            "importlib.util.module_from_spec(spec).create()")
        self.assertIn("no second interpreter", told["text"])

    def test_a_forked_child_is_guarded(self):
        self.works(BEFORE + "import os\npid = os.fork()\nif pid == 0:\n    try:\n"
                   "        _s().connect(('10.1.2.3', 80))\n    except OSError as error:\n        os._exit(7 if error.errno == 13 else 8)\n"
                   "    os._exit(9)\nresult = os.waitpid(pid, 0)[1] >> 8", 7)


class LiarsTest(GuardTest):
    """Hosts and addresses of types that lie about themselves."""

    LIARS = '''
import socket, _socket

class Host(str):
    def __str__(self): return "8.8.8.8"
    def __eq__(self, other): return True
    def __contains__(self, item): return False
    def __hash__(self): return hash("8.8.8.8")
    def encode(self, *args): return b"8.8.8.8"
    def split(self, *args): return ["8", "8", "8", "8"]
    def partition(self, *args): return ("8.8.8.8", "", "")
    @property
    def __class__(self): return int

class Bytes(bytes):
    def __bytes__(self): return b"8.8.8.8"
    def decode(self, *args): return "8.8.8.8"

class Address(tuple):
    def __getitem__(self, index): return ("8.8.8.8", 80)[index]
    def __iter__(self): return iter(("8.8.8.8", 80))
    def __len__(self): return 0
    @property
    def __class__(self): return str

class Family(_socket.socket):
    family = socket.AF_UNIX
'''

    def never_connects(self, call):
        """Blocked, or the interpreter got the public address that the liar claims to be."""
        told = self.probe(self.LIARS + "import sys\nseen = []\n"
                          "def see(event, args):\n"
                          "    if event in ('socket.connect', 'socket.sendto', 'socket.sendmsg'):\n"
                          "        seen.append([type(args[1][0]).__name__, args[1][0]])\n"
                          "sys.addaudithook(see)\ntry:\n    %s\nexcept OSError as error:\n"
                          "    if error.errno != 101: raise\nresult = seen" % call)
        if told != {"result": [["str", "8.8.8.8"]]}:
            self.assertIn("grid_guard.SsrfBlocked", told.get("kinds", told), told)

    def test_liars_below_the_patches(self):
        for address in ("(Bytes(b'10.1.2.3'), 80)", "(bytearray(b'10.1.2.3'), 80)",
                        "(bytearray(b'8.8.8.8'), 80)"):
            with self.subTest(address):
                self.blocked(self.LIARS + "_socket.socket().connect(%s)" % address,
                             "a host of a special type")
        self.blocked(self.LIARS + "_socket.socket().connect(Address(('10.1.2.3', 80)))", "10.1.2.3")
        self.blocked(self.LIARS + "Family().connect(('10.1.2.3', 80))", "10.1.2.3")
        # The interpreter asks this one to encode itself; it has no address to check, whatever it says.
        self.blocked(self.LIARS + "_socket.socket().connect((Host('10.1.2.3'), 80))",
                     "a host of a special type")

    def test_liars_above_the_patches(self):
        for address in ("(Host('10.1.2.3'), 80)", "(Bytes(b'10.1.2.3'), 80)",
                        "Address(('10.1.2.3', 80))"):
            for call in ("socket.socket().connect(%s)", "socket.socket().connect_ex(%s)",
                         "socket.socket(type=2).sendto(b'x', %s)",
                         "socket.socket(type=2).sendmsg([b'x'], [], 0, %s)"):
                with self.subTest(call % address):
                    self.never_connects(call % address)

    def test_a_named_tuple_and_a_plain_subclass_work(self):
        self.allowed("import collections, socket\nA = collections.namedtuple('A', 'host port')\n"
                     "socket.socket().connect(A('8.8.8.8', 80))")
        self.allowed("import socket\nclass S(str): pass\nsocket.socket().connect((S('8.8.8.8'), 80))")

    def test_a_socket_that_changes_its_family_while_it_is_checked(self):
        # Were the host's class asked, this one would turn the socket into one without hosts.
        self.blocked('''
import _socket
sock = _socket.socket()
class Host(str):
    def encode(self, *args): return b"10.1.2.3"
    @property
    def __class__(self):
        sock.__init__(_socket.AF_NETLINK, _socket.SOCK_RAW, 0, fileno=sock.fileno())
        return int
sock.connect((Host("a"), 80))''', "a host of a special type")


if __name__ == "__main__":
    unittest.main()
