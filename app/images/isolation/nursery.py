"""The nursery: a small process without threads, from which decoders are forked within milliseconds.

the service asks -> fork -> the child is a decoder -> the service gets its connection, its memory and a handle to end it

It is a program of its own and not a fork of the service, so that decoders have nothing of the service in their memory:
no keys, no models, no other client's image.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
from typing import Final

from app.images.isolation.decoder import Decoder, warm_up

_SEAL_SHRINK: Final = 0x0002  # linux/fcntl.h; otherwise a decoder could take memory away that the service looks at
_ADD_SEALS: Final = 1033
_NICENESS: Final = 5  # as the threads of the service that compute


def main(descriptor: int) -> None:
    """Forks a decoder for each packet that comes, until the service closes the connection.

    Args:
        descriptor: the socket that leads to the service.
    """
    control = socket.socket(fileno=descriptor)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # sent to the whole group: the service decides, and answers first
    os.nice(_NICENESS)
    warm_up()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for decoders
    while control.recv(1):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        shared = os.memfd_create("decoder", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(shared, _ADD_SEALS, _SEAL_SHRINK)
        child = os.fork()
        if child == 0:
            _be_decoder(control, ours, theirs, shared)
        handle = os.pidfd_open(child)
        socket.send_fds(control, [b"1"], [ours.fileno(), shared, handle])
        ours.close()
        theirs.close()
        os.close(shared)
        os.close(handle)


def _be_decoder(control: socket.socket, ours: socket.socket, theirs: socket.socket, shared: int) -> None:
    status = 1
    try:
        control.close()
        ours.close()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1):
            os.dup2(nowhere, descriptor)
        Decoder(theirs, shared).run()
        status = 0
    except (BrokenPipeError, ConnectionResetError):  # the service is gone
        pass
    finally:
        sys.stderr.flush()
        os._exit(status)
