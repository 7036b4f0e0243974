"""The SSRF guard's part above `socket` and `asyncio`: resolves names once, checks every address of
the answer, and hands down literals only, so that no second resolution can change them. When the
resolver has withheld a name, the error is the guard's."""
import _socket

from grid_guard import is_literal
from grid_guard_withheld import make_explain


def patches(policy, blocked):
    """Patches by the name of the module that they are for."""
    explain = make_explain(policy)

    def vetted(sock, address):
        """The address with a literal in place of a name."""
        if not isinstance(address, tuple) or not address:
            return address
        host, *rest = address
        if isinstance(host, str):
            name = str.__str__(host)
        elif isinstance(host, (bytes, bytearray)):
            name = bytes(host).decode("ascii")
        else:
            return address
        port = rest[0] if rest else None
        literal, zone, _ = name.partition("%")
        if zone and is_literal(literal):
            policy.check(literal, name, port)
        if not zone and is_literal(name) or name in ("", "<broadcast>") or "\0" in name:
            return (name, *rest)  # the hook checks it, or the interpreter refuses it
        try:
            answer = _socket.getaddrinfo(name, None, sock.family, _socket.SOCK_STREAM)
        except _socket.gaierror as error:
            explain(error, name, port)
            raise
        policy.check_answer(answer, name, port)
        literal, _, *more = answer[0][4]
        return (literal, *rest, *more[len(rest) - 1:])

    def patch_socket(module):
        base = _socket.socket
        if not issubclass(module.socket, base):
            raise AttributeError

        def connect(self, address):
            return base.connect(self, vetted(self, address))

        def connect_ex(self, address):
            return base.connect_ex(self, vetted(self, address))

        def sendto(self, data, *rest):
            if rest:
                rest = (*rest[:-1], vetted(self, rest[-1]))
            return base.sendto(self, data, *rest)

        def sendmsg(self, *args):
            if len(args) == 4:
                args = (*args[:3], vetted(self, args[3]))
            return base.sendmsg(self, *args)

        for method in (connect, connect_ex, sendto, sendmsg):
            method.__doc__ = getattr(base, method.__name__).__doc__
            method.__qualname__ = "socket." + method.__name__
            method.__module__ = module.__name__
            setattr(module.socket, method.__name__, method)
        module.create_connection = by_literals(
            module.create_connection,
            lambda host, port: module.getaddrinfo(host, port, 0, module.SOCK_STREAM))

    def patch_urllib3(module):
        module.create_connection = by_literals(
            module.create_connection,
            lambda host, port: module.socket.getaddrinfo(
                host.strip("[]") if host.startswith("[") else host, port,
                module.allowed_gai_family(), module.socket.SOCK_STREAM))

    def by_literals(create_connection, resolve):
        """Such functions try one address after the other and would go past a blocked one."""
        def guarded(address, *args, **options):
            host, port = address
            if is_literal(host):
                return create_connection(address, *args, **options)
            try:
                answer = resolve(host, port)
            except _socket.gaierror as error:
                explain(error, host, port)
                raise
            errors = []
            for info in policy.check_answer(answer, host, port):
                try:
                    return create_connection(info[4][:2], *args, **options)
                except blocked:
                    raise
                except Exception as error:
                    errors.append(error)
            try:
                if options.get("all_errors"):
                    raise type(errors[0])("create_connection failed",
                                          [one for group in errors for one in group.exceptions])
                raise errors[-1] if errors else OSError("getaddrinfo returns an empty list")
            finally:
                errors.clear()  # or they would hold this frame, and it them
        return wrap(guarded, create_connection)

    async def explained(loop, lookup, address):
        try:
            return await lookup
        except _socket.gaierror as error:
            await loop.run_in_executor(None, explain, error, *address[:2])
            raise

    def patch_loop(module):
        """asyncio tries all addresses too, and joins several errors to one without a type."""
        from contextvars import ContextVar
        dialled = ContextVar("dialled", default=None)
        loop = module.BaseEventLoop
        ensure, create, datagram = (loop._ensure_resolved, loop.create_connection,
                                    loop.create_datagram_endpoint)

        async def _ensure_resolved(self, address, **options):
            # Local addresses and those of servers come here as well, and are free.
            if dialled.get() != tuple(address[:2]):
                return await ensure(self, address, **options)
            answer = await explained(self, ensure(self, address, **options), address)
            return policy.check_answer(answer, *address[:2])

        async def create_connection(self, protocol_factory, host=None, port=None, **options):
            token = dialled.set((host, port))
            try:
                return await create(self, protocol_factory, host, port, **options)
            finally:
                dialled.reset(token)

        async def create_datagram_endpoint(self, protocol_factory, local_addr=None,
                                           remote_addr=None, **options):
            token = dialled.set(remote_addr and tuple(remote_addr[:2]))
            try:
                return await datagram(self, protocol_factory, local_addr, remote_addr, **options)
            finally:
                dialled.reset(token)

        loop._ensure_resolved = wrap(_ensure_resolved, ensure)
        loop.create_connection = wrap(create_connection, create)
        loop.create_datagram_endpoint = wrap(create_datagram_endpoint, datagram)

    def patch_selector_loop(module):
        loop = module.BaseSelectorEventLoop
        original = loop.sock_connect

        async def sock_connect(self, sock, address):
            if isinstance(address, tuple) and len(address) > 1 and not is_literal(address[0]):
                answer = await explained(self, self.getaddrinfo(
                    *address[:2], family=sock.family, type=sock.type, proto=sock.proto), address)
                policy.check_answer(answer, *address[:2])
                address = answer[0][4]
            return await original(self, sock, address)

        loop.sock_connect = wrap(sock_connect, original)

    return {"socket": patch_socket, "urllib3.util.connection": patch_urllib3,
            "asyncio.base_events": patch_loop,
            "asyncio.selector_events": patch_selector_loop}


def wrap(guarded, original):
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(guarded, name, getattr(original, name, None))
    guarded.__wrapped__ = original
    return guarded
