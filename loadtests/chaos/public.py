"""The public: calls all functions all the time, and looks at every answer."""

import http.client
import json
import random
import secrets
import threading
import time

from ledger import Entry, Ledger

WITHIN = 40
# For one such moment in so many everybody calls one function, as fast as it answers: requests queue, and are sent ahead.
RUSH = (0.5, 4)
# What Grid may answer by itself while things are broken.
ALLOWED = {(502, "function_crashed"), (503, "unavailable"), (503, "no_replica"), (503, "stopping"), (504, "timeout"), (429, "queue_full")}


class Public:
    def __init__(self, port: int, edge, ledger: Ledger, report) -> None:
        self.port, self.edge, self.ledger, self.report = port, edge, ledger, report
        self.closing = False
        self.threads = []
        self.strict = set()  # entries that must be answered by their function now

    def begin(self, count: int, rate: float) -> None:
        for _ in range(count):
            thread = threading.Thread(target=self._work, args=(random.Random(random.randrange(1 << 30)), count / rate), daemon=True)
            thread.start()
            self.threads.append(thread)

    def _work(self, chance: random.Random, pause: float) -> None:
        line = Line(self.port)
        while not self.closing:
            entries = [entry for entry in self.ledger.snapshot() if entry.exists != {False}]
            moment = int(time.monotonic() / RUSH[0])
            rush = moment % RUSH[1] == 0
            answer = None
            if entries:
                try:
                    answer = self.call(entries[moment % len(entries)] if rush else chance.choice(entries), line)
                except Exception as error:  # a defect of this program
                    self.report(f"a caller failed: {error!r}")
            if not rush or answer is None:
                if chance.random() < 0.2:
                    line.close()
                time.sleep(chance.uniform(0, 2 * pause))

    def call(self, entry: Entry, line: "Line", calm: bool = False):
        """One call; the answer when it is the function's. `calm`: nothing is broken, nothing else will do."""
        nonce = secrets.token_hex(8)
        certain, seen, newest, oldest = entry.exists == {True} and entry.wanted, entry.seen, entry.newest, entry.oldest
        since, began = line.used, time.monotonic()
        try:
            status, headers, body = line.get(f"/fn/{entry.name}?nonce={nonce}", {"Host": f"{entry.name}.localhost", "X-Request-Id": nonce})
        except (OSError, http.client.HTTPException) as error:
            line.close()
            self.ledger.count(f"public {type(error).__name__}")
            if time.monotonic() - began > WITHIN + 10:
                # It would have given up before: the machine, or all that is tried here, stood still.
                self.ledger.count("calls of which nothing can be said: everything stood still")
            elif calm or not self.edge.away.overlap(min(since, began), time.monotonic()):
                self.report(f"call of {entry.name}: {error!r} after {time.monotonic() - began:.1f} s, and the edge was there")
            return None
        if headers.get("X-Request-Id") != nonce:
            self.report(f"call of {entry.name}: X-Request-Id {headers.get('X-Request-Id')} instead of {nonce}")
        try:
            answer = json.loads(body)
        except ValueError:
            self.report(f"call of {entry.name}: {status} without JSON: {body[:200]}")
            return None
        if status == 200:
            self.ledger.count("public 200")
            return self.judge(entry, answer, nonce, newest, oldest)
        found = (status, answer.get("code"))
        self.ledger.count("public %s %s" % found)
        still = certain and entry.exists == {True} and entry.wanted
        new = status == 404 and not (seen and still)
        strict = still and entry in self.strict
        if calm or strict or not (new or found in ALLOWED):
            self.report(f"call of {entry.name}: {status} {body[:300]}")
        return None

    def judge(self, entry: Entry, answer: dict, nonce: str, newest: str, oldest: int):
        wrong = []
        if set(answer) != {"name", "version", "value", "nonce", "again", "deployment"} or answer["name"] != entry.name:
            wrong.append("the answer of another")
        elif answer["nonce"] != nonce:
            wrong.append("the answer to another request")
        else:
            if answer["again"]:
                wrong.append("it ran twice")
            if not oldest <= answer["version"] <= entry.version or answer["version"] in entry.broken:
                wrong.append(f"no version that can be: {oldest} to {entry.version}")
            if answer["deployment"] < newest:
                wrong.append(f"older than {newest}, which has answered before")
            told = (answer["version"], answer["value"])
            with self.ledger.lock:
                entry.seen = True
                entry.newest = max(entry.newest, answer["deployment"])
                if entry.answers.setdefault(answer["deployment"], told) != told:
                    wrong.append(f"the same deployment has answered {entry.answers[answer['deployment']]}")
        if wrong:
            self.report(f"call of {entry.name}: {', '.join(wrong)}: {answer}")
        return answer


class Line:
    """A connection that is kept, as those of browsers are."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connection = None
        self.used = time.monotonic()

    def get(self, path: str, headers: dict) -> tuple:
        if self.connection is None:
            self.used = time.monotonic()
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WITHIN)
        self.connection.request("GET", path, headers=headers)
        answer = self.connection.getresponse()
        body = answer.read().decode(errors="replace")
        self.used = time.monotonic()
        if answer.will_close:
            self.close()
        return answer.status, answer.headers, body

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = None
