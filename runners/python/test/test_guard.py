"""The guard's list, its judgement, its errors from end to end, and that no runner starts without it."""
import dis
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import types
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import grid_guard  # noqa: E402
import grid_guard_hook  # noqa: E402
from guard_probe import GuardTest, MESSAGE, shared  # noqa: E402
from harness import RUNNER, Runner  # noqa: E402


class PolicyTest(unittest.TestCase):
    def policy(self):
        return grid_guard.Policy(grid_guard.read_list())

    def test_the_shared_cases_hold(self):
        policy = self.policy()
        cases = shared("cases.json")
        self.assertGreater(len(cases), 100)
        for case in cases:
            with self.subTest(**case):
                refused = policy.refused(grid_guard.pack(case["address"]))
                self.assertEqual(refused is None, case["allowed"])

    def test_an_error_names_the_real_address(self):
        for form in ("10.1.2.3", "::ffff:10.1.2.3", "::10.1.2.3", "::ffff:0:10.1.2.3",
                     "64:ff9b::10.1.2.3", "64:ff9b:1::10.1.2.3", "2002:0a01:0203::1"):
            with self.subTest(form):
                with self.assertRaises(grid_guard.SsrfBlocked) as raised:
                    self.policy().check(form, "a.test", 80)
                error = raised.exception
                self.assertEqual(str(error), MESSAGE + "10.1.2.3")
                self.assertEqual((error.address, error.host, error.port), ("10.1.2.3", "a.test", 80))
        for form in ("::ffff:8.8.8.8", "::1", "fe80::1"):
            with self.subTest(form), self.assertRaises(grid_guard.SsrfBlocked) as raised:
                self.policy().check(form, form, 80)
            self.assertEqual(str(raised.exception), MESSAGE + form)

    def test_every_address_of_an_answer_is_checked(self):
        def answer(*hosts):
            return [(2, 1, 6, "", (host, 80)) for host in hosts]
        policy = self.policy()
        policy.check_answer(answer("8.8.8.8", "1.1.1.1"), "a.test", 80)
        for hosts in (("10.0.0.1",), ("8.8.8.8", "10.0.0.1"), ("10.0.0.1", "8.8.8.8")):
            with self.subTest(hosts), self.assertRaises(grid_guard.SsrfBlocked):
                policy.check_answer(answer(*hosts), "a.test", 80)

    def test_the_error_survives_pickling(self):
        error = pickle.loads(pickle.dumps(grid_guard.SsrfBlocked("10.0.0.1", "a.test", 80)))
        self.assertEqual((str(error), error.host), (MESSAGE + "10.0.0.1", "a.test"))

    def test_a_list_that_makes_no_sense_is_refused(self):
        whole = ["deny 10.0.0.0/8 x", "allow 2000::/3 x", "deny 2002::/16 x"]
        grid_guard.Policy(whole)
        for line in ("deny", "deny 10.0.0.0", "allow 10.0.0.0/8 x", "permit 10.0.0.0/8 x",
                     "deny 10.0.0.0/33 x", "deny 10.0.0/8 x", "deny a/8 x"):
            with self.subTest(line), self.assertRaises(grid_guard.ListError):
                grid_guard.Policy(whole + [line])
        for i in range(len(whole)):
            with self.assertRaises(grid_guard.ListError):
                grid_guard.Policy(whole[:i] + whole[i + 1:])

    def test_the_hook_looks_up_no_name_that_user_code_could_change(self):
        def codes(code):
            yield code
            for const in code.co_consts:
                if isinstance(const, types.CodeType):
                    yield from codes(const)
        seen = set()
        for maker in (grid_guard_hook.make_refused, grid_guard_hook.make_hook):
            for code in codes(maker.__code__):
                if code is not maker.__code__:
                    seen.add(code.co_name)
                    names = [i.opname for i in dis.get_instructions(code)
                             if i.opname.startswith(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF",
                                                     "LOAD_ATTR", "LOAD_METHOD", "IMPORT_"))]
                    self.assertEqual(names, [], code.co_name)
        self.assertEqual(seen, {"refused", "check_address", "hook"})


