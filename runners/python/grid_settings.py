"""The runner's settings, read from the environment once, before user code can change it."""
import os


def _number(name, fallback):
    try:
        value = float(os.environ.get(name, ""))
    except ValueError:
        return fallback
    return value if 0 <= value < float("inf") else fallback


class Settings:
    def __init__(self):
        env = os.environ.get
        self.function_dir = os.path.abspath(env("GRID_FUNCTION_DIR") or "/app/function")
        self.socket = env("GRID_SOCKET") or "/run/grid/edge.sock"
        self.port = int(_number("PORT", 8000))
        self.handler = env("GRID_HANDLER") or "handler"
        self.is_lambda = env("GRID_EVENT_FORMAT") == "lambda-v2"
        self.function_name = env("GRID_FUNCTION_NAME") or "function"
        self.deployment = env("GRID_DEPLOYMENT") or "$LATEST"
        self.memory_mb = env("GRID_MEMORY_MB") or "128"
        self.timeout_ms = _number("GRID_TIMEOUT_SECONDS", 30) * 1000
        self.max_response_bytes = int(_number("GRID_MAX_RESPONSE_BYTES", 6291456))
        self.orphan_seconds = _number("GRID_ORPHAN_SECONDS", 600)
