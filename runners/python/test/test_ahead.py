"""Requests that are sent ahead of their turn, and called back."""
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Runner, encode, until  # noqa: E402

STEPS = """
import os, time
def handler(event, context):
    print('begun', event['path'], flush=True)
    while event['path'] == '/first' and not os.path.exists(os.path.dirname(__file__) + '/go'):
        time.sleep(0.002)
    return [event['path'], context.get_remaining_time_in_millis() > 4000]
"""
LARGE = """
import threading
def handler(event, context):
    if event['path'] != '/large':
        return print('begun', flush=True)
    threading.Timer(0.05, print, ['much later'], {'flush': True}).start()
    return 'x' * 5000000
"""


def ahead(path, turn, *more):
    return encode(target="/fn/hello" + path, headers=[("x-grid-turn", str(turn)), *more])


class AheadTest(unittest.TestCase):
    def start(self, code):
        runner = Runner(code)
        self.addCleanup(runner.close)
        return runner

    def go(self, runner):
        with open(os.path.join(runner.dir, "go"), "w"):
            pass

    def call_back(self, runner, upto):
        with open(os.path.join(runner.dir, "recalls"), "wb") as file:
            file.write(upto.to_bytes(8, "little"))

    def test_they_run_one_after_the_other_each_with_all_of_its_time(self):
        runner = self.start(STEPS)
        deadline = ("x-grid-deadline-ms", "5000")
        runner.wire.send(encode(target="/fn/hello/first")
                         + b"".join(ahead("/%d" % turn, turn, deadline) for turn in (1, 2, 3)))
        until(lambda: "begun /first" in runner.stdout, "the first one")
        time.sleep(1.1)  # of the others' five seconds, if they counted
        self.go(runner)
        for path in ("/first", "/1", "/2", "/3"):
            self.assertEqual(runner.wire.read().json(), [path, True])

    def test_what_is_called_back_does_not_begin_and_what_comes_later_does(self):
        runner = self.start(STEPS)
        runner.wire.send(encode(target="/fn/hello/first") + ahead("/1", 1) + ahead("/2", 2))
        until(lambda: "begun /first" in runner.stdout, "the first one")
        self.call_back(runner, 2)
        runner.wire.send(ahead("/3", 3))
        self.go(runner)
        self.assertEqual(runner.wire.read().json()[0], "/first")
        for _ in range(2):
            answer = runner.wire.read()
            self.assertEqual((answer.status, answer.outcome, answer.body), (200, "called-back", b""))
        self.assertEqual(runner.wire.read().json()[0], "/3")
        self.assertNotRegex(runner.stdout, "begun /[12]")

    def test_none_begins_before_the_answer_to_the_one_before_has_left(self):
        runner = self.start(LARGE)
        runner.wire.send(encode(target="/fn/hello/large") + ahead("/1", 1))
        until(lambda: "much later" in runner.stdout, "the large answer")
        self.assertNotIn("begun", runner.stdout)
        self.call_back(runner, 1)
        self.assertEqual(len(runner.wire.read().body), 5000002)
        self.assertEqual(runner.wire.read().outcome, "called-back")

    def test_only_the_edge_calls_back(self):
        runner = self.start(STEPS)
        self.call_back(runner, 9)
        port = runner.connect_port()
        port.send(ahead("/1", 1))
        self.assertEqual(port.read().json()[0], "/1")


if __name__ == "__main__":
    unittest.main()
