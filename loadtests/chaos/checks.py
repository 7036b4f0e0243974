"""What must hold once nothing is broken any more, and has to come true within a time."""

import http.client
import json
import pathlib
import time

from ledger import read
from public import Line

WITHIN = 150
NOTED = 10  # who takes longer is told
SETTLED = {"live", "failed", "superseded"}


class Checks:
    def __init__(self, parts: dict, admins: dict, docker, ledger, public, report, note, data: pathlib.Path, kept: int, redis) -> None:
        self.parts, self.admins, self.docker, self.ledger = parts, admins, docker, ledger
        self.public, self.report, self.note, self.data, self.kept, self.redis = public, report, note, data, kept, redis
        self.slowest = {}
        self.records = {}

    def until(self, what: str, look, within: float = WITHIN) -> bool:
        """Looks until there is nothing wrong; reports what was wrong at last."""
        begin = time.monotonic()
        wrong, last = look(), ""
        while wrong and time.monotonic() - begin < within:
            last = wrong
            time.sleep(0.5)
            wrong = look()
        took = time.monotonic() - begin
        self.slowest[what] = max(self.slowest.get(what, 0), round(took, 1))
        if took > NOTED:
            self.note(f"{what} took {took:.0f} s: {last}")
        if wrong:
            self.report(f"{what}, after {took:.0f} s: {wrong}")
        return not wrong

    def ready(self) -> bool:
        for part in self.parts.values():
            if not part.ready.wait(WITHIN):
                self.report(f"{part.name} did not get ready: {part.tail()}")
                return False
        return self.until("ready", lambda: {role: wrong for role, port in self.admins.items() if (wrong := not_ready(port))})

    def all(self, admin) -> None:
        """After `ready`, and after nobody changes anything any more and all that was asked for is certain."""
        self.records = {}
        for entry in self.ledger.snapshot():
            if entry.exists == {True}:
                self.until("settled", lambda entry=entry: self.settled(admin, entry))
        for entry in self.ledger.snapshot():
            if not entry.gone:
                gone = self.until("answers", lambda entry=entry: self.answers(admin, entry), 30) and not entry.wanted
                entry.gone = gone
        self.until("containers", lambda: self.containers(admin))
        self.until("directories", lambda: self.directories(admin))
        self.until("logs", self.logs)
        self.until("images", lambda: self.images(admin))
        self.until("redis", self.volatile, 30)

    def settled(self, admin, entry) -> str:
        status, record = admin("GET", f"/api/v1/services/{entry.id}/")
        if status != 200:
            return f"{entry.name}: {status} {record}"
        if wrong := entry.contradiction(record):
            return wrong
        status, page = admin("GET", f"/api/v1/services/{entry.id}/deployments/?page_size=100")
        if status != 200:
            return f"deployments of {entry.name}: {status}"
        deployments = page["results"]
        open_ones = [(d["id"], d["phase"]) for d in deployments if d["phase"] not in SETTLED]
        if open_ones:
            return f"{entry.name}: not settled: {open_ones}"
        live = [d["id"] for d in deployments if d["phase"] == "live"]
        if not live and record["live_deployment"] is None and deployments[0]["phase"] == "failed":
            self.ledger.count("services of which no deployment ever was live")
        elif live != [record["live_deployment"]]:
            return f"{entry.name}: {live} are live, the record says {record['live_deployment']}"
        for field, value in read(record).items():
            entry.fields[field] = {value}  # now it is certain
        self.records[entry.name] = record
        newest = deployments[0]
        version = entry.sources[record["function_code"]]
        if newest["phase"] == "failed" and version not in entry.broken:
            self.ledger.count(f"newest deployment failed: {newest['error']}")
        if newest["phase"] != "failed" and version in entry.broken:
            return f"{entry.name}: broken code is {newest['phase']}"
        if newest["phase"] == "superseded":
            return f"{entry.name}: the newest deployment is superseded"
        for deployment in deployments:
            self.reasons(entry, deployment)
        return ""

    def reasons(self, entry, deployment: dict) -> None:
        key = (deployment["id"], deployment["phase"])
        if key not in entry.__dict__.setdefault("looked_at", set()):
            entry.looked_at.add(key)
            self.ledger.count(f"deployment {deployment['phase']}" + (f": {general(deployment['error'])}" if deployment["error"] else ""))

    def answers(self, admin, entry) -> str:
        """The public has the live version, or 404 when there is no service."""
        line = Line(self.public.port)
        if entry.exists != {True}:
            try:
                status, _, body = line.get(f"/fn/{entry.name}", {"Host": f"{entry.name}.localhost"})
            except (OSError, http.client.HTTPException) as error:
                return repr(error)
            return "" if status == 404 else f"{entry.name} was deleted and answers {status} {body[:200]}"
        record = self.records.get(entry.name)
        if record is None:
            return f"{entry.name}: not looked at"
        live = record["live_deployment"]
        if live is None:
            return ""
        status, deployment = admin("GET", f"/api/v1/services/{entry.id}/deployments/{live}/")
        if status != 200:
            return f"{entry.name}: its live deployment: {status}"
        values = {variable["key"]: variable["value"] for variable in deployment["env_vars"]}
        due = (entry.sources[deployment["function_code"]], values.get("VALUE"))
        for _ in range(3):
            answer = self.public.call(entry, line, calm=True)
            if answer is None:
                return f"{entry.name}: no answer of it"
            if (answer["deployment"], (answer["version"], answer["value"])) != (live, due):
                return f"{entry.name}: {answer} instead of {live} {due}"
        line.close()
        entry.oldest = due[0]
        for identity, told in list(entry.answers.items()):
            if identity == live:
                continue
            status, deployment = admin("GET", f"/api/v1/services/{entry.id}/deployments/{identity}/")
            if status == 200:
                values = {variable["key"]: variable["value"] for variable in deployment["env_vars"]}
                if told != (entry.sources[deployment["function_code"]], values.get("VALUE")):
                    self.report(f"{entry.name}: {identity} has answered {told}")
                self.ledger.count("answers that were compared with their deployment")
            del entry.answers[identity]
        return ""

    def replicas(self, admin) -> set:
        known = set()
        for entry in self.ledger.snapshot():
            if entry.exists == {True}:
                status, record = admin("GET", f"/api/v1/services/{entry.id}/")
                known |= {replica["id"] for replica in record["replicas"]} if status == 200 else {f"{entry.name}: {status}"}
        return known

    def containers(self, admin) -> str:
        there, known = set(self.docker.containers().values()), self.replicas(admin)
        return "" if there == known else f"only in the engine: {sorted(there - known)}; only in the store: {sorted(known - there)}"

    def directories(self, admin) -> str:
        there, known = {path.name for path in (self.data / "run").iterdir()}, self.replicas(admin)
        return "" if there == known else f"only in run/: {sorted(there - known)}; missing: {sorted(known - there)}"

    def logs(self) -> str:
        known = {entry.id for entry in self.ledger.snapshot() if entry.exists == {True}}
        left = {path.name.split(".")[0] for path in (self.data / "logs").iterdir()} - known
        return f"logs of deleted services: {sorted(left)}" if left else ""

    def images(self, admin) -> str:
        """Of each service those of the live and of some earlier deployments, one of each, and no others. `docker rmi`
        leaves an image without its name where it cannot remove it; that one is kept as if it had it, and beside another
        one of the same deployment as long as a container is made of it."""
        services, wrong = {}, []
        used = self.docker.images_in_use()
        for identity, tags, labels in self.docker.images():
            if not tags and identity in used:
                continue
            services.setdefault(labels.get("grid.service"), []).append(labels.get("grid.deployment"))
        known = {entry.id for entry in self.ledger.snapshot() if entry.exists == {True}}
        for service, images in services.items():
            if service not in known:
                wrong.append(f"{len(images)} of a deleted service {service}")
            elif len(images) > self.kept + 1:
                wrong.append(f"{len(images)} of {service}")
            elif len(set(images)) < len(images):
                wrong.append(f"{service} has several of one deployment")
        return "; ".join(wrong)

    def volatile(self) -> str:
        known = {entry.id for entry in self.ledger.snapshot() if entry.exists == {True}}
        hashes = {key.rsplit(":", 1)[1] for key in self.redis.keys("*:volatile:*")}
        return f"volatile state of {sorted(hashes - known)}" if hashes - known else ""


def not_ready(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        text = answer.read().decode()
        return "" if answer.status == 200 and all(check == "ok" for check in json.loads(text)["checks"].values()) else text
    except (OSError, http.client.HTTPException, ValueError) as error:
        return repr(error)
    finally:
        connection.close()


def general(text: str) -> str:
    """A message without what is different each time."""
    words = [word if not any(c.isdigit() for c in word) or len(word) < 10 else "…" for word in text.split()]
    return " ".join(words)[:140]
