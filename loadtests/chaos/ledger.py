"""What was asked of Grid and what it acknowledged: from this follows what may be there, and what must."""

import threading

# They tell when a process gets a call for the second time.
NODE = """const calls = new Set();
exports.handler = async (event, context) => {
  const nonce = event.queryStringParameters?.nonce ?? null, again = calls.has(nonce);
  calls.add(nonce);
  %(wait)s
  return { name: '%(name)s', version: %(version)d, value: process.env.VALUE ?? null, nonce, again, deployment: context.functionVersion };
};"""
PYTHON = """import os, time
calls = set()
def handler(event, context):
    nonce = (event["queryStringParameters"] or {}).get("nonce")
    again = nonce in calls
    calls.add(nonce)
    %(wait)s
    return {"name": "%(name)s", "version": %(version)d, "value": os.environ.get("VALUE"), "nonce": nonce, "again": again, "deployment": context.functionVersion}"""
SLOW = {"node18": "await new Promise((done) => setTimeout(done, 400));", "python3.9": "time.sleep(0.4)"}
BROKEN = {"node18": "exports.handler = (; // version %d", "python3.9": "def handler(:  # version %d"}


def code(runtime: str, name: str, version: int, broken: bool) -> str:
    """Source text whose answer tells everything about itself. Every fifth version takes its time."""
    if broken:
        return BROKEN[runtime] % version
    wait = SLOW[runtime] if version % 5 == 0 else {"node18": "", "python3.9": "pass"}[runtime]
    return (NODE if runtime == "node18" else PYTHON) % {"wait": wait, "name": name, "version": version}


class Entry:
    """A service. `fields` are the values that each field may have; one only when it is certain."""

    def __init__(self, name: str, runtime: str, least: int, most: int) -> None:
        self.name, self.runtime, self.least = name, runtime, least
        self.lock = threading.Lock()  # one change at a time
        self.id = None  # once a creation was acknowledged
        self.key = None
        self.wanted = True  # whether it shall be there in the end
        self.exists = {False}
        self.gone = False  # the public has been told so
        self.version = 0
        self.sources = {}  # source text: its version
        self.broken = set()  # versions that do not load
        self.fields = {"function_code": set(), "value": {None}, "max_replicas": {most}}
        self.seen = False  # whether the public was answered by it
        self.newest = ""  # newest deployment that answered
        self.oldest = 0  # older versions may not answer any more
        self.answers = {}  # deployment: version, value

    def next_code(self, broken: bool) -> str:
        self.version += 1
        text = code(self.runtime, self.name, self.version, broken)
        self.sources[text] = self.version
        if broken:
            self.broken.add(self.version)
        return text

    def asked(self, field: str, value: object, acknowledged: bool) -> None:
        self.fields[field] = {value} if acknowledged else self.fields[field] | {value}

    def contradiction(self, record: dict) -> str:
        """What a record says that cannot be; empty when there is nothing."""
        for field, value in read(record).items():
            if value not in self.fields[field]:
                can = sorted(map(self.short, self.fields[field]))
                return f"{self.name}: {field} is {self.short(value)}, and can only be one of {can}"
        return ""

    def short(self, value: object) -> str:
        return f"version {self.sources[value]}" if value in self.sources else str(value)[:60]


def read(record: dict) -> dict:
    """The fields of a record that are looked at."""
    values = {entry["key"]: entry["value"] for entry in record["env_vars"]}
    return {
        "function_code": record["function_code"],
        "value": values.get("VALUE"),
        "max_replicas": record["max_replicas"],
    }


class Ledger:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.entries = []
        self.counts = {}
        self.violations = []

    def count(self, what: str, by: int = 1) -> None:
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + by

    def snapshot(self) -> list:
        with self.lock:
            return list(self.entries)
