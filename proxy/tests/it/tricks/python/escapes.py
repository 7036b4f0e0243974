# Attempts to get out, or to get more than a function has. This comes before each of them:
import ctypes, os, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
x86 = os.uname().machine == 'x86_64'
L = ctypes.c_long
def check(code):
    if code < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return code

#= namespaces by clone | EPERM
for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x4000000, 0x8000000, 0x2000000):
    if libc.syscall(L(56 if x86 else 220), L(flag | 17), L(0), L(0), L(0), L(0)) >= 0: raise SystemExit(flag)
check(-1)

#= namespaces by clone3 | ENOSYS
check(libc.syscall(L(435), ctypes.create_string_buffer(88), L(88)))

#= a user namespace | EPERM
check(libc.unshare(0x10000000))

#= the namespaces of process 1 | EPERM / EACCES
check(libc.setns(os.open('/proc/1/ns/mnt', os.O_RDONLY), 0))

#= a mount | EPERM
check(libc.mount(b'none', b'/tmp', b'tmpfs', L(0), None))

#= the root without its read-only flag | EPERM
check(libc.mount(None, b'/', None, L(32), None))

#= tracing of process 1 | EPERM
check(libc.ptrace(L(16), L(1), L(0), L(0)))

#= a page of a file that cannot be written | EPERM
r, w = os.pipe()
fd = os.open('/etc/passwd', os.O_RDONLY)
check(libc.splice(fd, ctypes.byref(ctypes.c_int64(1)), w, None, L(1), 0))

#= a kernel's ring | EPERM
check(libc.syscall(L(425), L(8), ctypes.create_string_buffer(120)))

#= a lock that lends its priority | EPERM
check(libc.syscall(L(202 if x86 else 98), ctypes.byref(ctypes.c_int(0)), L(6), L(0), None))

#= system calls of 32 bits | killed
if not x86: raise OSError('killed: there are none')
import mmap
m = mmap.mmap(-1, 4096, prot=7)
m.write(b'\xb8\x14\0\0\0\xcd\x80\xc3')
call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))
pid = os.fork()
if pid == 0: call(); os._exit(0)
end = os.waitpid(pid, 0)[1]
if os.WIFSIGNALED(end): raise OSError('killed')

#= system calls of x32 | killed / ENOSYS / EPERM
if not x86: raise OSError('killed: there are none')
pid = os.fork()
if pid == 0: os._exit(0 if libc.syscall(L(0x40000000 | 39)) > 0 else ctypes.get_errno())
end = os.waitpid(pid, 0)[1]
if os.WIFSIGNALED(end): raise OSError('killed')
if end: raise OSError(end >> 8, '')

#= a block device | EPERM
import os
os.mknod('/tmp/disk', 0o60600, os.makedev(8, 0))

#= the memory's device | EPERM
import os
os.mknod('/tmp/mem', 0o20600, os.makedev(1, 1))

#= to be root | EPERM
import os
os.setuid(0)

#= root's group | EPERM
import os
os.setgroups([0])

#= capabilities | EPERM
check(libc.capset(struct.pack('=Ii', 0x20080522, 0), struct.pack('=6I', *[0xffffffff] * 6)))

#= programs that are root's | still 1000
import glob, os, stat, subprocess
programs = [p for d in ('/bin', '/sbin', '/usr/bin', '/usr/sbin') for p in glob.glob(d + '/*') if os.path.isfile(p)]
found = [p for p in programs if os.stat(p).st_mode & 0o6000]
status = open('/proc/self/status').read()
for p in found[:5]:
    child = subprocess.Popen([p], stdin=subprocess.PIPE, stdout=-3, stderr=-3)
    for line in open('/proc/%d/status' % child.pid):
        if line.startswith(('Uid:', 'Gid:')) and set(line.split()[1:]) != {'1000'}: raise SystemExit(p + line)
    child.kill()
    child.wait()
if 'NoNewPrivs:\t1' in status and 'CapBnd:\t0000000000000000' in status: raise OSError('still 1000')

