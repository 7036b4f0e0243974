"""The base of the SSRF guard: the audit hook and the judgement on an address.

User code may patch builtins, modules and even the methods of built-in types. So these functions
look up no name outside of themselves: what they use are literals and their arguments' defaults,
which are constant, since the hook lets nobody change the functions of this module. Whatever goes
wrong in the hook is raised, and what a hook raises stops the call."""
import _socket

# TCP, UDP, ping and MPTCP. Other protocols know more ways to connect, as SCTP by setsockopt.
PROTOCOLS = frozenset((-1, 0, 1, 6, 17, 58, 262))
TYPES = frozenset((-1, 1, 2, 3))  # stream, datagram, raw


def make_refused(denied_v4, allowed_v6, denied_v6):
    """Makes the judgement from tuples of (first, last) numbers."""

    def refused(packed, _denied_v4=denied_v4, _allowed_v6=allowed_v6, _denied_v6=denied_v6,
                _number=int.from_bytes, _bytes=int.to_bytes, _len=len):
        """What is not allowed of a packed address: itself, or the IPv4 address that it carries.
        None when it is allowed."""
        number = _number(packed, "big")
        if _len(packed) == 4:
            for first, last in _denied_v4:
                if first <= number <= last:
                    return packed
            return None
        head = number >> 32
        carried = None
        if head == 0:  # compatible; `::` and `::1` are addresses of their own
            if number > 1:
                carried = number
        elif (head == 0xffff or head == 0xffff0000 or head == 0x64ff9b << 64
                or number >> 80 == 0x64ff9b0001):  # mapped, translated, NAT64
            carried = number & 0xffffffff
        elif number >> 112 == 0x2002:  # 6to4
            carried = number >> 80 & 0xffffffff
        if carried is not None:
            for first, last in _denied_v4:
                if first <= carried <= last:
                    return _bytes(carried, 4, "big")
        for first, last in _denied_v6:
            if first <= number <= last:
                return packed
        for first, last in _allowed_v6:
            if first <= number <= last:
                return None
        return packed

    return refused


def make_hook(refused, blocked):
    """Makes the audit hook; `blocked` is the error's class."""

    def check_address(sock, address, _refused=refused, _blocked=blocked, _isinstance=isinstance,
                      _type=type, _str=str, _bytes=bytes, _int=int, _tuple=tuple, _len=len,
                      _item=tuple.__getitem__, _decode=bytes.decode, _contains=str.__contains__,
                      _pton=_socket.inet_pton, _ntop=_socket.inet_ntop,
                      _family=_socket.socket.family.__get__, _v4=_socket.AF_INET,
                      _v6=_socket.AF_INET6, _netlink=_socket.AF_NETLINK,
                      _errors=(OSError, ValueError)):
        # The address' form tells the family: the socket's own could be changed by now.
        if not _isinstance(address, _tuple):
            return  # a path: AF_UNIX
        host = _item(address, 0)
        if _type(host) is _int:
            if _family(sock) != _netlink:  # AF_VSOCK leads to the hypervisor
                raise _blocked("a socket of family %d" % _family(sock))
            return
        port = _item(address, 1) if _len(address) > 1 else None
        # Only these two types cannot lie, nor change between the interpreter's look and this one.
        # grid_guard_socket turns the others into them.
        if _type(host) is _bytes:
            text = _decode(host, "latin-1")
        elif _type(host) is _str:
            text = host
        else:
            raise _blocked("a host of a special type", None, port)
        if text == "":
            text = "0.0.0.0"
        elif text == "<broadcast>":
            text = "255.255.255.255"
        try:
            family = _v6 if _contains(text, ":") else _v4
            packed = _pton(family, text)  # as the interpreter does it first
        except _errors:
            raise _blocked(text, text, port, ": not resolved by the guard")
        bad = _refused(packed)
        if bad is not None:
            raise _blocked(_ntop(_v4 if _len(bad) == 4 else _v6, bad), text, port)

    def hook(event, args, _check=check_address, _blocked=blocked, _own=globals(),
             _dials=frozenset(("socket.connect", "socket.sendto", "socket.sendmsg")),
             _changes=frozenset(("object.__setattr__", "object.__delattr__")),
             _families=frozenset((-1, _socket.AF_INET, _socket.AF_INET6)),
             _protocols=PROTOCOLS, _types=TYPES, _type=type, _function=type(make_refused),
             _globals=type(make_refused).__globals__.__get__, _denied=PermissionError,
             _isinstance=isinstance, _str=str, _ends=str.endswith,
             _interpreters=("_xxsubinterpreters", "_testcapi")):
        if event in _dials:
            _check(args[0], args[1])
        elif event == "socket.__new__":
            _, family, kind, protocol = args
            if family in _families and not (protocol in _protocols and (
                    kind == -1 or kind & 15 in _types)):
                raise _blocked("a socket of type %d and protocol %d" % (kind, protocol))
        elif event in _changes:
            if _type(args[0]) is _function and _globals(args[0]) is _own:
                raise _denied("the SSRF guard cannot be changed")
        elif event == "import":  # these two make interpreters that have no hook
            if _isinstance(args[0], _str) and _ends(args[0], _interpreters):
                raise _denied("the SSRF guard allows no second interpreter")

    # The method wrapper takes no attributes: nobody can ask for tracing (`__cantrace__`) in it.
    return hook.__call__
