"""The server's error map for unknown statuses."""

import json
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from couchbase import exceptions
from couchbase.protocol.errormap import LONGEST_DELAY_SECONDS, ServerStatus, parse_error_map
from couchbase.protocol.statuses import RC_OF_STATUS, Action


def entry(**fields):
    """Return what a map with one entry says of it."""
    value = {"version": 2, "revision": 1, "errors": {"7f00": fields}}
    return parse_error_map(json.dumps(value).encode())[0x7F00]


def delays(status, count=5):
    """Return the first pauses, in milliseconds."""
    pauses = [status.delay(attempt) for attempt in range(count)]
    return [None if pause is None else round(pause * 1000) for pause in pauses]


def retried(**spec):
    """Return a status with its own retry specification."""
    return entry(name="N", attrs=["auto-retry"], retry=spec)


class ErrorMapTests(TestCase):
    """Reading a map, and what follows from it."""

    def test_strategies(self):
        """Pauses are constant, grow by the interval, or are its powers; ``ceil`` bounds them."""
        self.assertEqual(delays(retried(strategy="constant", interval=10, after=50)), [50, 10, 10, 10, 10])
        self.assertEqual(
            delays(retried(strategy="linear", interval=10, after=50, ceil=25)), [25, 10, 20, 25, 25]
        )
        self.assertEqual(
            delays(retried(strategy="exponential", interval=2, after=5, ceil=10)), [5, 2, 4, 8, 10]
        )

    def test_max_duration(self):
        """No pause begins that would end after ``max-duration``."""
        spec = {"strategy": "constant", "interval": 10, "after": 20, "max-duration": 45}
        self.assertEqual(delays(retried(**spec)), [20, 10, 10, None, None])
        # By the clock, if the driver reads one: the time for answers also counts.
        status = retried(**spec)
        self.assertEqual(status.delay(1, 0.034), 0.01)
        self.assertEqual(status.delay(1, 0.036), None)
        self.assertEqual((status.action(1, 0.034), status.action(1, 0.036)), (Action.RETRY, Action.SURFACE))

    def test_attributes_of_version_1(self):
        """Without a specification, "now" begins with 1 ms and "later" with 50 ms; "no-retry" wins."""
        self.assertEqual(delays(entry(attrs=["temp", "retry-now"]), 3), [1, 10, 50])
        self.assertEqual(delays(entry(attrs=["temp", "retry-later"]), 3), [50, 100, 500])
        self.assertEqual(delays(entry(attrs=["retry-now", "no-retry"]), 1), [None])
        self.assertEqual(delays(entry(attrs=["temp"]), 1), [None])

    def test_never_busy_and_never_endless(self):
        """A pause is at least 1 ms and at most a minute, however the map grows it."""
        self.assertEqual(delays(retried(strategy="constant", interval=0, after=0)), [1, 1, 1, 1, 1])
        grown = retried(strategy="exponential", interval=86_400_000, after=0)
        self.assertEqual(grown.delay(999), LONGEST_DELAY_SECONDS)
        self.assertIsNone(grown.delay(1000))

    def test_result_codes(self):
        """The attributes choose the class of the error."""
        for attributes, code in (
            (["temp"], exceptions.ETMPFAIL),
            (["auth", "temp"], exceptions.AUTH_ERROR),
            (["invalid-input", "item-only"], exceptions.EINVAL),
            (["item-locked", "retry-now"], exceptions.KEY_EEXISTS),
            (["rate-limit"], exceptions.EBUSY),
            (["internal"], exceptions.EINTERNAL),
            (["item-deleted"], exceptions.KEY_ENOENT),
            (["retry-later"], exceptions.ETMPFAIL),
            (["unheard-of"], exceptions.ERROR),
            ([], exceptions.ERROR),
        ):
            self.assertEqual(entry(attrs=attributes).code, code, attributes)

    def test_actions(self):
        """An answer that says to retry with a newer map requests one."""
        self.assertIs(entry(attrs=["retry-now"]).action(0), Action.RETRY)
        self.assertIs(entry(attrs=["retry-now", "fetch-config"]).action(0), Action.REMAP)
        self.assertIs(entry(attrs=["fetch-config"]).action(0), Action.SURFACE)

    def test_what_we_know_stays(self):
        """Known statuses are not part of an error map, whatever the map says about them."""
        for status in (*map(int, RC_OF_STATUS), 0x88, 0x8C, 0xCC, 0xC0):
            value = {"errors": {f"{status:x}": {"attrs": ["retry-now", "conn-state-invalidated"]}}}
            self.assertEqual(parse_error_map(json.dumps(value).encode()), {}, hex(status))

    def test_malformed_entries_leave_the_others(self):
        """An entry that makes no sense is left out, and so is each part of one that makes none."""
        errors = {"zz": {}, "7f01": 5, "-1": {}, "10000": {}, "7f02": {"attrs": 7, "name": [], "retry": "x"}}
        errors["7f03"] = {
            "attrs": ["retry-now", 5],
            "retry": {"strategy": "constant", "interval": float("nan")},
        }
        found = parse_error_map(json.dumps({"errors": errors}).encode())
        self.assertEqual(sorted(found), [0x7F02, 0x7F03])
        self.assertEqual(
            (found[0x7F02].name, found[0x7F02].attributes, found[0x7F02].retry), ("", set(), None)
        )
        self.assertEqual(delays(found[0x7F03], 1), [1])

    def test_texts_are_short_and_on_one_line(self):
        """A name from the network breaks no log and fills no memory."""
        status = entry(name="A\nB" + "x" * 1000, desc="what\x1b it is")
        self.assertEqual(len(status.name), 200)
        self.assertEqual(status.words[:3] + status.words[-12:], "A B" + "what  it is"[-12:].rjust(12))

    @given(st.binary(max_size=300))
    def test_any_bytes(self, value):
        """Whatever a server sends, there is a map, if an empty one."""
        self.assertIsInstance(parse_error_map(value), dict)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(
                    st.sampled_from(
                        (
                            "errors",
                            "7f00",
                            "attrs",
                            "name",
                            "desc",
                            "retry",
                            "strategy",
                            "interval",
                            "after",
                            "ceil",
                            "max-duration",
                        )
                    ),
                    inner,
                    max_size=5,
                )
            ),
            max_leaves=20,
        )
    )
    def test_any_json(self, value):
        """Each status that is found has an action for any attempt."""
        for status in parse_error_map(json.dumps({"errors": {"7f00": value}}).encode()).values():
            self.assertIsInstance(status, ServerStatus)
            for attempt in (0, 1, 50, 1000):
                self.assertIsInstance(status.action(attempt), Action)

    def test_deep_nesting(self):
        """Nesting beyond what can be read is no map."""
        self.assertEqual(parse_error_map(b'{"errors":' + b"[" * 100_000), {})
