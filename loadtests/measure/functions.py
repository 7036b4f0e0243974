"""The functions that are measured: the smallest that answer with a text."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Runtime:
    name: str
    # What the image holds the source as, see config/runtimes.toml.
    files: tuple
    # `%s` is the text of the answer, an expression.
    source: str
    version: str

    def code(self, text: str) -> str:
        return self.source % f'"{text}"'

    def version_code(self) -> str:
        """Answers with the version of the language."""
        return self.source % self.version


NODE = Runtime(
    "node18",
    ("function/index.js", "function/index.mjs"),
    'exports.handler = async () => ({statusCode: 200, headers: {"content-type": "text/plain"}, body: %s});\n',
    "process.version",
)
PYTHON = Runtime(
    "python3.9",
    ("function/function.py",),
    "import sys\n\n\ndef handler(event, context):\n"
    '    return {"statusCode": 200, "headers": {"content-type": "text/plain"}, "body": %s}\n',
    "sys.version.split()[0]",
)
RUNTIMES = (NODE, PYTHON)


def slug(runtime: Runtime) -> str:
    """The runtime's name as a part of a service's name."""
    return runtime.name.replace(".", "-")


def turns(count: int, tasks: list):
    """Each of the tasks `count` times, in rounds that begin with another one each time."""
    for number in range(count):
        shift = number % len(tasks)
        for task in tasks[shift:] + tasks[:shift]:
            yield number, task
