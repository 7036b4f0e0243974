"""One job of the main thread: /ready, or a function request from event to answer."""
import os
from json import dumps
from time import monotonic

import grid_log
from grid_context import Context
from grid_event import Incoming, grid_event
from grid_failure import Failure, from_raised, one_line
from grid_http import CUT, Answer
from grid_loader import init_ms, is_loaded, load
from grid_result import to_answer
from grid_secrets import hide

_JSON = ("content-type", "application/json")
_OK = ("x-grid-outcome", "ok")
_ERROR = ("x-grid-outcome", "error")


def answer(settings, job):
    path = job.request.target.split("?", 1)[0]
    if path.startswith("/fn/"):
        return _invoke(settings, job)
    if path == "/invoke":
        return _once(settings, job)
    return _ready(settings, job.request)


def _json_answer(status, headers, value):
    return Answer(status, headers, dumps(value, separators=(",", ":")).encode("ascii"))


def _failure_answer(status, failure):
    return _json_answer(status, [_JSON], {"error": failure.kind,
                                          "message": one_line(hide(failure.message), 4096)})


def _ready(settings, request):
    if request.method == "POST":
        import grid_environment
        try:
            given = grid_environment.read(request.body)
        except Failure as failure:
            return _failure_answer(failure.status, failure)
        if not is_loaded():
            grid_environment.set_variables(*given)
    try:
        load(settings, grid_log.stack)
    except SystemExit as leaving:
        _leave(leaving)
    except Failure as failure:
        return _failure_answer(503, failure)
    return _json_answer(200, [_JSON], {"status": "ready", "calls_back": True})


def _leave(leaving):
    """sys.exit() in user code ends the process, with its exit code."""
    code = leaving.code
    if code is None:
        code = 0
    elif not isinstance(code, int):
        grid_log.note(str(code))
        code = 1
    import atexit
    try:
        atexit._run_exitfuncs()
    except BaseException:
        pass
    grid_log.end()
    grid_log.flush()
    os._exit(code & 0xFF)


def event_loop():
    """The loop that persists between requests: the one that user code knows as its own."""
    import asyncio
    policy = asyncio.get_event_loop_policy()
    try:
        loop = policy.get_event_loop()
    except RuntimeError:
        loop = None
    if loop is None or loop.is_closed():
        loop = policy.new_event_loop()
        policy.set_event_loop(loop)
    return loop


async def _await(awaitable):
    return await awaitable


def _call(handler, event, context):
    result = handler(event, context)
    if hasattr(type(result), "__await__"):
        loop = event_loop()
        result = loop.run_until_complete(_await(result))
    return result


def _run(settings, job, incoming, event_of, failed):
    """The handler's answer to the event; `failed` words a failure."""
    process = os.getpid()
    grid_log.start(incoming.request_id)
    try:
        handler = load(settings, grid_log.stack)
        event = event_of(incoming)
        context = Context(settings, incoming.request_id, incoming.function_name, incoming.deadline)
        result = _call(handler, event, context)
        if os.getpid() != process:  # a fork of the handler returned here: it is not the runner
            os._exit(0)
        reply = to_answer(result, settings)
        reply.headers.append(_OK)
        if reply.stream is not None:
            from grid_stream import send
            is_own_head = reply.stream is result
            reply = send(reply, is_own_head, job, settings, event_loop)
            if os.getpid() != process:
                os._exit(0)
    except SystemExit as leaving:
        _leave(leaving)
    except BaseException as error:
        if os.getpid() != process:
            os._exit(1)
        failure = from_raised(error)
        if isinstance(error, Failure):
            grid_log.note("%s: %s" % (failure.kind, failure.message))
        else:
            grid_log.stack(error)
        reply = failed(failure, error)
        del failure  # its traceback holds this frame: what the handler returned is let go of at once
    grid_log.end()
    return reply


def _invoke(settings, job):
    def event_of(incoming):
        if settings.is_lambda:
            from grid_lambda import lambda_event
            return lambda_event(incoming)
        return grid_event(incoming)

    def failed(failure, _error):
        return _json_answer(failure.status, [_JSON, _ERROR],
                            {"error": failure.kind, "message": one_line(hide(failure.message))})

    return _run(settings, job, Incoming(settings, job.request), event_of, failed)


def _once(settings, job):
    import grid_once
    try:
        event, incoming = grid_once.read(settings, job.request)
    except Failure as failure:
        return _failure_answer(failure.status, failure)
    begun = None

    def event_of(incoming):
        nonlocal begun
        begun = monotonic()
        return grid_once.complete(event, incoming, settings)

    basket = grid_once.Basket(job)
    reply = _run(settings, basket, incoming, event_of, grid_once.failed)
    taken = 0 if begun is None else (monotonic() - begun) * 1000
    if reply is CUT:
        return reply
    if not isinstance(reply, dict):
        reply = grid_once.success(grid_once.whole(reply, basket))
    return grid_once.to_json(reply, init_ms(), taken)
