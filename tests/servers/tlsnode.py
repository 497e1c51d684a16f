"""A couchnode that speaks TLS on all of its ports, and knows clients by their certificates if it is to."""

import os
from base64 import b64encode

from twisted.internet import reactor
from twisted.internet.ssl import (
    SSL,
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    trustRootFromCertificates,
)

from couchnode.cluster import config
from couchnode.embedded import EmbeddedNode
from couchnode.rest.access import Gate
from tests.certificates import self_signed

ADMINISTRATOR = ("Administrator", "password")


class _OverTls:
    """The reactor, whose TCP ports speak TLS."""

    def __init__(self, context):
        self._context = context

    def __getattr__(self, name):
        return getattr(reactor, name)

    def listenTCP(self, port, factory, backlog, interface):
        """Listen with TLS."""
        build = factory.buildProtocol
        factory.buildProtocol = lambda address: _logged_in(build(address))
        return reactor.listenSSL(port, factory, self._context, backlog, interface)


def _logged_in(connection):
    """Have a client with a certificate be the administrator of a key-value connection from the first byte."""
    received = connection.dataReceived
    session = getattr(connection, "session", None)

    def first(data):
        connection.dataReceived = received
        if connection.transport.getPeerCertificate() is not None:
            session.authenticated(ADMINISTRATOR[0])
        received(data)

    if session is not None:
        connection.dataReceived = first
    return connection


class _Node(EmbeddedNode):
    tls = None

    @property
    def _reactor(self):
        return self.tls


class TlsNode:
    """The node, and files for its clients, in a folder of the test.

    :param requires: whether each client must have a certificate.
    :ivar ca: PEM file of what clients are to trust.
    :ivar own: PEM file of the client certificate that stands for the administrator, and its key.
    :ivar headers: the ``Authorization`` of each request over HTTP.
    """

    def __init__(self, test, requires=False):
        folder = test.mktemp()
        os.mkdir(folder)
        self.folder = os.path.abspath(folder)
        server, client = self_signed(), self_signed()
        self.ca, self.own = self.write("ca.pem", server), self.write("own.pem", client)
        self.headers = []
        certificate = PrivateCertificate.loadPEM(server)
        context = CertificateOptions(
            privateKey=certificate.privateKey.original,
            certificate=certificate.original,
            trustRoot=trustRootFromCertificates([Certificate.loadPEM(client)]),
        )
        if not requires:
            context.getContext().set_verify(SSL.VERIFY_PEER, lambda *given: given[-1])
        self.node = _Node(None, users=[ADMINISTRATOR], buckets=[("default", "of the bucket")])
        self.node.tls = _OverTls(context)
        part = config._cluster_part
        test.patch(config, "_cluster_part", lambda *given: _with_tls(part(*given)))
        render = Gate.render
        test.patch(Gate, "render", lambda gate, request: self._render(render, gate, request))

    def write(self, name, data):
        """Write a file; returns its path."""
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def _render(self, render, gate, request):
        self.headers.append(request.getHeader("authorization"))
        if request.transport.getPeerCertificate() is not None:
            identity = b64encode(":".join(ADMINISTRATOR).encode()).decode()
            request.requestHeaders.setRawHeaders("authorization", [f"Basic {identity}"])
        return render(gate, request)

    @property
    def kv_port(self):
        """Port of the key-value service."""
        return self.node.kv_ports[0]

    @property
    def string(self):
        """Connection string of the key-value service."""
        return f"couchbases://127.0.0.1:{self.kv_port}"

    @property
    def manager(self):
        """Connection string of the cluster manager."""
        return self.node.rest_urls[0].replace("http:", "https:")


def _with_tls(part):
    for entry in part["nodesExt"]:
        entry["services"] = {f"{name}SSL": port for name, port in entry["services"].items()}
    return part
