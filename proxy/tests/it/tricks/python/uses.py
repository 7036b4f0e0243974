# Takes all there is of something, or ends something. The order matters: what one leaves, the next one meets.

#= all of /tmp | ENOSPC
open('/tmp/full', 'wb').write(bytes(80 << 20))

#= all names in /tmp | ENOSPC
import os
os.path.exists('/tmp/full') and os.unlink('/tmp/full')
for i in range(20000): open('/tmp/%d' % i, 'w').close()

#= all open files | EMFILE
import os
fds = []
try:
    while True: fds.append(os.open('/dev/null', os.O_RDONLY))
finally:
    for fd in fds: os.close(fd)

#= all threads | start new thread
import threading
stop = threading.Event()
started = []
try:
    for _ in range(300): t = threading.Thread(target=stop.wait); t.start(); started.append(t)
finally:
    stop.set()
    for t in started: t.join()

#= zombies | EAGAIN
import os
while True:
    if os.fork() == 0: os._exit(0)

#= /tmp and memory | function_crashed / timeout / function_error / MemoryError
import os
for n in os.listdir('/tmp'): os.unlink('/tmp/' + n)
open('/tmp/full', 'wb').write(bytes(60 << 20))
all = []
while True: all.append(b'x' * (4 << 20))

#= memory that is not memory of its own | function_crashed / timeout / function_error / ENOSPC / ENOMEM
import os
fd = os.memfd_create('x')
while True: os.write(fd, b'x' * (4 << 20))

#= a log of long lines | written
import os
line = b'\x1b[31m' + b'\x1b]0;x\x07\xc3\xa9\r\0' * 100000 + b'\n'
for _ in range(30):
    rest = line
    while rest: rest = rest[os.write(1, rest):]
raise OSError('written')

#= many calls to the edge | called
import socket
found = []
for _ in range(300):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(1)
    try: s.connect('/run/grid/edge.sock'); s.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx')
    except OSError: pass
    found.append(s)
raise OSError('called')

#= every core | timeout
import os
os.sched_setaffinity(0, range(64))
for _ in range(8):
    if os.fork() == 0:
        while True: pass
while True: pass

#= to stop itself | timeout
import os
os.kill(os.getpid(), 19)

#= to stop everybody | timeout
import os, time
if os.fork() == 0: time.sleep(600)
os.kill(-1, 19)
os.kill(os.getpid(), 19)

#= to kill process 1 | alive
import os
os.kill(1, 9)
os.kill(1, 19)
raise OSError('alive')

#= to end process 1 | function_crashed
import os, time
os.kill(1, 15)
time.sleep(600)

#= to kill everybody | function_crashed
import os, time
if os.fork() == 0: os.kill(-1, 9)
time.sleep(600)
