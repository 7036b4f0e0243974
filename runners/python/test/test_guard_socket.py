"""The guard at `socket`, `_socket` and `asyncio`: what is denied, what is allowed, what still works."""
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guard_probe import GuardTest  # noqa: E402

# Each connects a socket to HOST.
WAYS = {
    "connect": "socket.socket().connect((HOST, 80))",
    "connect_ex": "n = socket.socket().connect_ex((HOST, 80))\nif n: raise OSError(n, os.strerror(n))",
    "sendto": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', (HOST, 80))",
    "sendto with flags": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', 0, (HOST, 80))",
    "sendmsg": "socket.socket(type=socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, (HOST, 80))",
    "fast open": "socket.socket().sendto(b'x', socket.MSG_FASTOPEN, (HOST, 80))",
    "create_connection": "socket.create_connection((HOST, 80))",
    "_socket": "_socket.socket().connect((HOST, 80))",
    "_socket.connect_ex":
        "n = _socket.socket().connect_ex((HOST, 80))\nif n: raise OSError(n, os.strerror(n))",
    "_socket.sendto": "_socket.socket(type=2).sendto(b'x', (HOST, 80))",
    "_socket.sendmsg": "_socket.socket(type=2).sendmsg([b'x'], [], 0, (HOST, 80))",
    "unbound method": "_socket.socket.connect(socket.socket(), (HOST, 80))",
    "TLS": "ssl.create_default_context().wrap_socket(socket.socket(), server_hostname='a.test')"
           ".connect((HOST, 443))",
    "ftplib": "ftplib.FTP(HOST)",
    "smtplib": "smtplib.SMTP(HOST)",
    "imaplib": "imaplib.IMAP4(HOST)",
    "http.client": "http.client.HTTPConnection(HOST).request('GET', '/')",
    "http.client with TLS": "http.client.HTTPSConnection(HOST).request('GET', '/')",
    "multiprocessing.connection": "multiprocessing.connection.Client((HOST, 80))",
    "open_connection": "asyncio.run(asyncio.open_connection(HOST, 80))",
    "loop.create_connection":
        "async def go():\n  loop = asyncio.get_running_loop()\n"
        "  await loop.create_connection(asyncio.Protocol, HOST, 80)\nasyncio.run(go())",
    "loop.sock_connect":
        "async def go():\n  sock = socket.socket(); sock.setblocking(False)\n"
        "  await asyncio.get_running_loop().sock_connect(sock, (HOST, 80))\nasyncio.run(go())",
    "loop.create_datagram_endpoint":
        "async def go():\n  loop = asyncio.get_running_loop()\n"
        "  await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=(HOST, 80))\n"
        "asyncio.run(go())",
    "thread pool":
        "concurrent.futures.ThreadPoolExecutor().submit(socket.create_connection, (HOST, 80)).result()",
}
IMPORTS = ("import asyncio, concurrent.futures, ftplib, http.client, imaplib, os, smtplib, socket\n"
           "import _socket, ssl, multiprocessing.connection\nHOST = %r\n")
LOOPBACK = ("127.0.0.1", "::1")
# Only these resolve: the others are below the part of the guard that does.
BELOW = ("_socket", "_socket.connect_ex", "_socket.sendto", "_socket.sendmsg", "unbound method")


