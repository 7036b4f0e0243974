"""Bodies that are produced while they are sent, seen from outside of the process: what is shared
with the Node runner is in cases/stream.json."""
import os
import re
import signal
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Runner, encode, until  # noqa: E402

START = "\x1eGRID START "
END = "\x1eGRID END "

# A function's way to wait for the test: `told(name)` until the test calls `tell`.
TOLD = """
import asyncio, os, time
def path(name):
    return os.path.join(os.path.dirname(__file__), name)
def told(name):
    while not os.path.exists(path(name)):
        time.sleep(0.002)
"""
PRODUCERS = {
    "generator": TOLD + """
def handler(event, context):
    if event['path'] == '/plain':
        yield {'statusCode': 200}
        return
    try:
        for i in range(1, 4):
            print('makes', i)
            yield 'data: %d\\n\\n' % i
            told('go%d' % i)
    finally:
        print('closed')
""",
    "async generator": TOLD + """
async def handler(event, context):
    try:
        for i in range(1, 4):
            print('makes', i)
            yield 'data: %d\\n\\n' % i
            while not os.path.exists(path('go%d' % i)):
                await asyncio.sleep(0.002)
    finally:
        await asyncio.sleep(0)
        print('closed')
""",
    "file": TOLD + """
import io
class File(io.RawIOBase):
    n = 0
    def readable(self):
        return True
    def readinto(self, buffer):
        if self.n:
            told('go%d' % self.n)
        self.n += 1
        data = b'data: %d\\n\\n' % self.n if self.n < 4 else b''
        buffer[:len(data)] = data
        return len(data)
    def close(self):
        if not self.closed:
            print('closed')
        super().close()
def handler(event, context):
    return {'statusCode': 200, 'body': io.BufferedReader(File())}
""",
}
PIECES = [b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"]


def named(name):
    return {"headers": [("x-grid-request-id", name)]}


def each_producer(test):
    def run(self):
        for kind, code in PRODUCERS.items():
            with self.subTest(kind):
                test(self, self.start(code))
    return run


class StreamTest(unittest.TestCase):
    maxDiff = None

    def start(self, code, **options):
        runner = Runner(code, **options)
        self.addCleanup(runner.close)
        return runner

    def tell(self, runner, *names):
        for name in names:
            with open(os.path.join(runner.dir, name), "w"):
                pass

    @each_producer
    def test_each_piece_arrives_before_the_next_one_is_made(self, runner):
        wire = runner.wire
        wire.send(encode(**named("r1")))
        self.assertEqual(wire.read_head().outcome, "ok")
        for i in range(3):
            self.assertEqual(wire.read_chunk(), PIECES[i])
            self.tell(runner, "go%d" % (i + 1))
        self.assertEqual(wire.read_chunk(), b"")
        self.assertTrue(runner.stdout.endswith("closed\n" + END + "r1\n"), runner.stdout)
        self.assertEqual(wire.ask(target="/health").status, 200)

    @each_producer
    def test_is_closed_when_the_client_has_left(self, runner):
        runner.wire.send(encode(**named("r1")))
        runner.wire.read_head()
        self.assertEqual(runner.wire.read_chunk(), PIECES[0])
        runner.wire.sock.close()
        self.tell(runner, "go1")
        until(lambda: runner.stdout.endswith("closed\n" + END + "r1\n"), "the end of the log")
        self.assertNotIn("makes 3", runner.stdout)
        self.tell(runner, "go2", "go3")
        self.assertEqual(runner.edge.accept().ask().chunks, PIECES)
        self.assertEqual(runner.stderr, "")

    @each_producer
    def test_dials_again_while_the_stream_of_the_lost_connection_still_runs(self, runner):
        runner.wire.send(encode(**named("r1")))
        runner.wire.read_head()
        runner.wire.sock.close()
        wire = runner.edge.accept()
        wire.send(encode())
        self.tell(runner, "go1", "go2", "go3")
        self.assertEqual(wire.read().chunks, PIECES)

    def test_no_connection_stays_open(self):
        runner = self.start("import os, time\ndef handler(event, context):\n"
                            "    if event['path'] == '/count':\n        yield str(len(os.listdir('/proc/self/fd')))\n"
                            "        return\n    yield 'a'\n    time.sleep(0.3)\n    yield 'b'\n")
        before = runner.wire.ask(target="/fn/hello/count").text()
        for _ in range(5):
            port = runner.connect_port()
            port.send(encode())
            port.read_head()
            port.sock.close()
        until(lambda: runner.wire.ask(target="/fn/hello/count").text() == before, "the connections to end")

    @each_producer
    def test_a_client_of_the_port_leaves(self, runner):
        port = runner.connect_port()
        port.send(encode(**named("r1")))
        port.read_head()
        self.assertEqual(port.read_chunk(), PIECES[0])
        port.sock.close()
        self.tell(runner, "go1", "go2", "go3")
        self.assertEqual(runner.wire.ask(**named("r2")).chunks, PIECES)
        self.assertEqual(runner.stderr, "")

    @each_producer
    def test_is_closed_after_its_first_piece_for_head(self, runner):
        self.tell(runner, "go1")
        for i in range(3):
            answer = runner.wire.ask(method="HEAD", **named("r%d" % i))
            self.assertEqual(answer.headers["transfer-encoding"], ["chunked"])
            self.assertTrue(runner.stdout.endswith("closed\n%sr%d\n" % (END, i)), runner.stdout)
        self.assertEqual(runner.stderr, "")

    def test_the_log_of_a_stream_has_its_marks_also_of_what_fails(self):
        runner = self.start("def handler(event, context):\n    print('a')\n    yield '1'\n"
                            "    print('b')\n    raise TypeError('boom')\n")
        self.assertTrue(runner.wire.ask(**named("r1")).cut)
        self.assertEqual(runner.stdout, START + "r1\na\nb\n" + END + "r1\n")
        self.assertRegex(runner.stderr, re.compile(
            "^\x1eGRID START r1\nTraceback .*function.py\", line 5, in handler\n.*\n"
            "TypeError: boom\nThe response was cut off after 1 bytes.\n\x1eGRID END r1\n$", re.S))
        self.assertNotIn("grid_", runner.stderr)

    def test_hundreds_of_streams_and_other_answers_on_one_connection(self):
        wire = self.start("def pieces(path):\n    yield 'a'\n    yield path\n"
                          "def handler(event, context):\n"
                          "    return 1 if event['path'] == '/plain' else pieces(event['path'])\n").wire
        for i in range(300):
            self.assertEqual(wire.ask(target="/fn/hello/%d" % i).chunks, [b"a", b"/%d" % i])
            self.assertEqual(wire.ask(target="/fn/hello/plain").json(), 1)

    def test_pipelined_streams_are_answered_in_order(self):
        wire = self.start("def handler(event, context):\n    yield event['path']\n    yield 'b'\n").wire
        wire.send(b"".join(encode(target="/fn/hello" + path) for path in ("/a", "/b", "/c")))
        self.assertEqual([wire.read().text() for _ in range(3)], ["/ab", "/bb", "/cb"])

    def test_one_request_at_a_time_until_the_stream_has_ended(self):
        runner = self.start(PRODUCERS["generator"])
        port, other = runner.connect_port(), runner.connect_port()
        runner.wire.send(encode(**named("r1")))
        runner.wire.read_head()
        runner.wire.read_chunk()
        port.send(encode(target="/fn/hello/plain", **named("r2")))
        for _ in range(5):
            self.assertEqual(other.ask(target="/health").status, 200)
        port.sock.setblocking(False)
        self.assertRaises(BlockingIOError, port.sock.recv, 1)
        port.sock.setblocking(True)
        self.tell(runner, "go1", "go2", "go3")
        self.assertFalse(runner.wire.read_chunks()[1])
        self.assertEqual(port.read().status, 200)

    def test_a_slow_reader_holds_the_function_up(self):
        runner = self.start(TOLD + """
def handler(event, context):
    for made in range(400):
        with open(path('made'), 'w') as file:
            file.write(str(made))
        yield b'x' * 65536
""", env={"GRID_MAX_RESPONSE_BYTES": "100000000"})
        runner.wire.send(encode())
        runner.wire.read_head()
        seen = [0]

        def is_held_up():
            with open(os.path.join(runner.dir, "made")) as file:
                seen.append(int(file.read() or -1))
            return len(seen) > 40 and len(set(seen[-40:])) == 1
        until(is_held_up, "the function to be held up")
        self.assertLess(seen[-1], 100)
        chunks, cut = runner.wire.read_chunks()
        self.assertEqual((cut, len(chunks), set(map(len, chunks))), (False, 400, {65536}))

    def test_a_blocked_stream_ends_when_its_client_leaves(self):
        runner = self.start("def handler(event, context):\n    if event['path'] == '/plain':\n"
                            "        yield 'x'\n        return\n    for _ in range(1000):\n"
                            "        yield b'x' * 65536\n", env={"GRID_MAX_RESPONSE_BYTES": "100000000"})
        port = runner.connect_port()
        port.send(encode())
        port.read_head()
        runner.wire.send(encode(target="/fn/hello/plain"))
        port.sock.close()
        self.assertEqual(runner.wire.read().text(), "x")

    def ask_http10(self, runner):
        """Everything that a client of HTTP/1.0 gets, and whether its connection was reset."""
        sock = runner.connect_port().sock
        sock.sendall(b"GET /fn/hello HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        data = b""
        try:
            while True:
                more = sock.recv(65536)
                if not more:
                    return data, False
                data += more
        except ConnectionResetError:
            return data, True

    def test_clients_of_http_1_0_get_the_bytes_up_to_the_end_of_the_connection(self):
        runner = self.start("def handler(event, context):\n    yield 'a'\n    yield 'b'\n")
        data, is_reset = self.ask_http10(runner)
        head, _, body = data.partition(b"\r\n\r\n")
        self.assertEqual((body, is_reset), (b"ab", False))
        self.assertIn(b"\r\nconnection: close", head)
        self.assertNotRegex(head, rb"transfer-encoding|content-length")

    def test_clients_of_http_1_0_see_a_failure_in_the_middle_as_a_reset(self):
        runner = self.start("def handler(event, context):\n    yield 'a'\n    raise ValueError\n")
        self.assertTrue(self.ask_http10(runner)[1])

    def test_sys_exit_in_the_middle_cuts_the_answer_and_keeps_the_code(self):
        for kind in ("def", "async def"):
            runner = self.start("import sys\n%s handler(event, context):\n    yield 'a'\n"
                                "    sys.exit(7)\n" % kind)
            answer = runner.wire.ask()
            self.assertEqual((answer.text(), answer.cut), ("a", True))
            self.assertEqual(runner.exit_code(), 7)

    @each_producer
    def test_sigterm_in_the_middle_ends_it_with_code_0(self, runner):
        runner.wire.send(encode())
        runner.wire.read_head()
        runner.child.send_signal(signal.SIGTERM)
        self.assertEqual(runner.exit_code(), 0)

    def test_an_error_in_the_cleaning_up_is_logged_and_nothing_else(self):
        for kind in ("def", "async def"):
            runner = self.start("%s handler(event, context):\n    try:\n        yield 'a'\n"
                                "    finally:\n        raise ValueError('cleaning failed')\n" % kind)
            self.assertEqual(runner.wire.ask(method="HEAD").status, 200)
            self.assertIn("cleaning failed", runner.stderr)

    def test_a_file_does_not_stay_open(self):
        runner = self.start("import os\ndef handler(event, context):\n"
                            "    if event['path'] == '/count':\n"
                            "        return len(os.listdir('/proc/self/fd'))\n"
                            "    code = {'/none': 204, '/bad': 99}.get(event['path'], 200)\n"
                            "    return {'statusCode': code, 'body': open(__file__, 'rb')}\n")
        before = runner.wire.ask(target="/fn/hello/count").json()
        for path, status in (("/none", 204), ("/bad", 502), ("/", 200)) * 20:
            self.assertEqual(runner.wire.ask(target="/fn/hello" + path).status, status)
        self.assertEqual(runner.wire.ask(target="/fn/hello/count").json(), before)


if __name__ == "__main__":
    unittest.main()
