"""Loads the function's module once and finds the handler in it."""
import os
import sys
from time import monotonic

from grid_failure import Failure, describe, one_line, show

FILE = "function.py"


class _Loading:
    """The outcome of the one attempt to load: a handler or a Failure."""
    handler = None
    failure = None
    ms = 0


def _import_module(path):
    """Like an import of `function`, but from source that may lie anywhere."""
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    module = type(sys)("function")
    module.__file__ = path
    sys.modules["function"] = module
    try:
        exec(code, module.__dict__)
    except BaseException:
        sys.modules.pop("function", None)
        raise
    # User code may have put something else there, as an import would allow it.
    return sys.modules.get("function", module)


def _message(error, path):
    """What is wrong, with the line when it is known."""
    if isinstance(error, FileNotFoundError) and error.filename == path:
        return "The function's code is missing: there is no " + path
    text = one_line(describe(error), 4000)
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return text  # Python's own text tells the line
    line = None
    tb = error.__traceback__
    while tb is not None:
        if tb.tb_frame.f_code.co_filename == path:
            line = tb.tb_lineno
        tb = tb.tb_next
    return text if line is None else "%s (%s, line %d)" % (text, FILE, line)


def _find(module, name):
    missing = object()
    handler = getattr(module, name, missing)
    if callable(handler):
        return handler
    if handler is not missing:
        raise Failure("no_handler", 'No handler: "%s" in the module is not a function but %s'
                      % (name, show(handler)))
    names = [key for key, value in vars(module).items()
             if not key.startswith("_") and callable(value)]
    listed = ", ".join(names[:10]) + (", \u2026" if len(names) > 10 else "")
    raise Failure("no_handler", 'No handler: module defines no function "%s" (it defines%s)'
                  % (name, ": " + listed if listed else " none"))


def load(settings, on_error):
    """The handler; the same handler or the same Failure each time. SystemExit passes."""
    if _Loading.failure is not None:
        raise _Loading.failure.with_traceback(None)
    if _Loading.handler is None:
        begun = monotonic()
        path = os.path.join(settings.function_dir, FILE)
        if settings.function_dir not in sys.path:
            sys.path.insert(0, settings.function_dir)
        try:
            try:
                module = _import_module(path)
            except SystemExit:
                raise
            except BaseException as error:
                failure = Failure("load_failed", _message(error, path))
                failure.stack = on_error(error)
                raise failure from None
            _Loading.handler = _find(module, settings.handler.rpartition(".")[2])
        except Failure as failure:
            _Loading.failure = failure
            raise
        finally:
            _Loading.ms = (monotonic() - begun) * 1000
    return _Loading.handler


def is_loaded():
    """Whether it has been tried."""
    return _Loading.handler is not None or _Loading.failure is not None


def init_ms():
    """How long loading took."""
    return _Loading.ms
