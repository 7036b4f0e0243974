# Python's own ways to connect. See ../../tricks.rs for the form of this file.

#= socket | SSRF guard blocked
import socket
socket.socket().connect((host, port))

#= connect_ex | SSRF guard blocked
import socket
result = socket.socket().connect_ex((host, port))

#= create_connection | SSRF guard blocked
import socket
socket.create_connection((host, port))

#= sendto | SSRF guard blocked
import socket
socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', (host, port))

#= sendmsg | SSRF guard blocked
import socket
socket.socket(type=socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, (host, port))

#= datagrams over a connection | SSRF guard blocked
import socket
s = socket.socket(type=socket.SOCK_DGRAM)
s.connect((host, port))
s.send(b'x')

#= TCP fast open | SSRF guard blocked
import socket
socket.socket().sendto(b'x', 0x20000000, (host, port))

#= sendmsg with fast open | SSRF guard blocked
import socket
socket.socket().sendmsg([b'x'], [], 0x20000000, (host, port))

#= _socket | SSRF guard blocked
import _socket
_socket.socket().connect((host, port))

#= a descriptor of its own | SSRF guard blocked
import socket, os
s = socket.socket()
socket.socket(fileno=os.dup(s.fileno())).connect((host, port))

#= a socket bound to the device | SSRF guard blocked
import socket
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'eth0')
s.connect((host, port))

#= tls | SSRF guard blocked
import socket, ssl
ssl._create_unverified_context().wrap_socket(socket.socket(), do_handshake_on_connect=False).connect((host, port))

#= http.client | SSRF guard blocked
import http.client
c = http.client.HTTPConnection(host, port)
c.request('GET', '/')
result = c.getresponse().status

#= urllib | SSRF guard blocked
import urllib.request
urllib.request.urlopen('http://%s:%d/' % (host, port)).read()

#= a proxy | SSRF guard blocked
import urllib.request as u
u.build_opener(u.ProxyHandler({'http': 'http://%s:%d' % (host, port)})).open('http://%s/' % cover).read()

#= a proxy in the environment | SSRF guard blocked
import os, urllib.request as u
os.environ['http_proxy'] = 'http://%s:%d' % (host, port)
try: u.build_opener().open('http://%s/' % cover).read()
finally: del os.environ['http_proxy']

#= a redirect | SSRF guard blocked
import urllib.request
urllib.request.urlopen('http://%s/302/%s/%d' % (cover, host, port)).read()

#= a redirected POST | SSRF guard blocked
import urllib.request
urllib.request.urlopen('http://%s/301/%s/%d' % (cover, host, port), data=b'x').read()

#= ftp | SSRF guard blocked
import ftplib
f = ftplib.FTP()
f.getresp = lambda: '220'
f.connect(host, port)

#= ftp's data connection | SSRF guard blocked
import ftplib, socket
f = ftplib.FTP()
f.af = socket.AF_INET
f.makepasv = lambda: (host, port)
f.sendcmd = lambda *_: '150'
f.ntransfercmd('RETR x')

#= smtp | SSRF guard blocked
import smtplib
s = smtplib.SMTP()
s.getreply = lambda: (220, b'')
s.connect(host, port)

#= asyncio's streams | SSRF guard blocked
import asyncio
async def go(): return await asyncio.open_connection(host, port)
asyncio.new_event_loop().run_until_complete(go())

#= asyncio's sock_connect | SSRF guard blocked
import asyncio, socket
s = socket.socket()
s.setblocking(False)
loop = asyncio.new_event_loop()
loop.run_until_complete(loop.sock_connect(s, (host, port)))

#= asyncio's datagrams | SSRF guard blocked
import asyncio
async def go():
    t, _ = await asyncio.get_event_loop().create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=(host, port))
    t.sendto(b'x')
asyncio.new_event_loop().run_until_complete(go())

#= a fork | guarded
import os, socket
pid = os.fork()
if pid == 0:
    try: socket.socket().connect((host, port)); os._exit(0)
    except BaseException as e: os._exit(7 if 'SSRF guard' in str(e) else 8)
if os.WEXITSTATUS(os.waitpid(pid, 0)[1]) == 7: raise OSError('guarded')

#= multiprocessing by fork | guarded
import multiprocessing, os, socket
def go(host, port):
    try: socket.socket().connect((host, port)); os._exit(0)
    except OSError as e: os._exit(7 if 'SSRF guard' in str(e) else 8)
p = multiprocessing.get_context('fork').Process(target=go, args=(host, port))
p.start()
p.join()
if p.exitcode == 7: raise OSError('guarded')

#= a thread | SSRF guard blocked
import socket, concurrent.futures as f
with f.ThreadPoolExecutor() as pool: pool.submit(lambda: socket.socket().connect((host, port))).result()
