"""The guard under urllib, requests and urllib3: kinds of errors, spellings, redirects, proxies, retries.

requests and urllib3 come from the folder GRID_TEST_PACKAGES: requirements.txt installed into it, and
requirements-urllib3-1.txt into its folder urllib3-1."""
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guard_probe import GuardTest, NO_ROUTE, shared  # noqa: E402

URL_ERROR = "urllib.error.URLError"
REQUESTS_ERROR = "requests.exceptions.ConnectionError"
URLLIB3_ERROR = "urllib3.exceptions.HTTPError"

# A web server on a Unix socket, where the guard lets everybody connect: `/N/URL` redirects to the
# URL with status N, anything else answers 200. `Hop` connects to it whatever the host is.
SERVER = '''
import http.client, http.server, socket, socketserver, tempfile, threading

class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        status, _, target = self.path[1:].partition("/")
        self.send_response(int(status) if target else 200)
        if target:
            self.send_header("location", target)
        self.send_header("content-length", "0")
        self.end_headers()
    do_POST = do_GET
    def address_string(self):
        return "unix"
    def log_message(self, *args):
        pass

class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

path = tempfile.mkdtemp() + "/s"
server = Server(path, Answers)
threading.Thread(target=server.serve_forever, daemon=True).start()

class Hop(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
'''
OPENER = SERVER + '''
import urllib.request

class FirstHop(urllib.request.HTTPHandler):
    def http_open(self, request):
        first = request.host == "first.test"
        return self.do_open(Hop if first else http.client.HTTPConnection, request)

opener = urllib.request.build_opener(FirstHop)
'''


class UrllibTest(GuardTest):
    def test_every_spelling(self):
        start = "import urllib.request\nurllib.request.urlopen(%r)"
        for case in shared("spellings.json"):
            with self.subTest(case["name"], url=case["url"]):
                if case["python"] == "allowed":
                    self.allowed(start % case["url"])
                elif case["python"] == "rejected":
                    told = self.probe(start % case["url"])
                    self.assertNotIn("grid_guard.SsrfBlocked", told["kinds"])
                    self.assertFalse(any(text in told["text"] for text in NO_ROUTE), told)
                else:
                    self.blocked(start % case["url"], case["python"], URL_ERROR)

    def test_every_opener(self):
        for call in ("urlopen('http://10.1.2.3/')", "urlopen('http://10.1.2.3/', b'post')",
                     "urlopen('https://10.1.2.3/')", "urlopen('ftp://10.1.2.3/')",
                     "urlopen(Request('http://10.1.2.3/', method='PUT'))",
                     "build_opener().open('http://10.1.2.3/')", "urlretrieve('http://10.1.2.3/')",
                     "OpenerDirector.open(build_opener(), 'http://10.1.2.3/')",
                     "URLopener().open('http://10.1.2.3/')"):
            with self.subTest(call):
                self.blocked("from urllib.request import *\nfrom urllib.request import URLopener\n"
                             + call, "10.1.2.3", URL_ERROR)

    def test_an_allowed_address(self):
        for scheme in ("http", "https", "ftp"):
            with self.subTest(scheme):
                self.allowed("import urllib.request\nurllib.request.urlopen('%s://8.8.8.8/')" % scheme)

    def test_the_reason_is_the_guards_error(self):
        self.works("import urllib.error, urllib.request\ntry:\n"
                   "    urllib.request.urlopen('http://10.1.2.3/')\n"
                   "except urllib.error.URLError as error:\n"
                   "    result = [error.reason.status, str(error.reason) == str(error)]", [452, True])

    def test_another_error_stays_another_error(self):
        # Also while a blocked request is being handled.
        told = self.allowed("import urllib.request\ntry:\n"
                            "    urllib.request.urlopen('http://10.1.2.3/')\n"
                            "except OSError:\n    urllib.request.urlopen('http://8.8.8.8/')")
        self.assertEqual(told["kinds"][0], URL_ERROR)

    def test_redirects(self):
        self.works(OPENER + "result = opener.open('http://first.test/').status", 200)
        self.works(OPENER + "result = opener.open('http://first.test/302/http://first.test/').status",
                   200)
        self.allowed(OPENER + "opener.open('http://first.test/302/http://8.8.8.8/')")
        for status in (301, 302, 303, 307):
            for target in ("http://10.1.2.3/", "https://10.1.2.3/", "ftp://10.1.2.3/",
                           "http://first.test/302/http://10.1.2.3/"):
                with self.subTest(status, target=target):
                    self.blocked(OPENER + "opener.open('http://first.test/%d/%s')"
                                 % (status, target), "10.1.2.3", URL_ERROR)
        self.blocked(OPENER + "opener.open('http://first.test/302/http://10.1.2.3/', b'post')",
                     "10.1.2.3", URL_ERROR)

    def test_proxies(self):
        handler = ("from urllib.request import *\nbuild_opener(ProxyHandler({%r: %r}))"
                   ".open('%s://a.test/')")
        for scheme in ("http", "https"):
            with self.subTest(scheme):
                self.blocked(handler % (scheme, "http://10.1.2.3:3128", scheme), "10.1.2.3", URL_ERROR)
                self.allowed(handler % (scheme, "http://8.8.8.8:3128", scheme))

    def test_proxy_variables(self):
        code = ("import os, urllib.request\nos.environ['http_proxy'] = %r\ntry:\n"
                "    urllib.request.build_opener().open('http://a.test/')\nfinally:\n"
                "    del os.environ['http_proxy']")
        self.blocked(code % "http://10.1.2.3:3128", "10.1.2.3", URL_ERROR)
        self.allowed(code % "http://8.8.8.8:3128")


