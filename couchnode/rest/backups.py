"""Backups over HTTP. Couchbase Server has no such resources: a program makes its backups."""

from __future__ import annotations

import re
import time
from typing import Any

from twisted.web.server import Request

from couchnode.cluster.backups import Backup, BackupError, NoSuchBackup
from couchnode.rest.access import HTTPError
from couchnode.rest.answers import json_answer, plain_answer, read_form
from couchnode.rest.settings import ClusterSettings

PATH = "/couchnode/backups"
_RIGHT = "cluster.admin.internal!all"
_KEEP = re.compile(r"[1-9][0-9]{0,5}")


class BackupResources(ClusterSettings):
    """The resources of one node about the cluster's backups; for full administrators."""

    app = ClusterSettings.app

    @app.route(PATH, methods=["GET"])
    async def backups(self, request: Request) -> bytes:
        """List the backups, the oldest first."""
        await self._access.permit(request, _RIGHT)
        return json_answer(request, [_shown(one) for one in await self._cluster.backups.all()])

    @app.route(PATH, methods=["POST"])
    async def make_backup(self, request: Request) -> bytes:
        """Make a backup (fields ``name``, ``keep``); the answer comes when it is complete."""
        await self._access.permit(request, _RIGHT)
        form = read_form(request)
        errors = {name: "Unsupported key" for name in form if name not in ("name", "keep")}
        if "keep" in form and not _KEEP.fullmatch(form["keep"]):
            errors["keep"] = "The number of backups to keep: 1 to 999999"
        if errors:
            raise HTTPError.of_json(400, {"errors": errors})
        keep = int(form["keep"]) if "keep" in form else None
        try:
            made = self._cluster.backups.make(form.get("name"), keep)
        except BackupError as fault:
            raise HTTPError.of_json(400, {"errors": {"_": str(fault)}}) from None
        try:
            backup = await made
        except BackupError as fault:
            raise HTTPError.of_json(500, {"errors": {"_": str(fault)}}) from None
        return json_answer(request, _shown(backup))

    @app.route(f"{PATH}/<name>", methods=["DELETE"])
    async def remove_backup(self, request: Request, name: str) -> bytes:
        """Delete a backup."""
        await self._access.permit(request, _RIGHT)
        try:
            await self._cluster.backups.remove(name)
        except NoSuchBackup as fault:
            raise HTTPError.of_json(404, {"errors": {"_": str(fault)}}) from None
        return plain_answer(request, b"")


def _shown(backup: Backup) -> dict[str, Any]:
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(backup.made))
    return {"name": backup.name, "folder": str(backup.path), "bytes": backup.bytes, "made": made}
