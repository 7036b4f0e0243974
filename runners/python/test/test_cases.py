"""Runs every shared contract case that has Python code."""
import base64
import glob
import json
import os
import re
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Runner, until  # noqa: E402

CASES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "cases")
ABSENT = object()


def at(value, dotted):
    for key in dotted.split("."):
        if not isinstance(value, dict) or key not in value:
            return ABSENT
        value = value[key]
    return value


class CaseTest(unittest.TestCase):
    maxDiff = None

    def assert_same(self, actual, expected, place):
        # Python's == takes 1 for True
        self.assertEqual(json.dumps(actual, sort_keys=True), json.dumps(expected, sort_keys=True), place)

    def assert_subset(self, actual, expected, place):
        if isinstance(expected, dict):
            self.assertIsInstance(actual, dict, place)
            for key, value in expected.items():
                self.assertIn(key, actual, place)
                self.assert_subset(actual[key], value, place + "." + key)
        else:
            self.assert_same(actual, expected, place)

    def check(self, answer, expect):
        shown = "answer: %d %r" % (answer.status, answer.body[:600])
        if "status" in expect:
            self.assertEqual(answer.status, expect["status"], shown)
        if "outcome" in expect:
            self.assertEqual(answer.outcome, expect["outcome"], shown)
        chunks = expect.get("chunks")
        self.assertEqual("content-length" in answer.headers, chunks is None, "content-length")
        self.assertEqual(answer.headers.get("transfer-encoding"), None if chunks is None else ["chunked"])
        if chunks is not None:
            self.assertEqual([chunk.decode() for chunk in answer.chunks], chunks)
            self.assertEqual(answer.cut, expect.get("cut", False), "cut")
        for name, value in expect.get("headers", {}).items():
            wanted = [value] if isinstance(value, str) else value
            self.assertEqual(answer.headers.get(name), wanted, "header " + name)
        if "kind" in expect:
            self.assertEqual(answer.json()["error"], expect["kind"], shown)
        wanted = expect.get("messageContains", [])
        if isinstance(wanted, dict):
            wanted = wanted.get("python", [])
        for part in [wanted] if isinstance(wanted, str) else wanted:
            self.assertIn(part, answer.json()["message"])
        if "json" in expect:
            self.assert_same(answer.json(), expect["json"], "answer")
        if "text" in expect:
            self.assertEqual(answer.text(), expect["text"])
        if "base64" in expect:
            self.assertEqual(base64.b64encode(answer.body).decode(), expect["base64"])
        if "bodyBytes" in expect:
            self.assertEqual(len(answer.body), expect["bodyBytes"])
        if "subset" in expect:
            self.assert_subset(answer.json(), expect["subset"], "answer")
        if "hidden" in expect:
            self.assertNotIn(expect["hidden"], answer.text())
        for name in expect.get("absent", []):
            self.assertIs(at(answer.json(), name), ABSENT, name)
        for name, pattern in expect.get("matches", {}).items():
            self.assertRegex(str(at(answer.json(), name)), pattern, name)


def case_test(group, one, code):
    def run(self):
        runner = Runner(code, {**group.get("env", {}), **one.get("env", {})})
        self.addCleanup(runner.close)
        for first in one.get("before", []):
            runner.wire.ask(**first)
        for _ in range(one.get("repeat", 1)):
            self.check(runner.wire.ask(**one.get("request", {})), one["expect"])
            if one["expect"].get("cut"):
                runner.wire = runner.edge.accept()
        for name in ("stdout", "stderr"):
            until(lambda: one["expect"].get(name, "") in getattr(runner, name), "the log on " + name)
            if "hidden" in one["expect"]:
                self.assertNotIn(one["expect"]["hidden"], getattr(runner, name))
        # Whatever it was, the runner is still there.
        self.assertEqual(runner.wire.ask(target="/health").status, 200)
    return run


def add_cases():
    for path in sorted(glob.glob(os.path.join(CASES, "*.json"))):
        with open(path, encoding="utf-8") as file:
            group = json.load(file)
        topic = os.path.basename(path)[:-5]
        for number, one in enumerate(group["cases"]):
            code = one.get("code", group.get("code", {})).get("python")
            if code is not None:
                name = "test_%s_%02d_%s" % (topic, number, re.sub(r"\W+", "_", one["name"]))
                setattr(CaseTest, name, case_test(group, one, code))


add_cases()

if __name__ == "__main__":
    unittest.main()
