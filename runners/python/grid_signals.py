"""SIGTERM and SIGINT end the process at once with code 0, whatever the main thread does."""
import _signal
import _thread
import os

import grid_log

STOPS = (_signal.SIGTERM, _signal.SIGINT)


def _stop(_number, _frame):
    grid_log.flush()
    os._exit(0)


def _watch(pipe):
    """A Python handler waits for the main thread, which may just be falling asleep on a lock
    or be busy; the bytes that the interpreter writes here for each signal do not."""
    while True:
        for number in os.read(pipe, 64):
            # User code may have taken the signal over.
            if number in STOPS and _signal.getsignal(number) is _stop:
                _stop(number, None)


# A forked child is user code's: it ends by signals as any process does. Until its handlers are
# reset, a signal must not reach it, or it would end its parent through the shared pipe.

def _before_fork():
    _signal.pthread_sigmask(_signal.SIG_BLOCK, STOPS)


def _after_fork_in_parent():
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, STOPS)


def _after_fork_in_child():
    _signal.set_wakeup_fd(-1)
    for number in STOPS:
        if _signal.getsignal(number) is _stop:
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, STOPS)


def install():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for number in STOPS:
        _signal.signal(number, _stop)
    _signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent,
                        after_in_child=_after_fork_in_child)
    _thread.start_new_thread(_watch, (reading,))
