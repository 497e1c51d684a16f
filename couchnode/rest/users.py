"""The REST interface of users, groups and roles (management-rest reference, section 5.1)."""

from __future__ import annotations

import re
from typing import Any

from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.server import Request

from couchnode.access.permissions import Permission, PermissionSyntaxError, parse_permission
from couchnode.cluster.useradmin import (
    LOCAL,
    FieldErrors,
    SecurityRolesRefused,
    UnknownName,
    UserKey,
    policy_document,
)
from couchnode.rest.access import HTTPError, forbidden, unauthorized
from couchnode.rest.answers import json_answer, plain_answer, read_form
from couchnode.rest.membership import Membership
from couchnode.rest.userdocuments import Visible, caller_document, page_of, read_page

READ = "cluster.admin.users!read"
WRITE = "cluster.admin.users!write"
SECURITY_READ = "cluster.admin.security!read"
SECURITY_WRITE = "cluster.admin.security!write"

MAX_PERMISSIONS = 1000
"""Most permissions that one request may ask about."""

USERS = "/settings/rbac/users"
GROUPS = "/settings/rbac/groups"


class UserManagement(Membership):
    """The resources of one node about users, groups and roles."""

    app = Membership.app

    # ---- the caller ------------------------------------------------------------------------------

    @app.route("/whoami", methods=["GET"])
    async def whoami(self, request: Request) -> bytes:
        """Describe the caller; callers without credentials get an answer, too, but wrong ones are refused."""
        user = await self._access.caller(request)
        users = self._cluster.users
        record = users.get(user) if user is not None else None
        domain = "anonymous" if user is None else "admin" if users.is_administrator(user) else LOCAL
        account = None if record is None else record.account
        return json_answer(request, caller_document(user, domain, users.rights(user), account))

    @app.route("/pools/default/checkPermissions", methods=["POST"])
    async def check_permissions(self, request: Request) -> bytes:
        """Report which of the permissions in the body the caller has."""
        rights = self._cluster.rights(await self._access.caller(request))
        texts = [one for one in re.split(r"[,\s]+", _text_body(request)) if one]
        if not texts:
            raise HTTPError.of_json(400, "Request body should not be empty.")
        wrong = [one for one in texts if _permission(one) is None]
        if wrong:
            raise HTTPError.of_json(400, f"Malformed permissions: [{','.join(wrong[:10])}].")
        if len(texts) > MAX_PERMISSIONS:
            raise HTTPError.of_json(400, f"At most {MAX_PERMISSIONS} permissions, not {len(texts)}.")
        return json_answer(request, {one: rights.allow(one) for one in texts})

    @app.route("/controller/changePassword", methods=["POST"])
    async def change_password(self, request: Request) -> bytes:
        """Change the caller's own password."""
        user = await self._access.caller(request)
        if user is None:
            raise unauthorized()
        await self._cluster.user_admin.change_password(user, read_form(request))
        return plain_answer(request, b"")

    @app.route("/settings/passwordPolicy", methods=["GET"])
    async def policy(self, request: Request) -> bytes:
        """Give the rules for passwords."""
        await self._access.permit(request, SECURITY_READ)
        return json_answer(request, policy_document(self._cluster.users.policy))

    @app.route("/settings/passwordPolicy", methods=["POST"])
    async def set_policy(self, request: Request) -> bytes:
        """Change the rules for passwords that are set from now on."""
        await self._access.permit(request, SECURITY_WRITE)
        await self._cluster.user_admin.put_policy(read_form(request))
        return plain_answer(request, b"")

    # ---- roles and users -------------------------------------------------------------------------

    @app.route("/settings/rbac/roles", methods=["GET"])
    async def roles(self, request: Request) -> bytes:
        """List all roles."""
        user = await self._access.permit(request, READ)
        permission = _asked_permission(request)
        return json_answer(request, self._visible(user).list_roles(self._cluster.buckets, permission))

    @app.route(USERS, methods=["GET"])
    async def users(self, request: Request) -> bytes:
        """List the users of both domains."""
        return await self._list_users(request, None)

    @app.route(f"{USERS}/<domain>", methods=["GET"])
    async def users_of_domain(self, request: Request, domain: str) -> bytes:
        """List the users of one domain."""
        return await self._list_users(request, domain)

    @app.route(f"{USERS}/<domain>/<name>", methods=["GET"])
    async def user(self, request: Request, domain: str, name: str) -> bytes:
        """Give one user."""
        caller = await self._access.permit(request, READ)
        who = UserKey(domain, name)
        return json_answer(request, self._visible(caller).user(who, self._cluster.user_admin.user(who)))

    @app.route(f"{USERS}/<domain>/<name>", methods=["PUT"])
    async def put_user(self, request: Request, domain: str, name: str) -> bytes:
        """Create or replace a user."""
        caller = await self._access.permit(request, _domain_permission(domain))
        form = read_form(request)
        await self._cluster.user_admin.put_user(UserKey(domain, name), form, security=self._secures(caller))
        return json_answer(request, "")

    @app.route(f"{USERS}/<domain>/<name>", methods=["PATCH"])
    async def patch_user(self, request: Request, domain: str, name: str) -> bytes:
        """Change a local user's password, or lock the user."""
        caller = await self._access.permit(request, _domain_permission(domain))
        if domain != LOCAL:
            raise UnknownName("Unknown user domain.")
        form = read_form(request)
        await self._cluster.user_admin.patch_user(name, form, security=self._secures(caller))
        return plain_answer(request, b"")

    @app.route(f"{USERS}/<domain>/<name>", methods=["DELETE"])
    async def delete_user(self, request: Request, domain: str, name: str) -> bytes:
        """Delete a user."""
        caller = await self._access.permit(request, _domain_permission(domain))
        await self._cluster.user_admin.delete_user(UserKey(domain, name), security=self._secures(caller))
        return json_answer(request, "")

    @app.route(f"{USERS}/<name>", methods=["PUT"])
    async def put_external_user(self, request: Request, name: str) -> bytes:
        """Create or replace an external user; this path is older than the domains."""
        return await self.put_user(request, "external", name)

    @app.route(f"{USERS}/<name>", methods=["DELETE"])
    async def delete_external_user(self, request: Request, name: str) -> bytes:
        """Delete an external user; this path is older than the domains."""
        return await self.delete_user(request, "external", name)

    # ---- groups ----------------------------------------------------------------------------------

    @app.route(GROUPS, methods=["GET"])
    async def groups(self, request: Request) -> bytes:
        """List the groups."""
        visible = self._visible(await self._access.permit(request, READ))
        groups = sorted(self._cluster.users.groups.items())
        return json_answer(request, [visible.group(name, group) for name, group in groups])

    @app.route(f"{GROUPS}/<name>", methods=["GET"])
    async def group(self, request: Request, name: str) -> bytes:
        """Give one group."""
        visible = self._visible(await self._access.permit(request, READ))
        return json_answer(request, visible.group(name, self._cluster.user_admin.group(name)))

    @app.route(f"{GROUPS}/<name>", methods=["PUT"])
    async def put_group(self, request: Request, name: str) -> bytes:
        """Create or replace a group."""
        caller = await self._access.permit(request, WRITE)
        form = read_form(request)
        await self._cluster.user_admin.put_group(name, form, security=self._secures(caller))
        return json_answer(request, "")

    @app.route(f"{GROUPS}/<name>", methods=["DELETE"])
    async def delete_group(self, request: Request, name: str) -> bytes:
        """Delete a group."""
        caller = await self._access.permit(request, WRITE)
        await self._cluster.user_admin.delete_group(name, security=self._secures(caller))
        return json_answer(request, "")

    # ---- errors ----------------------------------------------------------------------------------

    @app.handle_errors(FieldErrors)
    def bad_user_fields(self, request: IRequest, failure: Failure) -> bytes:
        """Name every field that is wrong."""
        assert isinstance(failure.value, FieldErrors)
        return _refused(request, 400, {"errors": failure.value.errors})

    @app.handle_errors(UnknownName)
    def unknown_name(self, request: IRequest, failure: Failure) -> bytes:
        """Answer that there is no such user, group or domain."""
        return _refused(request, 404, str(failure.value))

    @app.handle_errors(SecurityRolesRefused)
    def security_roles(self, request: IRequest, failure: Failure) -> bytes:
        """Answer that the caller may not give or take a role."""
        refusal = forbidden(SECURITY_WRITE)
        return plain_answer(request, refusal.body, refusal.content_type, refusal.status)

    # ---- inside ----------------------------------------------------------------------------------

    async def _list_users(self, request: Request, domain: str | None) -> bytes:
        visible = self._visible(await self._access.permit(request, READ))
        admin, store = self._cluster.user_admin, self._cluster.users
        permission = _asked_permission(request)
        accounts = [(who, admin.user(who)) for who in admin.names(domain)]
        found = [
            visible.user(who, account)
            for who, account in accounts
            if permission is None or store.rights_of(account).allow(permission)
        ]
        page, errors = read_page(_query(request))
        if errors:
            raise FieldErrors(errors)
        if page is None:
            return json_answer(request, found)
        path = USERS if domain is None else f"{USERS}/{domain}"
        return json_answer(request, page_of(found, page, path))

    def _visible(self, caller: str | None) -> Visible:
        sees = self._cluster.rights(caller).allow(SECURITY_READ)
        return Visible(self._cluster.users, sees_security=sees)

    def _secures(self, caller: str | None) -> bool:
        return self._cluster.rights(caller).allow(SECURITY_WRITE)


def _refused(request: IRequest, status: int, document: Any) -> bytes:
    refusal = HTTPError.of_json(status, document)
    return plain_answer(request, refusal.body, refusal.content_type, refusal.status)


def _domain_permission(domain: str) -> str:
    return f"cluster.admin.users.{domain}!write" if domain in ("local", "external") else WRITE


def _query(request: Request) -> dict[str, str]:
    """Return the parameters of the query; of a repeated one, the first."""
    return {
        name.decode("utf-8", "replace"): values[0].decode("utf-8", "replace")
        for name, values in request.args.items()
    }


def _asked_permission(request: Request) -> Permission | None:
    text = _query(request).get("permission")
    if text is None:
        return None
    permission = _permission(text)
    if permission is None:
        raise FieldErrors({"permission": "Malformed permission."})
    return permission


def _permission(text: str) -> Permission | None:
    try:
        return parse_permission(text)
    except PermissionSyntaxError:
        return None


def _text_body(request: Request) -> str:
    assert request.content is not None  # the body was read before
    return str(request.content.read().decode("utf-8", "replace"))