#= a program of its own for root | EPERM / EACCES / EROFS / ENOENT
import os, shutil, subprocess
shutil.copy(os.path.realpath('/bin/sh'), '/tmp/sh')
os.chmod('/tmp/sh', 0o6755)
subprocess.check_call(['/tmp/sh', '-c', 'id'])

#= the kernel's addresses | hidden / EACCES / EPERM / ENOENT
lines = [l for l in open('/proc/kallsyms')]
if all(int(l.split()[0], 16) == 0 for l in lines): raise OSError('hidden')

#= the kernel's memory | empty / EACCES / EPERM / ENOENT
data = open('/proc/kcore', 'rb').read(64)
if not data: raise OSError('empty')

#= a root behind process 1 | the same / EACCES / EPERM
import os
a, b = os.stat('/proc/1/root/'), os.stat('/')
if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino): raise OSError('the same')

#= a program for the kernel's core dumps | EPERM / EACCES / EROFS / ENOENT
open('/proc/sys/kernel/core_pattern', 'wb', 0).write(b'|/bin/sh')

#= the kernel's modules | EPERM / EACCES / EROFS / ENOENT
open('/proc/sys/kernel/modprobe', 'wb', 0).write(b'/bin/sh')

#= a control group of its own | EPERM / EACCES / EROFS / ENOENT
import os
os.mkdir('/sys/fs/cgroup/own')

#= a release agent | EPERM / EACCES / EROFS / ENOENT
import glob
for path in ['/sys/fs/cgroup/release_agent', *glob.glob('/sys/fs/cgroup/*/release_agent')]:
    open(path, 'wb', 0).write(b'/bin/sh')

#= more memory | EPERM / EACCES / EROFS / ENOENT
open('/sys/fs/cgroup/memory.max', 'wb', 0).write(b'max')

#= more processes | EPERM / EACCES / EROFS / ENOENT
open('/sys/fs/cgroup/pids.max', 'wb', 0).write(b'max')

#= more open files | not allowed / EPERM / exceed
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))

#= a better priority | EPERM / EACCES
import os
os.nice(-5)

#= real time | EPERM
import os
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))

#= disks in real time | EPERM
check(libc.syscall(L(251 if x86 else 30), L(1), L(0), L(1 << 13)))

#= to be the last that is killed | EACCES / EPERM
open('/proc/self/oom_score_adj', 'wb', 0).write(b'-1000')

#= the engine's socket | ENOENT
import socket
socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')

#= the engine's helper | ENOENT
import socket
socket.socket(socket.AF_UNIX).connect('/run/containerd/containerd.sock')

#= sockets without a file | none
import os
names = [l.split()[-1] for l in open('/proc/net/unix') if l.split()[-1].startswith('@')]
if not names: raise OSError('none')

#= a file beside the edge's socket | EPERM / EACCES / EROFS / ENOENT
open('/run/grid/own', 'w')

#= the edge's socket renamed | EPERM / EACCES / EROFS / ENOENT
import os
os.rename('/run/grid/edge.sock', '/run/grid/x')

#= the edge's socket for others | EPERM / EACCES / EROFS / ENOENT
import os
os.chmod('/run/grid/edge.sock', 0o777)

#= the runner's mode | EPERM / EACCES / EROFS / ENOENT
import os
os.chmod('/app', 0o777)

#= the runner's owner | EPERM / EACCES / EROFS / ENOENT
import os
os.chown('/app', 1000, 1000)

#= the runner in another place | EROFS / EXDEV / EPERM / EACCES
import os
os.link('/app/smsly_function_runner.py', '/tmp/runner.py')

#= the list of ranges | EPERM / EACCES / EROFS / ENOENT
open('/app/egress.txt', 'ab', 0).write(b'x')

#= the resolver's address | EPERM / EACCES / EROFS / ENOENT
open('/etc/resolv.conf', 'wb', 0).write(b'nameserver 10.0.0.1')
