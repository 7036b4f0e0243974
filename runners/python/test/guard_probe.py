"""Runs code inside a real runner, as its function, and tells how it ended: blocked by the guard, or
allowed, which in a place without network means that the kernel has no route."""
import json
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Runner  # noqa: E402

CODE = '''
import json

def handler(event, context):
    space = {"__name__": "probe", "result": None}
    try:
        exec(event["body"], space)
        told = {"result": space["result"]}
    except BaseException as error:
        told = {"kinds": [c.__module__ + "." + c.__name__ for c in type(error).__mro__],
                "text": str(error)}
        for name in ("status", "status_code", "code", "errno", "address", "host", "port"):
            told[name] = getattr(error, name, None)
            if not isinstance(told[name], (int, str)):
                told[name] = repr(told[name])
    return {"statusCode": 200, "body": json.dumps(told)}
'''
NO_ROUTE = ("Network is unreachable", "Cannot assign requested address")
MESSAGE = "SSRF guard blocked outbound request to "


def no_uplink():
    """These tests connect to public addresses: only where that leads nowhere."""
    with open("/proc/net/route") as file:
        routes = file.read().splitlines()[1:]
    try:
        with open("/proc/net/ipv6_route") as file:
            routes += [line for line in file.read().splitlines() if line.split()[-1] != "lo"]
    except FileNotFoundError:
        pass
    if routes:
        raise AssertionError("the guard's tests run only where there is no network: "
                             "`docker run --network none` or `unshare --net`")


class GuardTest(unittest.TestCase):
    """One runner for all tests of a class; `fresh` starts another one."""
    maxDiff = None
    runner = None
    env = {}

    @classmethod
    def setUpClass(cls):
        no_uplink()
        cls.runner = Runner(CODE, env=cls.env)
        cls.addClassCleanup(cls.runner.close)

    def fresh(self):
        runner = Runner(CODE, env=self.env)
        self.addCleanup(runner.close)
        return runner

    def probe(self, code, runner=None):
        answer = (runner or self.runner).wire.ask(method="POST", body=code)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json()

    def blocked(self, code, addresses, *kinds, runner=None):
        told = self.probe(code, runner)
        if isinstance(addresses, str):
            addresses = [addresses]
        self.assertIn("grid_guard.SsrfBlocked", told.get("kinds", told), told)
        self.assertIn(told["text"], [MESSAGE + address for address in addresses])
        self.assertIn(told["address"], [a.partition(": ")[0] for a in addresses])
        self.assertEqual([told["status"], told["status_code"], told["code"], told["errno"]],
                         [452, 452, 452, 13])
        for kind in kinds:
            self.assertIn(kind, told["kinds"])
        return told

    def allowed(self, code, runner=None):
        told = self.probe(code, runner)
        self.assertTrue(any(text in told.get("text", "") for text in NO_ROUTE), told)
        self.assertNotIn("grid_guard.SsrfBlocked", told["kinds"])
        return told

    def works(self, code, result=True, runner=None):
        told = self.probe(code, runner)
        self.assertEqual(told, {"result": result})


def shared(name):
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "..", "..", "egress", name), encoding="utf-8") as file:
        return json.load(file)