class WaysTest(GuardTest):
    def test_a_denied_address_is_denied_in_every_way(self):
        for name, code in WAYS.items():
            for host in ("10.1.2.3", "169.254.169.254"):
                with self.subTest(name, host=host):
                    told = self.blocked(IMPORTS % host + code, host)
                    self.assertEqual(told["host"], host)
                    self.assertIsInstance(told["port"], int)

    def test_an_allowed_address_is_allowed_in_every_way(self):
        for name, code in WAYS.items():
            with self.subTest(name):
                self.allowed(IMPORTS % "8.8.8.8" + code)

    def test_a_name_is_denied_by_what_it_resolves_to(self):
        for name, code in WAYS.items():
            with self.subTest(name):
                expected = ["localhost: not resolved by the guard"] if name in BELOW else LOOPBACK
                self.assertEqual(self.blocked(IMPORTS % "localhost" + code, expected)["host"],
                                 "localhost")

    def test_another_spelling_of_an_allowed_address_is_allowed(self):
        for name, code in WAYS.items():
            with self.subTest(name):
                if name in BELOW:
                    self.blocked(IMPORTS % "134744072" + code,
                                 "134744072: not resolved by the guard")
                else:
                    self.allowed(IMPORTS % "134744072" + code)

    def test_ipv6(self):
        for code in ("s.connect((HOST, 80))", "s.connect((HOST, 80, 0, 0))",
                     "socket.create_connection((HOST, 80))", "t.connect((HOST, 80, 0, 0))",
                     "u.sendto(b'x', (HOST, 80))"):
            start = ("import socket, _socket\ns = socket.socket(socket.AF_INET6)\n"
                     "t = _socket.socket(10)\nu = socket.socket(10, 2)\nHOST = %r\n")
            for host, named in (("::1", "::1"), ("::ffff:10.1.2.3", "10.1.2.3"), ("::", "::"),
                                ("::ffff:8.8.8.8", "::ffff:8.8.8.8"), ("fd00::1", "fd00::1"),
                                ("64:ff9b::a01:203", "10.1.2.3"), ("2002:a01:203::", "10.1.2.3")):
                with self.subTest(code, host=host):
                    self.blocked(start % host + code, named)
            with self.subTest(code):
                self.allowed(start % "2606:4700:4700::1111" + code)

    def test_a_zone_changes_nothing(self):
        start = "import socket\ns = socket.socket(socket.AF_INET6)\n"
        for host in ("fe80::1%eth0", "fe80::1%lo", "fe80::1%1"):
            with self.subTest(host):
                self.blocked(start + "s.connect((%r, 80))" % host, "fe80::1")
        self.blocked(start + "s.connect(('fe80::1', 80, 0, 1))", "fe80::1")
        self.blocked("import _socket\n_socket.socket(10).connect(('fe80::1%lo', 80))",
                     "fe80::1%lo: not resolved by the guard")

    def test_special_hosts(self):
        for host, named in (("''", "0.0.0.0"), ("'<broadcast>'", "255.255.255.255"),
                            ("b'10.1.2.3'", "10.1.2.3"), ("bytearray(b'10.1.2.3')", "10.1.2.3"),
                            ("'\uff11\uff10.1.2.3'", "10.1.2.3")):
            with self.subTest(host):
                self.blocked("import socket\nsocket.socket().connect((%s, 80))" % host, named)
        for host in ("b'8.8.8.8'", "bytearray(b'8.8.8.8')"):
            with self.subTest(host):
                self.allowed("import socket\nsocket.socket().connect((%s, 80))" % host)
        told = self.probe("import socket\nsocket.socket().connect(('8.8.8.8\\0a', 80))")
        self.assertIn("null character", told["text"])

    def test_other_families_and_protocols(self):
        self.blocked("import socket\nsocket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)",
                     "a socket of type 1 and protocol 132")
        self.blocked("import socket\nsocket.socket(socket.AF_INET6, socket.SOCK_SEQPACKET)",
                     "a socket of type 5 and protocol 0")
        self.works("import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW).connect((0, 0))\n"
                   "result = True")


