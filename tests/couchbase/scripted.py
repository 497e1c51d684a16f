"""Scripted nodes, in threads: for faults that no real node produces on demand."""

import json
import socket
import threading

from couchbase.protocol.constants import Feature, Opcode
from couchbase.protocol.frames import FrameReader, encode_request, encode_response

_FEATURES = (Feature.XERROR, Feature.SELECT_BUCKET, Feature.DUPLEX, Feature.CLUSTERMAP_CHANGE_NOTIFICATION)


class Peer:
    """One client's connection, as its node sees it."""

    def __init__(self, sock):
        self.sock = sock

    def answer(self, frame, status=0, **fields):
        """Answer a request."""
        self.write(encode_response(frame.opcode, status, opaque=frame.opaque, **fields))

    def push(self, config):
        """Send an unsolicited cluster map."""
        self.write(encode_request(0x01, value=config, magic=0x82, key=b"b"))

    def write(self, data):
        """Send bytes; a client that is gone is no fault of the test."""
        try:
            self.sock.sendall(data)
        except OSError:
            pass

    def cut(self):
        """End the connection; the thread that reads from it closes the socket.

        Closed here, its number could be another socket's by the time that thread uses it.
        """
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class ScriptedNode:
    """Listens on a free port; performs the handshake, and asks ``script(peer, frame)`` for all other answers.

    :param context: an ``ssl.SSLContext`` to serve TLS with.
    """

    def __init__(self, context=None):
        self.seen = []
        self.peers = []
        self.rev = 1
        self.cluster = [self]
        self.rows = [[0]]
        self.features = _FEATURES
        self.gives_config = True
        self.error_map = b""
        self.greets = True
        self._context = context
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._stopped = False
        self._threads = []
        self._start(self._accept)

    @property
    def string(self):
        """Its connection string."""
        return f"couchbase{'s' if self._context else ''}://127.0.0.1:{self.port}"

    def script(self, peer, frame):
        """Succeed."""
        peer.answer(frame, extras=bytes(4) if frame.opcode == Opcode.GET else b"", cas=1, value=b"1")

    def config(self):
        """Return the cluster map."""
        service = "kvSSL" if self._context else "kv"
        nodes = [{"hostname": "127.0.0.1", "services": {service: node.port}} for node in self.cluster]
        servers = [f"127.0.0.1:{node.port}" for node in self.cluster]
        replicas = len(self.rows[0]) - 1
        server_map = {"numReplicas": replicas, "serverList": servers, "vBucketMap": self.rows}
        return json.dumps(
            {"rev": self.rev, "name": "b", "nodesExt": nodes, "vBucketServerMap": server_map}
        ).encode()

    def cut(self):
        """Close every connection."""
        for peer in list(self.peers):
            peer.cut()

    def stop(self):
        """Stop listening, and close every connection."""
        self._stopped = True
        try:
            # Wakes the thread that accepts.
            self._listening.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        # Nothing is accepted any more once that thread has ended; then all connections are known.
        self._threads[0].join(10)
        self.cut()
        for thread in self._threads:
            thread.join(10)
        self._listening.close()

    def _start(self, function, *args):
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while not self._stopped:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            self._start(self._serve, sock)

    def _serve(self, sock):
        try:
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
        except OSError:
            sock.close()
            return
        # Several answers in a row are not to wait for each other's acknowledgement.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = Peer(sock)
        self.peers.append(peer)
        reader = FrameReader()
        while True:
            try:
                data = sock.recv(65536)
            except OSError:
                data = b""
            if not data:
                self.peers.remove(peer)
                sock.close()
                return
            for frame in reader.feed(data):
                self._handle(peer, frame)

    def _handle(self, peer, frame):
        if not self.greets:
            return
        if frame.opcode == Opcode.HELLO:
            peer.answer(frame, value=b"".join(int(code).to_bytes(2, "big") for code in self.features))
        elif frame.opcode == Opcode.GET_CLUSTER_CONFIG:
            if self.gives_config:
                peer.answer(frame, value=self.config())
            else:
                peer.answer(frame, 0x81)
        elif frame.opcode == Opcode.GET_ERROR_MAP:
            peer.answer(frame, value=self.error_map)
        elif frame.opcode in (Opcode.SELECT_BUCKET, Opcode.SASL_AUTH):
            peer.answer(frame)
        elif frame.opcode == Opcode.SASL_LIST_MECHS:
            peer.answer(frame, value=b"PLAIN")
        else:
            self.seen.append(frame)
            self.script(peer, frame)
