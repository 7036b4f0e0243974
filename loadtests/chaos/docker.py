"""What one Grid has in Docker Engine, and how it is taken away from it."""

import json
import subprocess


class Docker:
    """Everything here concerns what has the label of one Grid only."""

    def __init__(self) -> None:
        self.instance = None

    def run(self, *arguments: str) -> str:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120, check=False)
        return done.stdout if done.returncode == 0 else ""

    def learn(self, service: str) -> None:
        """Takes the id of the Grid from a container of one of its services."""
        names = self.run("ps", "-aq", "--filter", f"label=grid.service={service}").split()
        labels = json.loads(self.run("inspect", "--format", "{{json .Config.Labels}}", names[0]))
        self.instance = labels["grid.instance"]

    def containers(self) -> dict:
        """Id of each container: its replica's."""
        text = self.run("ps", "-a", "--no-trunc", "--filter", f"label=grid.instance={self.instance}", "--format", '{{.ID}} {{.Label "grid.replica"}}')
        return dict(line.split() for line in text.splitlines() if len(line.split()) == 2)

    def images(self) -> list:
        """Of each image its id, its names, and its labels."""
        ids = sorted(set(self.run("images", "-q", "--no-trunc", "--filter", f"label=grid.instance={self.instance}").split()))
        if not ids:
            return []
        text = self.run("image", "inspect", "--format", "[{{json .Id}}, {{json .RepoTags}}, {{json .Config.Labels}}]", *ids)
        return [json.loads(line) for line in text.splitlines()]

    def images_in_use(self) -> set:
        ids = self.run("ps", "-aq", "--filter", f"label=grid.instance={self.instance}").split()
        return set(self.run("inspect", "--format", "{{.Image}}", *ids).split()) if ids else set()

    def all_images(self) -> int:
        """How many there are of anybody, layers of builds included."""
        return len(set(self.run("images", "-aq").split()))

    def remove(self, containers: list) -> None:
        if containers:
            self.run("rm", "-f", *containers)

    def remove_images(self, names: list) -> None:
        if names:
            self.run("rmi", "-f", *names)
