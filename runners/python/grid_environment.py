"""What the edge hands over before the module is loaded: environment variables, and which of them
are secrets."""
import os
from json import loads

from grid_failure import Failure, clean_text
from grid_secrets import remember

# Holds 64 KiB of which JSON writes each byte with six.
MAX_BYTES = 524288


def _invalid(message, status=400):
    return Failure("invalid_request", message, status)


def read(body):
    """(env, names of secrets) of a body of `POST /ready`."""
    if len(body) > MAX_BYTES:
        raise _invalid("%d bytes are allowed" % MAX_BYTES, 413)
    try:
        given = loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _invalid("not JSON: %s" % error) from None
    if not isinstance(given, dict):
        raise _invalid("not an object")
    env, secrets = given.get("env", {}), given.get("secrets", [])
    if not isinstance(env, dict):
        raise _invalid("env is not an object")
    for name, value in env.items():
        if not name or "=" in name or "\0" in name:
            raise _invalid("a name in env cannot be one of a variable")
        if not isinstance(value, str) or "\0" in value:
            raise _invalid("env.%s cannot be the value of a variable" % name)
    if not isinstance(secrets, list):
        raise _invalid("secrets is not an array")
    return env, secrets


def set_variables(env, secrets):
    """Sets them, once it is known that nothing has been loaded."""
    remember([env[name] for name in secrets if isinstance(name, str) and name in env])
    for name, value in env.items():
        # What the runner goes by is not the function's to change.
        if not name.startswith("GRID_"):
            # `os.environ` would take the locale's encoding, which is not always UTF-8.
            os.environb[clean_text(name).encode("utf-8")] = clean_text(value).encode("utf-8")
    if "TZ" in env:
        import time
        time.tzset()
