"""Settings of the cluster over HTTP: its name, and the certificate settings that clients read."""

from __future__ import annotations

from typing import Any

from twisted.web.server import Request

from couchnode.rest.access import HTTPError, not_found
from couchnode.rest.answers import json_answer, plain_answer, read_form
from couchnode.rest.membership import POOL, Membership
from couchnode.tls import NodeTls

_UNSUPPORTED = "Unsupported key"
_QUOTA = "This node has no quota of its own: each bucket has one (ramQuota)"
_BY_OPTIONS = "Certificates of clients are set by --tls-client-ca and --tls-client-user when the node starts"


class ClusterSettings(Membership):
    """The resources of one node about the cluster's settings."""

    app = Membership.app
    tls: NodeTls | None = None
    """The certificates of the node; ``None`` without TLS."""

    @app.route(POOL, methods=["POST"])
    async def change_pool(self, request: Request) -> bytes:
        """Change the cluster's name."""
        await self._access.permit(request, "cluster.pools!write")
        form = read_form(request)
        errors = {name: _QUOTA if name == "memoryQuota" else _UNSUPPORTED for name in form}
        errors.pop("clusterName", None)
        if errors:
            raise _refused(errors)
        if "clusterName" in form:
            try:
                renamed = self._cluster.naming.rename(form["clusterName"])
            except ValueError as fault:
                raise _refused({"clusterName": str(fault)}) from None
            await renamed
        return plain_answer(request, b"")

    @app.route(f"{POOL}/certificate", methods=["GET"])
    async def certificate(self, request: Request) -> bytes:
        """Give the certificate that clients trust, as PEM; no credentials are needed."""
        if self.tls is None:
            raise not_found()
        return plain_answer(request, self.tls.authority_pem(), b"text/plain")

    @app.route("/settings/clientCertAuth", methods=["GET"])
    async def client_certificates(self, request: Request) -> bytes:
        """Return whether clients may present certificates, and how users are found in them."""
        await self._access.permit(request, "cluster.admin.security!read")
        return json_answer(request, certificate_settings(self.tls))

    @app.route("/settings/clientCertAuth", methods=["POST"])
    async def change_client_certificates(self, request: Request) -> bytes:
        """Refuse: these settings are options of the node."""
        await self._access.permit(request, "cluster.admin.security!write")
        raise _refused({"_": _BY_OPTIONS})


def _refused(errors: dict[str, str]) -> HTTPError:
    return HTTPError.of_json(400, {"errors": errors})


def certificate_settings(tls: NodeTls | None) -> dict[str, Any]:
    """Return the settings of clients' certificates, as Couchbase Server shows them."""
    if tls is None or not tls.accepts_certificates:
        return {"state": "disable", "prefixes": []}
    return {"state": "enable", "prefixes": [dict(rule._asdict()) for rule in tls.rules]}
