# What no code in the same process can stop. This comes before each of them:
import ctypes, os, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
x86 = os.uname().machine == 'x86_64'
L = ctypes.c_long
def check(code):
    if code < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return code
def inet(host, port): return struct.pack('=H', 2) + struct.pack('!H', port) + socket.inet_aton(host) + bytes(8)
def dial(fd, address): check(libc.connect(fd, address, len(address)))
def find_table():
    try: socket.socket().connect(('127.0.0.1', 9))
    except OSError as error: trace = error.__traceback__
    while trace and '_refused' not in trace.tb_frame.f_locals: trace = trace.tb_next
    return trace and trace.tb_frame.f_locals['_refused'].__defaults__[0]

#= ctypes | ECONNREFUSED
s = socket.socket()
dial(s.fileno(), inet(host, port))

#= ctypes without Python's socket | ECONNREFUSED
dial(check(libc.socket(2, 1, 0)), inet(host, port))

#= datagrams by ctypes |
a = inet(host, port)
check(libc.sendto(check(libc.socket(2, 2, 0)), b'x', 1, 0, a, len(a)))

#= an IPv4 address in an IPv6 one | ECONNREFUSED
mapped = bytes(10) + b'\xff\xff' + socket.inet_aton(host)
dial(check(libc.socket(10, 1, 0)), struct.pack('=H', 10) + struct.pack('!HI', port, 0) + mapped + bytes(4))

#= fast open by ctypes | ECONNREFUSED
a = inet(host, port)
fd = check(libc.socket(2, 1, 0))
check(libc.sendto(fd, b'x', 1, 0x20000000, a, len(a)))

#= a device by ctypes | ECONNREFUSED
fd = check(libc.socket(2, 1, 0))
check(libc.setsockopt(fd, 1, 25, b'eth0', 4))
dial(fd, inet(host, port))

#= python in a child process | status 1
import subprocess, sys
code = 'import socket; socket.create_connection((%r, %d))' % (host, port)
subprocess.run([sys.executable, '-c', code], check=True, stderr=-3)

#= posix_spawn | status 7
import os
pid = os.posix_spawnp('curl', ['curl', '-s', '-m', '5', 'http://%s:%d/' % (host, port)], os.environ)
code = os.waitpid(pid, 0)[1] >> 8
if code: raise OSError('status %d' % code)

#= multiprocessing by spawn | status 1
import multiprocessing, socket, os
p = multiprocessing.get_context('spawn').Process(target=socket.create_connection, args=((host, port),))
p.start()
p.join()
if p.exitcode: raise OSError('status %d' % p.exitcode)

#= the guard's table emptied by ctypes | ECONNREFUSED | fresh
table = find_table()
if table:  # else it was emptied before
    import ctypes
    ctypes.c_ssize_t.from_address(id(table) + 16).value = 0
socket.socket().connect((host, port))

#= the guard's table emptied through /proc/self/mem | ECONNREFUSED | fresh
table = find_table()
if table:  # else it was emptied before
    memory = open('/proc/self/mem', 'r+b', 0)
    memory.seek(id(table) + 16)
    memory.write(bytes(8))
socket.socket().connect((host, port))
