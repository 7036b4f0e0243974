"""Those who change services: they note what they asked for, and what was acknowledged."""

import http.client
import json
import random
import secrets
import threading
import time

from ledger import Entry, Ledger

# Longer than anything that Grid bounds, so that nothing happens behind the back of one who gave up.
WITHIN = 45
KEPT = (("steady-node", "node18", 1), ("steady-python", "python3.9", 1), ("sleepy-node", "node18", 0), ("sleepy-python", "python3.9", 0), ("second-node", "node18", 1))
PASSING = 3


class Admin:
    """The admin API. An answer of None is none."""

    def __init__(self, port: int, token: str) -> None:
        self.port, self.token = port, token

    def __call__(self, method: str, path: str, body: object = None, within: float = WITHIN, **headers: str):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=within)
        headers = {"Authorization": f"Token {self.token}", "Content-Type": "application/json", **headers}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            return None, type(error).__name__
        finally:
            connection.close()


class Owners:
    def __init__(self, admin: Admin, ledger: Ledger, report, egress: str) -> None:
        self.admin, self.ledger, self.report, self.egress = admin, ledger, report, egress
        self.going = threading.Event()
        self.closing = False
        self.busy = threading.Lock()  # for the lists of passing services
        self.threads = []
        self.made = 0

    def begin(self, count: int) -> None:
        for name, runtime, least in KEPT:
            self.create(Entry(name, runtime, least, 2))
        for seed in range(count):
            thread = threading.Thread(target=self._work, args=(random.Random(seed + random.randrange(1 << 30)),), daemon=True)
            thread.start()
            self.threads.append(thread)

    def _work(self, chance: random.Random) -> None:
        while not self.closing:
            if not self.going.wait(0.2):
                continue
            try:
                self._step(chance)
            except Exception as error:  # a defect of this program, which must not go unseen
                self.report(f"an owner failed: {error!r}")
            time.sleep(chance.uniform(0.1, 1.2))

    def _step(self, chance: random.Random) -> None:
        entries = [entry for entry in self.ledger.snapshot() if entry.wanted]
        passing = [entry for entry in entries if entry.name.startswith("passing")]
        kind = chance.choices(
            ["code", "broken", "value", "size", "again", "read", "list", "invoke", "make", "take"],
            [40, 5, 20, 5, 4, 8, 3, 3, 6 if len(passing) < PASSING else 0, 6 if passing else 0],
        )[0]
        if kind == "make":
            with self.busy:
                self.made += 1
                entry = Entry(f"passing-{self.made}", chance.choice(["node18", "python3.9"]), chance.choice([0, 1]), 2)
            self.create(entry)
            return
        if kind == "list":
            self.list()
            return
        entry = chance.choice(passing if kind == "take" else entries)
        if not entry.lock.acquire(blocking=False):
            return
        try:
            if entry.exists == {True}:
                getattr(self, f"do_{kind}")(entry, chance)
        finally:
            entry.lock.release()

    def answered(self, what: str, entry: Entry, status, body, fine: tuple) -> bool:
        """Whether it was acknowledged. What is neither that nor a lost or refused call is wrong."""
        self.ledger.count(f"{what} {status or body}")
        if status in fine:
            return True
        if status is not None and status != 503:
            self.report(f"{what} of {entry.name}: {status} {str(body)[:300]}")
        return False

    def create(self, entry: Entry) -> None:
        with entry.lock:
            entry.key = secrets.token_hex(8)
            text = entry.next_code(False)
            entry.fields["function_code"] = {text}
            entry.body = {
                "name": entry.name,
                "function_runtime": entry.runtime,
                "function_code": text,
                "min_replicas": entry.least,
                "max_replicas": 2,
                "egress": self.egress if entry.least else "none",
            }
            with self.ledger.lock:
                self.ledger.entries.append(entry)
            self.try_create(entry)

    def try_create(self, entry: Entry) -> None:
        entry.exists = {False, True}
        status, body = self.admin("POST", "/api/v1/services/", entry.body, **{"Idempotency-Key": entry.key})
        if self.answered("POST service", entry, status, body, (201,)):
            if entry.id not in (None, body["id"]):
                self.report(f"{entry.name} was made twice")
            entry.id = body["id"]
            entry.exists = {True}

    def path(self, entry: Entry, rest: str = "") -> str:
        return f"/api/v1/services/{entry.id}/{rest}"

    def change(self, entry: Entry, field: str, value: object, body: dict) -> None:
        entry.fields[field] = entry.fields[field] | {value}  # from now on it may be so
        status, answer = self.admin("PATCH", self.path(entry), body)
        if self.answered("PATCH", entry, status, answer, (200,)):
            entry.asked(field, value, True)
            if wrong := entry.contradiction(answer):
                self.report(f"the answer to a PATCH: {wrong}")

    def do_code(self, entry: Entry, chance: random.Random, broken: bool = False) -> None:
        text = entry.next_code(broken)
        self.change(entry, "function_code", text, {"function_code": text})

    def do_broken(self, entry: Entry, chance: random.Random) -> None:
        self.do_code(entry, chance, broken=True)

    def do_value(self, entry: Entry, chance: random.Random) -> None:
        value = f"{entry.name} {secrets.token_hex(4)}"
        self.change(entry, "value", value, {"env_vars": [{"key": "VALUE", "value": value}]})

    def do_size(self, entry: Entry, chance: random.Random) -> None:
        most = chance.choice([1, 2, 3])
        self.change(entry, "max_replicas", most, {"max_replicas": most})

    def do_again(self, entry: Entry, chance: random.Random) -> None:
        status, answer = self.admin("POST", self.path(entry, "deployments/"))
        self.answered("POST deployment", entry, status, answer, (201,))

    def do_read(self, entry: Entry, chance: random.Random) -> None:
        status, answer = self.admin("GET", self.path(entry))
        if self.answered("GET service", entry, status, answer, (200,)):
            if wrong := entry.contradiction(answer):
                self.report(f"read: {wrong}")

    def do_invoke(self, entry: Entry, chance: random.Random) -> None:
        nonce = secrets.token_hex(4)
        event = {"queryStringParameters": {"nonce": nonce}}
        status, answer = self.admin("POST", self.path(entry, "invoke/"), {"event": event})
        if self.answered("POST invoke", entry, status, answer, (200, 429)) and status == 200:
            self.ledger.count(f"invoke ended {answer['statusCode']} {(answer['error'] or {}).get('type')}")
            if answer["statusCode"] == 200 and json.loads(answer["body"])["nonce"] != nonce:
                self.report(f"invoke of {entry.name} answered another one: {answer['body']}")

    def do_take(self, entry: Entry, chance: random.Random) -> None:
        entry.wanted = False
        self.try_delete(entry)

    def try_delete(self, entry: Entry) -> None:
        entry.exists = {False, True}
        status, answer = self.admin("DELETE", self.path(entry))
        # Gone already when the answer of an attempt before was lost.
        if self.answered("DELETE", entry, status, answer, (204, 404)):
            entry.exists = {False}

    def list(self) -> None:
        before = [entry for entry in self.ledger.snapshot() if entry.exists == {True} and entry.wanted]
        status, answer = self.admin("GET", "/api/v1/services/?page_size=100")
        self.ledger.count(f"GET services {status or answer}")
        if status == 200:
            listed = {record["id"] for record in answer["results"]}
            for entry in before:
                if entry.exists == {True} and entry.wanted and entry.id not in listed:
                    self.report(f"{entry.name} is not in the list")

    def settle(self) -> None:
        """While all is well: what is not certain is tried again until it is."""
        for entry in self.ledger.snapshot():
            with entry.lock:
                if entry.wanted and entry.exists != {True}:
                    self.try_create(entry)
                if not entry.wanted and entry.exists != {False}:
                    if entry.id is None:
                        self.try_create(entry)
                    self.try_delete(entry)