class ResolutionTest(GuardTest):
    """Names by a `socket.getaddrinfo` that user code has put in place, as caches of DNS do."""

    def code(self, answers, call):
        return ("import asyncio, socket\nanswers = %r\ncalls = []\n"
                "def fake(host, port, *args, **options):\n"
                "    calls.append(host)\n"
                "    hosts = answers[min(len(calls), len(answers)) - 1]\n"
                "    return [(socket.AF_INET, socket.SOCK_STREAM, 6, '', (h, port)) for h in hosts]\n"
                "real, socket.getaddrinfo = socket.getaddrinfo, fake\n"
                "try:\n    %s\nfinally:\n    socket.getaddrinfo = real\n" % (answers, call))

    CALLS = ("socket.create_connection(('a.test', 80))",
             "asyncio.run(asyncio.open_connection('a.test', 80))",
             "import urllib.request; urllib.request.urlopen('http://a.test/')")

    def test_all_addresses_public(self):
        for call in self.CALLS:
            with self.subTest(call):
                self.allowed(self.code([["8.8.8.8", "1.1.1.1"]], call))

    def test_one_private_address_is_enough(self):
        for call in self.CALLS:
            for hosts in (["10.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["10.0.0.1", "8.8.8.8"]):
                with self.subTest(call, hosts=hosts):
                    told = self.blocked(self.code([hosts], call), "10.0.0.1")
                    self.assertEqual(told["host"], "a.test")

    def test_a_name_that_changes_after_the_check(self):
        # Each further resolution says private: the connection went to what was checked, or nowhere.
        for call in self.CALLS:
            with self.subTest(call):
                told = self.probe(self.code([["8.8.8.8"], ["10.0.0.1"]], call))
                self.assertTrue("Network is unreachable" in told["text"]
                                or told["status"] == 452, told)

    def test_a_resolver_that_answers_names(self):
        self.blocked(self.code([["localhost"]], self.CALLS[0]), ("127.0.0.1", "::1"))

    def test_asking_is_free(self):
        self.works("import socket\nresult = [socket.getaddrinfo('127.0.0.1', 80)[0][4][0],\n"
                   " socket.gethostbyname('localhost'), socket.gethostbyname('10.0.0.1')]",
                   ["127.0.0.1", "127.0.0.1", "10.0.0.1"])


class StillWorksTest(GuardTest):
    def test_unix_sockets(self):
        self.works("import os, socket, tempfile\npath = tempfile.mkdtemp() + '/s'\n"
                   "server = socket.socket(socket.AF_UNIX); server.bind(path); server.listen(1)\n"
                   "client = socket.socket(socket.AF_UNIX); client.connect(os.fsencode(path))\n"
                   "peer = server.accept()[0]; client.sendmsg([b'hi']); result = peer.recv(2) == b'hi'")

    def test_pairs(self):
        self.works("import socket\na, b = socket.socketpair(); a.send(b'hi')\n"
                   "a.sendmsg([b'!']); result = b.recv(2) == b'hi'")

    def test_servers(self):
        self.works("import http.server, socket\n"
                   "server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), "
                   "http.server.BaseHTTPRequestHandler)\nserver.server_close()\n"
                   "sock = socket.create_server(('', 0)); sock.close(); result = True")

    def test_asyncio(self):
        self.works("import asyncio, tempfile\n"
                   "async def go():\n"
                   "  path = tempfile.mkdtemp() + '/s'\n"
                   "  async def serve(reader, writer):\n"
                   "    writer.write(await reader.readexactly(2)); writer.close()\n"
                   "  server = await asyncio.start_unix_server(serve, path)\n"
                   "  reader, writer = await asyncio.open_unix_connection(path)\n"
                   "  writer.write(b'hi')\n  back = await reader.read()\n  server.close()\n"
                   "  listening = await asyncio.start_server(serve, '127.0.0.1', 0)\n"
                   "  listening.close()\n"
                   "  local, _ = await asyncio.get_running_loop().create_datagram_endpoint(\n"
                   "    asyncio.DatagramProtocol, local_addr=('127.0.0.1', 0))\n"
                   "  local.close()\n"
                   "  return await asyncio.to_thread(lambda: back == b'hi')\n"
                   "result = asyncio.run(go())")

    def test_the_runner_redials_and_serves_its_port(self):
        self.runner.wire.sock.close()
        type(self).runner.wire = self.runner.edge.accept()
        self.works("result = True")
        self.assertEqual(self.runner.connect_port().ask(target="/health").status, 200)


if __name__ == "__main__":
    unittest.main()
