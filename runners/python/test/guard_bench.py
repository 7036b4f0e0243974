"""What the guard costs: per connection that it allows, and at the runner's start. Run it by hand where
there is no network; a connection then fails at once, with and without the guard alike:

    docker run --rm --network none --tmpfs /tmp -v "$PWD/runners:/src:ro" IMAGE \\
        python3 /src/python/test/guard_bench.py"""
import compileall
import os
import py_compile
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guard_probe import no_uplink  # noqa: E402
from harness import RUNNER, Wire  # noqa: E402

ROUNDS = 30
CALLS = {
    "socket.connect": "s = socket.socket()\ndef call(): s.connect(('8.8.8.8', 80))",
    "socket.connect, IPv6": "s = socket.socket(10)\ndef call(): s.connect(('2606:4700::1', 80))",
    "socket.sendto": "s = socket.socket(type=2)\ndef call(): s.sendto(b'x', ('8.8.8.8', 80))",
    "create_connection": "def call(): socket.create_connection(('8.8.8.8', 80))",
    "create_connection, name": "def call(): socket.create_connection(('134744072', 80))",
    "http.client": "def call(): http.client.HTTPConnection('8.8.8.8').request('GET', '/')",
    "urlopen": "def call(): urllib.request.urlopen('http://8.8.8.8/')",
}
CHILD = """
import sys
sys.path.insert(0, %r)
import _socket
if %r:
    import grid_guard
    grid_guard.install()
import http.client, socket, statistics, time, urllib.request
%s
times = []
for _ in range(300):
    start = time.perf_counter()
    try:
        call()
    except OSError as error:
        assert "unreachable" in str(error) or "Cannot assign" in str(error), error
    times.append(time.perf_counter() - start)
print(statistics.median(times))
"""


def row(name, without, guarded, unit):
    plain, more = statistics.median(without), statistics.median(guarded)
    print("%-28s without %8.1f %s   with %8.1f %s   more %7.1f %s"
          % (name, plain, unit, more, unit, more - plain, unit), flush=True)


def connections():
    for name, code in CALLS.items():
        found = {False: [], True: []}
        for _ in range(ROUNDS // 3):
            for guarded in found:
                script = CHILD % (os.path.dirname(RUNNER), guarded, code)
                out = subprocess.run([sys.executable, "-I", "-c", script], check=True,
                                     stdout=subprocess.PIPE).stdout
                found[guarded].append(float(out) * 1e6)
        row(name, found[False], found[True], "us")


def copy_of_runner(folder, guarded):
    """The runner as in an image: flat and compiled; without the guard by leaving its call out."""
    source = os.path.dirname(RUNNER)
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("test", "__pycache__"))
    shutil.copy(os.path.join(os.path.dirname(source), "egress", "ranges.txt"), folder + "/egress.txt")
    if not guarded:
        path = folder + "/grid_runner.py"
        with open(path) as file:
            text = file.read()
        assert text.count("    _guard()\n") == 1
        with open(path, "w") as file:
            file.write(text.replace("    _guard()\n", ""))
    compileall.compile_dir(folder, quiet=1,
                           invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)


def one_start(app):
    """Milliseconds until the runner dials and until it has answered its first request."""
    path = app + "/edge.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        env = {"PATH": os.environ["PATH"], "GRID_FUNCTION_DIR": app, "GRID_SOCKET": path, "PORT": "0"}
        start = time.perf_counter()
        child = subprocess.Popen([sys.executable, "-I", app + "/smsly_function_runner.py"], env=env)
        wire = Wire(listener.accept()[0])
        dialled = time.perf_counter() - start
        assert wire.ask().status == 200
        answered = time.perf_counter() - start
        child.kill()
        child.wait()
        wire.sock.close()
    os.unlink(path)
    return dialled * 1e3, answered * 1e3


def starts():
    folder = tempfile.mkdtemp(prefix="grid-")
    apps = {guarded: os.path.join(folder, str(guarded)) for guarded in (False, True)}
    for guarded, app in apps.items():
        copy_of_runner(app, guarded)
        with open(app + "/function.py", "w") as file:
            file.write("def handler(event, context):\n    return 'ok'\n")
    found = {guarded: [one_start(app)] and [] for guarded, app in apps.items()}
    for _ in range(ROUNDS):
        for guarded, app in apps.items():
            found[guarded].append(one_start(app))
    for index, name in enumerate(("start until dialled", "start until answered")):
        row(name, *([pair[index] for pair in found[guarded]] for guarded in (False, True)), "ms")
    shutil.rmtree(folder)


if __name__ == "__main__":
    no_uplink()
    connections()
    starts()
