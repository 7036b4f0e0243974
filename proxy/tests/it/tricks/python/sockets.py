# Sockets that no function needs, asked for by Python and without it. This comes before each:
import ctypes, os, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
x86 = os.uname().machine == 'x86_64'
L = ctypes.c_long
def check(code):
    if code < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return code

#= raw | EPERM / EAFNOSUPPORT / EPROTONOSUPPORT / EACCES / SSRF guard blocked
import socket
socket.socket(socket.AF_INET, socket.SOCK_RAW, 255)

#= raw ICMP | EPERM / EAFNOSUPPORT / EPROTONOSUPPORT / EACCES / SSRF guard blocked
import socket
socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)

#= packet | EPERM / EAFNOSUPPORT / EPROTONOSUPPORT / EACCES / SSRF guard blocked
import socket
socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300)

#= AF_ALG | EPERM / EAFNOSUPPORT / EPROTONOSUPPORT / EACCES / SSRF guard blocked
import socket
socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET, 0)

#= AF_VSOCK | EPERM / EAFNOSUPPORT / EPROTONOSUPPORT / EACCES / SSRF guard blocked
import socket
socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).connect((2, 1))

#= SCTP | EPERM / EAFNOSUPPORT / EPROTONOSUPPORT / EACCES / SSRF guard blocked
import socket
socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)

#= MPTCP | EPERM / EAFNOSUPPORT / EPROTONOSUPPORT / EACCES / SSRF guard blocked
import socket
socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)

#= ping | EPERM / EAFNOSUPPORT / EPROTONOSUPPORT / EACCES / SSRF guard blocked
import socket
socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1)

#= DCCP | EPERM / EAFNOSUPPORT / EPROTONOSUPPORT / EACCES / SSRF guard blocked
import socket
socket.socket(socket.AF_INET, 6, 33)

#= UDP-Lite | EPERM / EAFNOSUPPORT / EPROTONOSUPPORT / EACCES / SSRF guard blocked
import socket
socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136)

#= raw, natively | EPERM
check(libc.socket(2, 3, 255))

#= packet, natively | EPERM
check(libc.socket(17, 3, 0x0300))

#= cooked packet, natively | EPERM
check(libc.socket(17, 2, 0x0300))

#= SOCK_PACKET, natively | EPERM
check(libc.socket(2, 10, 0x0300))

#= AF_ALG, natively | EPERM
check(libc.socket(38, 5, 0))

#= AF_VSOCK, natively | EPERM
check(libc.socket(40, 1, 0))

#= AF_KEY, natively | EPERM
check(libc.socket(15, 3, 2))

#= AF_XDP, natively | EPERM
check(libc.socket(44, 3, 0))

#= AF_TIPC, natively | EPERM
check(libc.socket(30, 1, 0))

#= AF_RDS, natively | EPERM
check(libc.socket(21, 5, 0))

#= AF_BLUETOOTH, natively | EPERM
check(libc.socket(31, 3, 0))

#= AF_CAN, natively | EPERM
check(libc.socket(29, 3, 1))

#= AF_SMC, natively | EPERM
check(libc.socket(43, 1, 0))

#= AF_QIPCRTR, natively | EPERM
check(libc.socket(42, 2, 0))

#= netfilter's netlink, natively | EPERM
check(libc.socket(16, 3, 12))

#= audit's netlink, natively | EPERM
check(libc.socket(16, 3, 9))

#= SCTP, natively | EPERM
check(libc.socket(2, 1, 132))

#= SCTP of IPv6, natively | EPERM
check(libc.socket(10, 5, 132))

#= MPTCP, natively | EPERM
check(libc.socket(2, 1, 262))

#= ping, natively | EPERM
check(libc.socket(2, 2, 1))

#= a family with high bits | EPERM
check(libc.syscall(41 if os.uname().machine == 'x86_64' else 198, ctypes.c_long((1 << 32) | 17), 3, 0))

#= headers of its own | ENOPROTOOPT / EPERM
fd = check(libc.socket(2, 2, 0))
check(libc.setsockopt(fd, 0, 3, struct.pack('=i', 1), 4))

#= someone else's address | EPERM / EADDRNOTAVAIL
fd = check(libc.socket(2, 2, 0))
check(libc.setsockopt(fd, 0, 19, struct.pack('=i', 1), 4))

#= a mark for the host's routes | EPERM
fd = check(libc.socket(2, 2, 0))
check(libc.setsockopt(fd, 1, 36, struct.pack('=i', 1), 4))

#= broadcast | SSRF guard blocked
import socket
s = socket.socket(type=socket.SOCK_DGRAM)
s.setsockopt(1, 6, 1)
s.sendto(b'x', ('<broadcast>', 9))

#= multicast | SSRF guard blocked
import socket
socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('224.0.0.251', 5353))

#= another interpreter | PermissionError / ModuleNotFound
import _xxsubinterpreters

#= a library in /tmp | Operation not permitted / failed to map segment
import ctypes, shutil
path = next(l.split()[-1] for l in open('/proc/self/maps') if 'libc' in l or 'musl' in l)
shutil.copy(path, '/tmp/lib.so')
ctypes.CDLL('/tmp/lib.so')
