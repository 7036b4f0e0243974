"""The runner as a process: calling home, connections, markers, and how it ends."""
import os
import signal
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Edge, Runner, encode, until  # noqa: E402

HELLO = "def handler(event, context):\n    return {'statusCode': 200, 'body': event['path']}\n"
HANGS = """
import time
def handler(event, context):
    print('runs')
    time.sleep(1000)
"""
WAITS = """
import os, time
calls = 0
def handler(event, context):
    global calls
    calls += 1
    if event['path'] == '/slow':
        print('runs')
        while not os.path.exists(os.path.dirname(__file__) + '/go'):
            time.sleep(0.002)
    return calls
"""
START = "\x1eGRID START "
END = "\x1eGRID END "


def named(name):
    return [("x-grid-request-id", name)]


class ProcessTest(unittest.TestCase):
    maxDiff = None

    def start(self, code, **options):
        runner = Runner(code, **options)
        self.addCleanup(runner.close)
        return runner

    def go(self, runner):
        with open(os.path.join(runner.dir, "go"), "w"):
            pass

    def test_a_thousand_requests_on_one_connection(self):
        wire = self.start(HELLO).wire
        for i in range(1000):
            self.assertEqual(wire.ask(target="/fn/hello/%d" % i).text(), "/%d" % i)

    def test_dials_again_when_the_connection_ends(self):
        runner = self.start(HELLO)
        wire = runner.wire
        for _ in range(3):
            wire.sock.close()
            wire = runner.edge.accept()
            self.assertEqual(wire.ask().status, 200)

    def test_dials_again_when_the_edge_starts_again(self):
        runner = self.start(HELLO)
        runner.edge.close()
        os.unlink(runner.socket)
        runner.edge = Edge(runner.socket)
        self.assertEqual(runner.edge.accept().ask().text(), "/")

    def test_dials_when_the_edge_comes_later(self):
        runner = self.start(HELLO, listen=False)
        runner.connect_port()
        runner.edge = Edge(runner.socket)
        self.assertEqual(runner.edge.accept().ask().text(), "/")

    def test_serves_the_port_one_request_at_a_time(self):
        runner = self.start("""
import time
running = 0
def handler(event, context):
    global running
    running += 1
    most = running
    time.sleep(0.005)
    running -= 1
    return most
""")
        wires = [runner.wire, runner.connect_port(), runner.connect_port()]
        for _ in range(5):
            for wire in wires:
                wire.send(encode())
            self.assertEqual([wire.read().json() for wire in wires], [1, 1, 1])

    def test_health_is_answered_while_a_request_runs(self):
        runner = self.start(HANGS)
        runner.wire.send(encode())
        until(lambda: "runs" in runner.stdout, "the handler")
        self.assertEqual(runner.connect_port().ask(target="/health").json(), {"status": "ok"})

    def test_works_without_an_edge_as_in_a_plain_docker_run(self):
        runner = self.start(HELLO, edge=False, env={"GRID_ORPHAN_SECONDS": "0.01"})
        port = runner.connect_port()
        self.assertEqual(port.ask(target="/fn/hello/x").text(), "/x")
        self.assertEqual(port.ask(target="/ready").status, 200)

    def test_works_without_site(self):
        runner = self.start("import site\ndef handler(event, context):\n    return callable(exit)\n",
                            flags=("-I", "-S"))
        self.assertIs(runner.wire.ask().json(), True)

    def test_works_without_isolation(self):
        runner = self.start(HELLO, flags=())
        self.assertEqual(runner.wire.ask().status, 200)

    def test_takes_orders_from_the_edge_alone(self):
        runner = self.start("import os\ndef handler(event, context):\n    return os.environ.get('COLOUR')\n")
        port = runner.connect_port()
        order = {"method": "POST", "target": "/ready"}
        self.assertEqual(port.ask(**order, body='{"env": {"COLOUR": "red"}}').status, 404)
        self.assertEqual(port.ask(method="POST", target="/invoke", body='{"event": {}}').status, 404)
        self.assertEqual(runner.wire.ask(**order, body='{"env": {"COLOUR": "blue"}}').status, 200)
        self.assertEqual(port.ask().json(), "blue")

    def test_an_edge_that_starts_again_changes_nothing_by_handing_over_again(self):
        runner = self.start("import os\ndef handler(event, context):\n    return os.environ['COLOUR']\n")
        for colour in ("blue", "red"):
            order = {"method": "POST", "target": "/ready", "body": '{"env": {"COLOUR": "%s"}}' % colour}
            self.assertEqual(runner.wire.ask(**order).status, 200)
            self.assertEqual(runner.wire.ask().json(), "blue")
            runner.wire.sock.close()
            runner.wire = runner.edge.accept()

    def test_a_stream_is_closed_when_nobody_waits_for_the_invocation_any_more(self):
        runner = self.start("""
import time
def handler(event, context):
    try:
        while True:
            yield 'x'
            print('piece')
            time.sleep(0.001)
    finally:
        print('closed')
""")
        runner.wire.send(encode(method="POST", target="/invoke", body='{"event": {}}'))
        until(lambda: "piece" in runner.stdout, "the handler")
        runner.wire.sock.close()
        until(lambda: "closed" in runner.stdout, "the end of the stream")

    def test_a_taken_port_does_not_end_the_runner(self):
        first = self.start(HELLO)
        first.connect_port()
        second = self.start(HELLO, env={"PORT": str(first.port)})
        until(lambda: "does not listen" in second.stderr, "the note")
        self.assertEqual(second.wire.ask().status, 200)

    def test_ends_when_no_edge_is_reachable_for_long(self):
        runner = self.start(HELLO, env={"GRID_ORPHAN_SECONDS": "1"})
        self.assertEqual(runner.wire.ask().status, 200)
        runner.edge.close()
        self.assertEqual(runner.exit_code(), 0)

    def test_sigterm_ends_it_with_code_0(self):
        for _ in range(10):
            idle = self.start(HELLO)
            idle.wire.ask()
            idle.child.send_signal(signal.SIGTERM)
            self.assertEqual(idle.exit_code(), 0)

    def test_sigterm_ends_it_inside_a_handler(self):
        for code in (HANGS, "import asyncio\nasync def handler(event, context):\n"
                            "    print('runs')\n    await asyncio.sleep(1000)\n",
                     "def handler(event, context):\n    print('runs')\n    while True:\n"
                     "        try:\n            pass\n        except BaseException:\n            pass\n"):
            busy = self.start(code)
            busy.wire.send(encode())
            until(lambda: "runs" in busy.stdout, "the handler")
            busy.child.send_signal(signal.SIGTERM)
            self.assertEqual(busy.exit_code(), 0)

    def test_a_child_ends_by_sigterm_and_the_runner_stays(self):
        runner = self.start("""
import multiprocessing, time
def handler(event, context):
    child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(1000,))
    child.start()
    child.terminate()
    child.join()
    return child.exitcode
""")
        for _ in range(3):
            self.assertEqual(runner.wire.ask().json(), -signal.SIGTERM)

    def test_user_code_may_take_sigterm_over(self):
        runner = self.start("import os, signal\ngot = []\n"
                            "signal.signal(signal.SIGTERM, lambda *_: got.append(1))\n"
                            "def handler(event, context):\n"
                            "    os.kill(os.getpid(), signal.SIGTERM)\n    return got\n")
        self.assertEqual(runner.wire.ask().json(), [1])
        self.assertEqual(runner.wire.ask().json(), [1, 1])

    def leaves(self, raising, code, stderr=""):
        runner = self.start("import sys, os, atexit\natexit.register(print, 'at exit')\n"
                            "def handler(event, context):\n    print('bye', end='')\n    " + raising)
        runner.wire.send(encode(headers=named("r1")))
        with self.assertRaises(EOFError):
            runner.wire.read()
        self.assertEqual(runner.exit_code(), code)
        self.assertIn(stderr, runner.stderr)
        return runner

    def test_sys_exit_keeps_its_code(self):
        self.leaves("sys.exit(7)", 7)
        self.leaves("raise SystemExit", 0)
        runner = self.leaves("sys.exit('a reason')", 1, "a reason\n")
        self.assertEqual(runner.stdout, START + "r1\nbyeat exit\n" + END + "r1\n")

    def test_sys_exit_in_a_coroutine(self):
        runner = self.start("import sys\nasync def handler(event, context):\n    sys.exit(5)\n")
        runner.wire.send(encode())
        with self.assertRaises(EOFError):
            runner.wire.read()
        self.assertEqual(runner.exit_code(), 5)

    def test_sys_exit_with_a_thread_that_does_not_end(self):
        runner = self.start("import sys, threading, time\n"
                            "def handler(event, context):\n"
                            "    threading.Thread(target=time.sleep, args=(1000,)).start()\n"
                            "    sys.exit(3)\n")
        runner.wire.send(encode())
        self.assertEqual(runner.exit_code(), 3)

    def test_sys_exit_while_loading(self):
        runner = self.start("import sys\nsys.exit(4)\n")
        runner.wire.send(encode(target="/ready"))
        self.assertEqual(runner.exit_code(), 4)

    def test_markers_stand_around_the_output_of_each_request(self):
        runner = self.start("""
import os, sys
print('loading')
def handler(event, context):
    print('out', event['path'])
    print('err', event['path'], file=sys.stderr)
    print('cut off', end='')
    print('cut off', end='', file=sys.stderr)
""")
        runner.wire.ask(target="/fn/hello/1", headers=named("r1"))
        runner.wire.ask(target="/fn/hello/2", headers=named("r2"))
        for kind, text in (("out", runner.stdout), ("err", runner.stderr)):
            loading = "loading\n" if kind == "out" else ""
            self.assertEqual(text, "%sr1\n%s%s /1\ncut off\n%sr1\n%sr2\n%s /2\ncut off\n%sr2\n" % (
                START, loading, kind, END, START, kind, END))

    def test_output_that_is_buffered_elsewhere_comes_before_the_marker(self):
        runner = self.start("""
import io, sys
sys.stdout = io.TextIOWrapper(io.open(1, 'wb', buffering=65536, closefd=False), write_through=False)
def handler(event, context):
    print('kept back')
    sys.__stdout__.buffer.write(b'raw')
""")
        runner.wire.ask(headers=named("r1"))
        self.assertEqual(runner.stdout, START + "r1\nkept back\nraw\n" + END + "r1\n")

    def test_output_of_children_and_surrogates(self):
        runner = self.start("""
import os, subprocess
def handler(event, context):
    print('before \\ud800 \\u00e9')
    subprocess.run(['echo', 'child'])
""")
        self.assertEqual(runner.wire.ask(headers=named("r1")).status, 200)
        self.assertEqual(runner.stdout, START + "r1\nbefore \\ud800 \u00e9\nchild\n" + END + "r1\n")

    def test_the_stack_goes_to_standard_error_without_the_runner(self):
        runner = self.start("def inner():\n    raise TypeError('boom')\n"
                            "def handler(event, context):\n    inner()\n")
        runner.wire.ask(headers=named("r1"))
        inside = runner.stderr[runner.stderr.index(START):runner.stderr.index(END)]
        self.assertIn("line 2, in inner", inside)
        self.assertIn("TypeError: boom", inside)
        self.assertNotIn("grid_invoke", inside)

    def test_pipelined_requests_are_answered_in_order(self):
        wire = self.start(HELLO).wire
        wire.send(b"".join(encode(target="/fn/hello" + path) for path in ("/a", "/b", "/c")))
        self.assertEqual([wire.read().text() for _ in range(3)], ["/a", "/b", "/c"])

    def test_requests_in_single_bytes_and_without_a_host(self):
        wire = self.start(HELLO).wire
        for request in (b"POST /fn/hello/x HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}",
                        b"\r\nPOST /fn/hello/x HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n"
                        b"1\r\na\r\n0\r\nt: 1\r\n\r\n"):
            for i in range(len(request)):
                wire.send(request[i:i + 1])
            self.assertEqual(wire.read().text(), "/x")

    def test_expect_continue(self):
        wire = self.start(HELLO).wire
        wire.send(b"POST /fn/hello/x HTTP/1.1\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n")
        self.assertEqual(wire.read().status, 100)
        wire.send(b"{}")
        self.assertEqual(wire.read().text(), "/x")

    def test_connection_close_and_http_1_0(self):
        runner = self.start(HELLO)
        for request in (b"GET /fn/hello/x HTTP/1.1\r\nConnection: Close\r\n\r\n",
                        b"GET /fn/hello/x HTTP/1.0\r\n\r\n"):
            wire = runner.connect_port()
            wire.send(request)
            answer = wire.read()
            self.assertEqual((answer.text(), answer.headers["connection"]), ("/x", ["close"]))
            self.assertTrue(wire.closed())

    def test_any_method_that_is_a_token(self):
        wire = self.start("def handler(event, context):\n    return event['httpMethod']\n").wire
        self.assertEqual(wire.ask(method="BREW").json(), "BREW")

    def test_garbage_is_refused_and_the_runner_stays(self):
        runner = self.start(HELLO)
        wire = runner.wire
        head = b"POST /fn/x HTTP/1.1\r\n"
        for data in (b"hello\r\n\r\n", b"\x00\xff\x01\r\n\r\n", b"GET /fn/x HTTP/2.0\r\n\r\n",
                     b"GET  /fn/x HTTP/1.1\r\n\r\n", b"G(T /fn/x HTTP/1.1\r\n\r\n",
                     b"GET /fn/\x00 HTTP/1.1\r\n\r\n",
                     head + b"broken\r\n\r\n", head + b"a b: c\r\n\r\n", head + b"a : c\r\n\r\n",
                     head + b"a: b\x00c\r\n\r\n", head + b"a: b\nc: d\r\n\r\n",
                     head + b"a: b\r\n c\r\n\r\n", head + b": c\r\n\r\n",
                     head + b"content-length: +1\r\n\r\na", head + b"content-length: \r\n\r\n",
                     head + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
                     head + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
                     head + b"transfer-encoding: gzip\r\n\r\n",
                     head + b"transfer-encoding: chunked, chunked\r\n\r\n",
                     head + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
                     head + b"transfer-encoding: chunked\r\n\r\n-1\r\n",
                     head + b"transfer-encoding: chunked\r\n\r\n1\r\nabc",
                     b"GET /fn/x HTTP/1.1\r\na: " + b"b" * 70000 + b"\r\n\r\n", b"x" * 80000):
            with self.subTest(data=data[:60]):
                wire.send(data)
                self.assertGreaterEqual(wire.read().status, 400)
                self.assertTrue(wire.closed())
                wire = runner.edge.accept()
                self.assertEqual(wire.ask().text(), "/")

    def test_connections_that_end_in_the_middle(self):
        runner = self.start(HELLO)
        for data in (b"", b"GET", b"POST /fn/x HTTP/1.1\r\ncontent-length: 9\r\n\r\nabc",
                     b"POST /fn/x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc"):
            port = runner.connect_port()
            port.send(data)
            port.sock.close()
        self.assertEqual(runner.wire.ask().text(), "/")

    def test_headers_of_60_kib_are_fine(self):
        wire = self.start("def handler(event, context):\n"
                          "    return len(event['headers']['x-long'])\n").wire
        self.assertEqual(wire.ask(headers=[("x-long", "b" * 60000)]).json(), 60000)

    def test_dials_again_while_a_request_of_the_lost_connection_still_runs(self):
        runner = self.start(WAITS)
        runner.wire.send(encode(target="/fn/hello/slow"))
        until(lambda: "runs" in runner.stdout, "the handler")
        runner.wire.sock.close()
        wire = runner.edge.accept()
        self.assertEqual(wire.ask(target="/health").status, 200)
        self.go(runner)
        self.assertEqual(wire.ask().json(), 2)

    def test_ends_without_an_edge_although_a_handler_hangs(self):
        runner = self.start(HANGS, env={"GRID_ORPHAN_SECONDS": "0.5"})
        runner.wire.send(encode())
        until(lambda: "runs" in runner.stdout, "the handler")
        runner.edge.close()
        self.assertEqual(runner.exit_code(), 0)

    def test_a_client_that_leaves_before_its_turn_costs_nothing(self):
        runner = self.start(WAITS)
        runner.wire.send(encode(target="/fn/hello/slow"))
        until(lambda: "runs" in runner.stdout, "the handler")
        port = runner.connect_port()
        port.send(encode())
        port.sock.close()
        other = runner.connect_port()
        for _ in range(5):
            other.ask(target="/health")
        self.go(runner)
        self.assertEqual(runner.wire.read().json(), 1)
        self.assertEqual(runner.wire.ask().json(), 2)


if __name__ == "__main__":
    unittest.main()