class HttpClientTest(GuardTest):
    def test_connections(self):
        for name in ("HTTPConnection", "HTTPSConnection"):
            start = "import http.client\nc = http.client.%s" % name
            with self.subTest(name):
                told = self.blocked(start + "('10.1.2.3'); c.request('GET', '/')", "10.1.2.3")
                self.assertEqual(told["kinds"][0], "grid_guard.SsrfBlocked")
                self.blocked(start + "('10.1.2.3'); c.connect()", "10.1.2.3")
                self.blocked(start + "('10.1.2.3'); c.set_tunnel('a.test'); c.request('GET', '/')",
                             "10.1.2.3")
                self.allowed(start + "('8.8.8.8'); c.connect()")

    def test_a_connection_that_lives_on_after_a_check(self):
        self.works(SERVER + "c = Hop('first.test')\nresult = []\nfor _ in range(3):\n"
                   "    c.request('GET', '/'); r = c.getresponse(); r.read(); result.append(r.status)",
                   [200, 200, 200])


class Packages:
    """requests and urllib3; the two classes below say which urllib3."""
    folders = ()

    @classmethod
    def setUpClass(cls):
        base = os.environ.get("GRID_TEST_PACKAGES")
        if not base:
            raise AssertionError("GRID_TEST_PACKAGES names no folder with requests and urllib3: "
                                 "see the head of test_guard_http.py")
        cls.start = "import sys\n" + "".join(
            "sys.path.insert(0, %r)\n" % os.path.join(base, folder) for folder in cls.folders)
        super().setUpClass()

    def setUp(self):
        self.works(self.start + "import urllib3\nresult = urllib3.__version__[0]", self.major)

    def test_requests(self):
        start = self.start + "import requests\n"
        for call in ("get('http://10.1.2.3/')", "get('https://10.1.2.3/')",
                     "post('http://10.1.2.3/', data={'a': 'b'})", "Session().get('http://10.1.2.3/')",
                     "Session().send(requests.Request('GET', 'http://10.1.2.3/').prepare())",
                     "adapters.HTTPAdapter().send(requests.Request('GET', 'http://10.1.2.3/').prepare())",
                     "get('http://[::ffff:10.1.2.3]/')", "get('http://167838211/')",
                     "get('http://0xa.1.515/')"):
            with self.subTest(call):
                self.blocked(start + "requests." + call, "10.1.2.3", REQUESTS_ERROR)
        for url in ("http://8.8.8.8/", "https://8.8.8.8/"):
            with self.subTest(url):
                self.allowed(start + "requests.get(%r)" % url)
        self.blocked(start + "requests.get('http://localhost/')", ("127.0.0.1", "::1"), REQUESTS_ERROR)

    def test_what_requests_says_of_a_failure(self):
        self.works(self.start + "import requests\ntry:\n    requests.get('http://10.1.2.3/')\n"
                   "except requests.exceptions.RequestException as error:\n"
                   "    result = [error.request.url, error.response]", ["http://10.1.2.3/", None])

    def test_proxies_of_requests(self):
        for scheme in ("http", "https"):
            for proxy, check in (("10.1.2.3", self.is_blocked), ("8.8.8.8", self.allowed)):
                with self.subTest(scheme, proxy=proxy):
                    check(self.start + "import requests\ns = requests.Session()\n"
                          "s.proxies = {%r: 'http://%s:3128'}\ns.get('%s://9.9.9.9/')"
                          % (scheme, proxy, scheme))

    def is_blocked(self, code):
        self.blocked(code, "10.1.2.3", REQUESTS_ERROR)

    def test_redirects_of_requests(self):
        start = self.start + SERVER + '''
import requests, urllib3.connection, urllib3.connectionpool

class Connection(urllib3.connection.HTTPConnection):
    def _new_conn(self):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        return sock

class FirstHop(requests.adapters.HTTPAdapter):
    def pool(self, *args, **options):
        pool = urllib3.connectionpool.HTTPConnectionPool("first.test")
        pool.ConnectionCls = Connection
        return pool
    get_connection = get_connection_with_tls_context = pool

session = requests.Session()
session.mount("http://first.test", FirstHop())
'''
        self.works(start + "result = session.get('http://first.test/').status_code", 200)
        self.allowed(start + "session.get('http://first.test/302/http://8.8.8.8/')")
        for status in (301, 302, 303, 307, 308):
            for call in ("get('http://first.test/%d/http://10.1.2.3/')",
                         "post('http://first.test/%d/https://10.1.2.3/', data='x')",
                         "get('http://first.test/%d/http://first.test/307/http://10.1.2.3/')"):
                with self.subTest(call % status):
                    self.is_blocked(start + "session." + call % status)

    def test_urllib3(self):
        start = self.start + "import urllib3\n"
        for call in ("PoolManager().request('GET', 'http://10.1.2.3/')",
                     "PoolManager().request('GET', 'https://10.1.2.3/')",
                     "PoolManager().request('GET', 'http://10.1.2.3/', retries=False)",
                     "HTTPConnectionPool('10.1.2.3').urlopen('GET', '/')",
                     "ProxyManager('http://10.1.2.3:3128').request('GET', 'http://9.9.9.9/')",
                     "ProxyManager('http://10.1.2.3:3128').request('GET', 'https://9.9.9.9/')",
                     "connection.HTTPConnection('10.1.2.3').request('GET', '/')",
                     "connection.HTTPSConnection('10.1.2.3').request('GET', '/')"):
            with self.subTest(call):
                self.blocked(start + "urllib3." + call, "10.1.2.3", URLLIB3_ERROR)
        self.blocked(start + "urllib3.PoolManager().request('GET', 'http://10.1.2.3/')",
                     "10.1.2.3", "urllib3.exceptions.MaxRetryError")
        self.blocked(start + "urllib3.connection.HTTPConnection('10.1.2.3').connect()",
                     "10.1.2.3", "urllib3.exceptions.NewConnectionError")
        self.allowed(start + "urllib3.PoolManager().request('GET', 'http://8.8.8.8/', retries=False)")

    def test_one_private_address_is_enough(self):
        code = self.start + (
            "import requests, socket\ndef fake(host, port, *args, **options):\n"
            "    return [(socket.AF_INET, socket.SOCK_STREAM, 6, '', (h, port)) for h in %r]\n"
            "real, socket.getaddrinfo = socket.getaddrinfo, fake\ntry:\n"
            "    requests.get('http://a.test/')\nfinally:\n    socket.getaddrinfo = real\n")
        self.allowed(code % (["8.8.8.8", "1.1.1.1"],))
        for hosts in (["8.8.8.8", "10.1.2.3"], ["10.1.2.3", "8.8.8.8"]):
            with self.subTest(hosts):
                self.is_blocked(code % (hosts,))

    def test_a_blocked_request_is_not_retried(self):
        # Each pause before a retry would be counted, and so would each attempt to connect.
        code = self.start + (
            "import requests, socket, time, urllib3\nfrom urllib3.util.retry import Retry\n"
            "pauses, dials = [], []\n"
            "class Counted(Retry):\n    def sleep(self, *args, **options): pauses.append(1)\n"
            "real = urllib3.util.connection.create_connection\n"
            "def dial(*args, **options):\n    dials.append(1)\n    return real(*args, **options)\n"
            "urllib3.util.connection.create_connection = dial\n"
            "session = requests.Session()\n"
            "session.mount('http://', requests.adapters.HTTPAdapter("
            "max_retries=Counted(total=5, backoff_factor=60)))\ntry:\n"
            "    session.get('http://%s/')\nexcept OSError as error:\n"
            "    result = [len(pauses), len(dials)]\nfinally:\n"
            "    urllib3.util.connection.create_connection = real\n")
        self.works(code % "10.1.2.3", [0, 1])
        self.works(code % "8.8.8.8", [5, 6])

    def test_another_error_stays_another_error(self):
        told = self.allowed(self.start + "import requests\ntry:\n    requests.get('http://10.1.2.3/')\n"
                            "except OSError:\n    requests.get('http://8.8.8.8/')")
        self.assertEqual(told["kinds"][0], REQUESTS_ERROR)


class Urllib3Test(Packages, GuardTest):
    folders = ("",)
    major = "2"


class OldUrllib3Test(Packages, GuardTest):
    folders = ("", "urllib3-1")
    major = "1"


if __name__ == "__main__":
    unittest.main()