class StartTest(unittest.TestCase):
    """A copy of the runner as it lies in an image: flat, with the list as egress.txt."""

    def copy(self, ranges):
        folder = tempfile.mkdtemp(prefix="grid-")
        self.addCleanup(shutil.rmtree, folder, True)
        app = os.path.join(folder, "app")
        os.mkdir(app)
        source = os.path.dirname(RUNNER)
        for name in os.listdir(source):
            if name.endswith(".py"):
                shutil.copy(os.path.join(source, name), app)
        if ranges is not None:
            with open(os.path.join(app, "egress.txt"), "w") as file:
                file.write(ranges)
        with open(os.path.join(app, "function.py"), "w") as file:
            file.write("print('user code ran')\n")
        return app

    def run_copy(self, ranges):
        app = self.copy(ranges)
        return subprocess.run(
            [sys.executable, "-I", os.path.join(app, "smsly_function_runner.py")],
            env={"GRID_FUNCTION_DIR": app, "GRID_SOCKET": app + "/edge.sock", "PORT": "0"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)

    def test_no_runner_starts_without_a_usable_list(self):
        for ranges, reason in ((None, b"there is no "), ("", b"not complete"),
                               ("deny 10.0.0.0/8 x\n", b"not complete"),
                               ("deny nonsense\n", b"makes no sense: deny nonsense"),
                               ("\u00e9", b"cannot read ")):
            with self.subTest(ranges):
                ended = self.run_copy(ranges)
                self.assertEqual(ended.returncode, 1)
                self.assertIn(b"The runner does not start without its SSRF guard: ", ended.stderr)
                self.assertIn(reason, ended.stderr)
                self.assertEqual(ended.stdout, b"")


class EndToEndTest(GuardTest):
    """What the edge gets when the function does not catch the error."""

    def ask(self, code):
        runner = Runner(code)
        self.addCleanup(runner.close)
        return runner.wire.ask()

    def test_an_uncaught_error_is_452(self):
        calls = ("urllib.request.urlopen('http://10.1.2.3/')",
                 "urllib.request.urlopen('ftp://10.1.2.3/')",
                 "http.client.HTTPConnection('10.1.2.3').request('GET', '/')",
                 "socket.create_connection(('10.1.2.3', 80))",
                 "_socket.socket().connect(('10.1.2.3', 80))",
                 "asyncio.run(asyncio.open_connection('10.1.2.3', 80))")
        for call in calls:
            with self.subTest(call):
                answer = self.ask("import asyncio, http.client, socket, _socket, urllib.request\n"
                                  "def handler(event, context):\n    %s\n" % call)
                self.assertEqual((answer.status, answer.outcome), (452, "error"))
                self.assertEqual(answer.json(), {"error": "ssrf_blocked",
                                                 "message": MESSAGE + "10.1.2.3"})

    def test_an_error_that_user_code_wrapped_is_452(self):
        answer = self.ask("import socket\ndef handler(event, context):\n    try:\n"
                          "        socket.create_connection(('10.1.2.3', 80))\n"
                          "    except OSError as error:\n"
                          "        raise RuntimeError('no data') from error\n")
        self.assertEqual((answer.status, answer.json()["message"]), (452, MESSAGE + "10.1.2.3"))

    def test_a_caught_error_is_the_functions_own_matter(self):
        answer = self.ask("import urllib.error, urllib.request\ndef handler(event, context):\n"
                          "    try:\n        urllib.request.urlopen('http://10.1.2.3/')\n"
                          "    except urllib.error.URLError as error:\n"
                          "        return {'statusCode': 200, 'body': str(error.status)}\n")
        self.assertEqual((answer.status, answer.text()), (200, "452"))

    def test_an_allowed_address_is_no_matter_of_the_guard(self):
        answer = self.ask("import urllib.request\ndef handler(event, context):\n"
                          "    urllib.request.urlopen('http://8.8.8.8/')\n")
        self.assertEqual((answer.status, answer.json()["error"]), (502, "handler_error"))

    def test_user_code_is_guarded_while_it_loads(self):
        answer = self.ask("import socket\nsocket.create_connection(('10.1.2.3', 80))\n"
                          "def handler(event, context):\n    pass\n")
        self.assertEqual((answer.status, answer.json()["error"]), (502, "load_failed"))


if __name__ == "__main__":
    unittest.main()
