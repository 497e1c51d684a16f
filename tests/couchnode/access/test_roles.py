"""The texts of roles."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchnode.access.kinds import ROLES
from couchnode.access.roles import MAX_ROLES, Role, RoleError, parse_roles, stored_role

EXISTS = {"b": {"_default": ["_default"], "s": ["c", "d"]}, "a.b-%": {"_default": ["_default"]}}


@st.composite
def roles(draw: st.DrawFn) -> Role:
    """Any role for places that exist."""
    name = draw(st.sampled_from(sorted(ROLES)))
    places = draw(
        st.sampled_from(
            [("*", "*", "*"), ("b", "*", "*"), ("b", "s", "*"), ("b", "s", "c"), ("a.b-%", "*", "*")]
        )
    )
    return Role(name, places[: ROLES[name].parameters])


class RoleTests(SynchronousTestCase):
    """Reading and writing."""

    @given(st.lists(roles(), max_size=10))
    def test_round_trip(self, given_roles: list[Role]) -> None:
        """Written roles are read back equal, in order, each once; also from the disk."""
        text = ",".join(role.text for role in given_roles)
        self.assertEqual(parse_roles(text, EXISTS), tuple(dict.fromkeys(given_roles)))
        self.assertEqual([stored_role(role.text) for role in given_roles], given_roles)

    @given(st.text("admindata_reader[]*:,b s", max_size=40))
    def test_any_text(self, text: str) -> None:
        """Every text is a list of roles or refused."""
        try:
            parse_roles(text, EXISTS)
        except RoleError as error:
            self.assertTrue(error.roles)

    def test_forms(self) -> None:
        """Parts left out at the end are all of them; the case of a role's name and blanks do not matter."""
        for text, expected in {
            "": (),
            " , ": (),
            "admin": (Role("admin"),),
            "ADMIN , Data_Reader[b]": (Role("admin"), Role("data_reader", ("b", "*", "*"))),
            "data_reader[*]": (Role("data_reader", ("*", "*", "*")),),
            "data_reader[*:*:*]": (Role("data_reader", ("*", "*", "*")),),
            "data_reader[b:*:*]": (Role("data_reader", ("b", "*", "*")),),
            "data_reader[ b : s : c ]": (Role("data_reader", ("b", "s", "c")),),
            "scope_admin[b:s]": (Role("scope_admin", ("b", "s")),),
            "scope_admin[b]": (Role("scope_admin", ("b", "*")),),
            "bucket_admin[a.b-%]": (Role("bucket_admin", ("a.b-%",)),),
            "security_admin_local": (Role("user_admin_local"),),
        }.items():
            self.assertEqual(parse_roles(text, EXISTS), expected, text)

    def test_refused(self) -> None:
        """Each part that is no role is named; one of them refuses the list."""
        for text in (
            "nothing",
            "data_reader",
            "admin[b]",
            "data_reader[]",
            "data_reader[nope]",
            "data_reader[b:nope]",
            "data_reader[b:s:nope]",
            "data_reader[b:s:c:d]",
            "bucket_admin[b:s]",
            "data_reader[*:s]",
            "data_reader[b:*:c]",
            "data_reader[b:]",
            "data_reader[b",
            "data_reader b",
            "data_reader[b]x",
        ):
            error = self.assertRaises(RoleError, parse_roles, f"admin,{text}", EXISTS)
            self.assertEqual(error.roles, [text])
        error = self.assertRaises(RoleError, parse_roles, "x,admin,data_reader", EXISTS)
        self.assertEqual(error.roles, ["x", "data_reader"])

    def test_too_many(self) -> None:
        """One user or group has a limited number of roles."""
        exists = {f"b{number}": {"_default": ["_default"]} for number in range(MAX_ROLES + 1)}
        texts = [f"data_reader[{name}]" for name in exists]
        self.assertRaises(RoleError, parse_roles, ",".join(texts), exists)
        self.assertEqual(len(parse_roles(",".join(texts[1:]), exists)), MAX_ROLES)

    def test_places(self) -> None:
        """A role lies within its bucket, scope and collection, and in no other."""
        role = Role("data_reader", ("b", "s", "c"))
        for place, expected in {
            ("b",): True,
            ("b", "s"): True,
            ("b", "s", "c"): True,
            ("a",): False,
            ("b", "t"): False,
            ("b", "s", "d"): False,
        }.items():
            self.assertIs(role.is_within(*place), expected, place)
        self.assertFalse(Role("data_reader", ("*", "*", "*")).is_within("b"))
        self.assertFalse(Role("data_reader", ("b", "*", "*")).is_within("b", "s"))
        self.assertFalse(Role("admin").is_within("b"))

    def test_security(self) -> None:
        """Roles with which one could give oneself more are those that concern security."""
        self.assertEqual(
            {name for name, kind in ROLES.items() if Role(name, ("*",) * kind.parameters).concerns_security},
            {"admin", "security_admin", "user_admin_local", "user_admin_external"},
        )
