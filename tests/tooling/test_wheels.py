"""What ``make wheels`` concludes from a lock."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.wheels import (
    BEGIN,
    END,
    OLDEST,
    PAGE,
    PARTS,
    PINNED,
    PLATFORMS,
    PYTHONS,
    Missing,
    missing,
    names,
    releases,
    table,
    written,
)

LOCK = """
lock-version = "1.0"
created-by = "uv"
requires-python = ">=3.10"

[[packages]]
name = "pure"
version = "1.0"
wheels = [{ url = "https://files.example.org/pure-1.0-py3-none-any.whl", size = 1 }]

[[packages]]
name = "stable"
version = "2.0"
sdist = { url = "https://files.example.org/stable-2.0.tar.gz" }
wheels = [
    { url = "https://files.example.org/stable-2.0-cp311-abi3-manylinux_2_28_x86_64.whl" },
    { url = "https://files.example.org/stable-2.0-cp39-abi3-manylinux_2_34_x86_64.whl" },
    { url = "https://files.example.org/stable-2.0-cp311-abi3-musllinux_1_2_x86_64.whl" },
    { url = "https://files.example.org/stable-2.0-cp310-cp310-manylinux1_x86_64.manylinux_2_5_x86_64.whl" },
    { url = "https://files.example.org/stable-2.0-1.whl" },
]

[[packages]]
name = "apple"
version = "3.0"
marker = "sys_platform == 'darwin' and 'Version 22.' in platform_version and python_full_version < '3.14'"
wheels = [
    { url = "https://files.example.org/apple-3.0-cp312-cp312-macosx_14_0_arm64.whl" },
    { url = "https://files.example.org/apple-3.0-cp312-cp312-macosx_10_9_universal2.whl" },
]

[[packages]]
name = "windows"
version = "4.0"
marker = "sys_platform == 'win32' and platform_machine == 'ARM64'"
wheels = [{ url = "https://files.example.org/windows-4.0-cp313-cp313-win_amd64.whl" }]

[[packages]]
name = "itself"
directory = { path = "." }
"""

BY_NAME = {platform.name: platform for platform in PLATFORMS}


class WheelTests(SynchronousTestCase):
    """Tags and markers decide; nothing is asked."""

    def lacking(self, platform: str, minor: int) -> set[Missing]:
        """Return what one place lacks of the lock."""
        return set(missing(releases(LOCK), BY_NAME[platform], minor))

    def test_versions_of_python(self) -> None:
        """A wheel with the stable interface serves later Pythons, and none before."""
        found = [self.lacking("Linux, glibc, x86_64", minor) for minor in PYTHONS]
        self.assertEqual(found, [set()] * len(PYTHONS))
        stable = Missing("stable", True)
        self.assertEqual(self.lacking("Linux, musl, x86_64", 10), {stable})
        self.assertEqual(self.lacking("Linux, musl, x86_64", 14), set())
        self.assertEqual(self.lacking("Linux, glibc, aarch64", 12), {stable})

    def test_systems_that_are_too_old(self) -> None:
        """A wheel for a later macOS, or a later glibc, does not count; one for both processors does."""
        self.assertNotIn("apple", str(self.lacking("macOS 13, arm64", 12)))
        self.assertIn(Missing("apple", False), self.lacking("macOS 13, arm64", 11))

    def test_markers(self) -> None:
        """What a place does not need is not missing."""
        self.assertNotIn("apple", str(self.lacking("macOS 14, arm64", 11)))
        self.assertNotIn("apple", str(self.lacking("macOS 13, arm64", 14)))
        self.assertIn(Missing("windows", False), self.lacking("Windows, ARM64", 13))
        self.assertNotIn("windows", str(self.lacking("Windows, AMD64", 13)))

    def test_all_places(self) -> None:
        """Both processor families of two kinds of Linux, three of macOS, and of Windows, each with a tag."""
        self.assertEqual(len(BY_NAME), 12)
        self.assertTrue(all(platform.tags for platform in PLATFORMS))

    def test_form_of_the_lock(self) -> None:
        """Another form is refused."""
        error = self.assertRaises(ValueError, releases, LOCK.replace('"1.0"', '"2.0"'))
        self.assertIn("not of '2.0'", str(error))

    def test_words(self) -> None:
        """Versions of Python are named if it is missing on some only."""
        one, other = Missing("a", True), Missing("b", False)
        self.assertEqual(names({10: [one, other], 11: [one]}), "a; b (no sdist): 3.10")
        self.assertEqual(names({10: []}), "none")

    def test_table(self) -> None:
        """Extras and the oldest versions show only what a plain installation has."""
        known = releases(LOCK)
        answers = {(which, part): known[:1] for which in (PINNED, OLDEST) for part in PARTS}
        answers[PINNED, ""] = [known[3]]
        answers[PINNED, "otel"] = known[1:]
        answers[OLDEST, "views"] = known
        rows = dict(line.strip("| ").split(" | ", 1) for line in table(answers).splitlines()[2:])
        self.assertEqual(rows["Linux, glibc, x86_64"], "none | none | none")
        self.assertEqual(rows["Windows, ARM64"], "windows (no sdist) | stable | none")
        self.assertEqual(rows["macOS 13, arm64"], "none | apple (no sdist): 3.10, 3.11, 3.13; stable | none")

    def test_page(self) -> None:
        """The table has its place on the page, and only that is written."""
        text = written(f"a\n{BEGIN}old\n{END}b\n", "new\n")
        self.assertEqual(text, f"a\n{BEGIN}new\n{END}b\n")
        self.assertRaises(ValueError, written, "a", "b")
        page = PAGE.read_text("utf-8")
        self.assertEqual(len(page.partition(BEGIN)[2].partition(END)[0].splitlines()), 4 + len(PLATFORMS))
