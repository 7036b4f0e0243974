"""Why a name was not found: Grid's resolver withholds a name that leads to a denied address, and
has that address under a name of its own. Elsewhere that name does not exist, and nothing changes."""
import _socket

SUFFIX = "withheld.grid.internal"
LONGEST = 253
NOT_FOUND = (_socket.EAI_NONAME, _socket.EAI_NODATA)


def make_explain(policy):
    """Makes the question, which asks by the resolver's function as it is now."""

    def explain(error, host, port, ask=_socket.getaddrinfo):
        """Raises SsrfBlocked when `error`, of looking up this host, is due to a denied address."""
        name = bytes(host).decode("latin-1") if isinstance(host, (bytes, bytearray)) else host
        if not isinstance(error, _socket.gaierror) or error.errno not in NOT_FOUND:
            return
        if not isinstance(name, str) or "." not in name or ":" in name or name.endswith(SUFFIX):
            return
        question = str.__str__(name).rstrip(".") + "." + SUFFIX
        if len(question) > LONGEST:
            return
        try:
            answer = ask(question, None, 0, _socket.SOCK_STREAM)
        except (OSError, ValueError):
            return  # it was not withheld
        policy.check_answer(answer, name, port)

    return explain
