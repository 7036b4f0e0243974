# Beneath and beside Python's modules, and lies.

#= socket reloaded | SSRF guard blocked | fresh
import socket, importlib
importlib.reload(socket).socket().connect((host, port))

#= socket imported anew | SSRF guard blocked | fresh
import sys
for name in ('socket', '_socket', 'grid_guard', 'grid_guard_hook', 'grid_guard_socket', 'grid_guard_http'):
    sys.modules.pop(name, None)
sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != '_Finder']
import socket
socket.socket().connect((host, port))

#= methods put back | SSRF guard blocked | fresh
import socket, _socket
for name in ('connect', 'connect_ex', 'sendto', 'sendmsg'): setattr(socket.socket, name, getattr(_socket.socket, name))
socket.socket().connect((host, port))

#= the guard's names replaced | SSRF guard blocked | fresh
import grid_guard, grid_guard_hook, _socket, sys
class Yes:
    def __getattr__(self, n): return lambda *a, **k: None
for m in (grid_guard, grid_guard_hook):
    for name in list(vars(m)):
        if not name.startswith('__') and name != 'SsrfBlocked': setattr(m, name, Yes())
import builtins
kept = builtins.isinstance, builtins.len
builtins.isinstance = lambda *a: False
try: _socket.socket().connect((host, port))
finally: builtins.isinstance = kept[0]

#= an error that raises nothing | SSRF guard blocked | fresh
import _socket, grid_guard
grid_guard.SsrfBlocked.__str__ = lambda self: 'SSRF guard blocked'
grid_guard.SsrfBlocked.__init__ = lambda self, *a: None
_socket.socket().connect((host, port))

#= defaults of the hook's functions | SSRF guard blocked | fresh
import gc, types, _socket, grid_guard_hook
own = vars(grid_guard_hook)
for f in [o for o in gc.get_objects() if isinstance(o, types.FunctionType) and o.__globals__ is own]:
    for name, value in (('__defaults__', ()), ('__kwdefaults__', {}), ('__code__', (lambda *a: None).__code__)):
        try: setattr(f, name, value)
        except Exception: pass
_socket.socket().connect((host, port))

#= cells and frames of a blocked call | SSRF guard blocked | fresh
import _socket, ctypes, sys
try: _socket.socket().connect(('127.0.0.1', 9))
except OSError as e: trace = e.__traceback__
while trace:
    for name in list(trace.tb_frame.f_locals):
        if name.startswith('_') and trace.tb_frame.f_globals is not globals():
            trace.tb_frame.f_locals[name] = lambda *a, **k: None
    trace = trace.tb_next
_socket.socket().connect((host, port))

#= tracing | SSRF guard blocked | fresh
import sys, threading, _socket
def trace(frame, event, arg):
    if frame.f_globals.get('__name__') == 'grid_guard_hook': raise SystemExit('traced')
    return trace
sys.settrace(trace)
sys.setprofile(trace)
try: _socket.socket().connect((host, port))
finally: sys.settrace(None); sys.setprofile(None)

#= audit hooks of its own | SSRF guard blocked | fresh
import sys, _socket
seen = []
sys.addaudithook(lambda event, args: seen.append(args) if event.startswith('socket') else None)
_socket.socket().connect((host, port))

#= a host that lies | SSRF guard blocked
import _socket, socket
class Lie(str):
    def __str__(self): return '20.0.0.1'
    def __contains__(self, x): return False
    def __eq__(self, other): return True
    __hash__ = str.__hash__
    def partition(self, x): return ('20.0.0.1', '', '')
    def encode(self, *a): return b'20.0.0.1'
socket.socket().connect((Lie(host), port))

#= an address that lies | SSRF guard blocked
import _socket
class Lie(tuple):
    def __getitem__(self, n): return ('20.0.0.1', 80)[n]
    def __len__(self): return 0
    def __iter__(self): return iter(('20.0.0.1', 80))
_socket.socket().connect(Lie((host, port)))

#= bytes instead of text | SSRF guard blocked
import _socket
_socket.socket().connect((host.encode(), port))

#= bytes that another thread changes |
import socket, threading, sys
name = bytearray(host, 'ascii')
stop = []
def flip():
    while not stop:
        for text in (cover, host):
            try: name[:] = text.encode()
            except BufferError: pass
kept = sys.getswitchinterval()
sys.setswitchinterval(1e-6)
thread = threading.Thread(target=flip)
thread.start()
try:
    for _ in range(100):
        with socket.socket() as s:
            s.settimeout(1)
            try: s.connect((name, port))
            except OSError: pass
finally: stop.append(1); thread.join(); sys.setswitchinterval(kept)

#= no room left on the stack | SSRF guard blocked
import _socket, sys
found = []
def deep(n):
    try: return deep(n + 1)
    except RecursionError: pass
    try: s = _socket.socket(); s.connect((host, port)); found.append(s)
    except (RecursionError, OSError) as e: last.append(e)
last = []
deep(0)
if not found: raise last[-1]
