"""Bucket settings as the REST forms give them: what is taken, and what each bad field is told."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from couchnode.cluster.definition import (
    MEBIBYTE,
    BucketDefinition,
    DefinitionError,
    bucket_name_fault,
    read_changes,
    read_new_bucket,
)

SMALLEST = {"name": "beer", "ramQuotaMB": "100"}


class NewBucketTests(SynchronousTestCase):
    """The form that creates a bucket."""

    def errors(self, **fields: str) -> dict[str, str]:
        """Return what is wrong with the smallest form after these changes."""
        form = {**SMALLEST, **fields}
        return self.assertRaises(DefinitionError, read_new_bucket, form).errors

    def test_defaults_are_couchbases(self) -> None:
        """A name and a quota make a couchbase bucket with one replica, without flush, without a password."""
        definition, password = read_new_bucket(SMALLEST)
        self.assertIsNone(password)
        self.assertEqual(
            definition,
            BucketDefinition("beer", "couchbase", 100 * MEBIBYTE, replica_number=1, flush_enabled=False),
        )

    def test_everything_that_is_supported(self) -> None:
        """Each setting that the node keeps arrives in the definition."""
        definition, password = read_new_bucket(
            {
                "name": "Beer_1.x-%",
                "ramQuota": "256",
                "bucketType": "ephemeral",
                "replicaNumber": "3",
                "flushEnabled": "1",
                "evictionPolicy": "noEviction",
                "threadsNumber": "8",
                "compressionMode": "active",
                "conflictResolutionType": "lww",
                "durabilityMinLevel": "none",
                "maxTTL": "0",
                "replicaIndex": "0",
                "authType": "sasl",
                "saslPassword": "pw",
            }
        )
        self.assertEqual(password, "pw")
        self.assertEqual(
            definition,
            BucketDefinition(
                "Beer_1.x-%", "ephemeral", 256 * MEBIBYTE, 3, True, "noEviction", 8, "active", "lww"
            ),
        )
        self.assertFalse(definition.persistent)

    def test_settings_of_old_servers(self) -> None:
        """What set up old servers' ports and logins is taken, and changes nothing."""
        old = {**SMALLEST, "authType": "none", "proxyPort": "11215"}
        self.assertEqual(read_new_bucket(old), read_new_bucket(SMALLEST))

    def test_membase_is_couchbase(self) -> None:
        """The old name of the type is understood."""
        self.assertEqual(read_new_bucket({**SMALLEST, "bucketType": "membase"})[0].type, "couchbase")

    def test_bad_fields(self) -> None:
        """Each value that is out of range is refused under the name of its field."""
        for field, value, text in [
            ("name", "", "Bucket name needs to be specified"),
            ("name", "a b", "can only contain characters"),
            ("name", "bière", "can only contain characters"),
            ("name", "a\n", "can only contain characters"),
            ("name", ".x", "cannot start with dot"),
            ("name", "n" * 101, "cannot exceed 100"),
            ("ramQuotaMB", "99", "RAM quota cannot be less than 100 MiB"),
            ("ramQuotaMB", "-5", "positive integer"),
            ("ramQuotaMB", "lots", "positive integer"),
            ("ramQuotaMB", "٣٠٠", "positive integer"),
            ("bucketType", "magic", "invalid bucket type"),
            ("bucketType", "memcached", "not supported"),
            ("replicaNumber", "4", "Replica number larger than 3 is not supported."),
            ("replicaNumber", "-1", "integer from 0 to 3"),
            ("flushEnabled", "yes", "can only be 0 or 1"),
            ("evictionPolicy", "never", "must be one of"),
            ("evictionPolicy", "noEviction", "of couchbase buckets must be one of valueOnly, fullEviction"),
            ("evictionPolicy", "nruEviction", "nruEviction is not supported by this node"),
            ("durabilityMinLevel", "majority", "majority is not supported by this node"),
            ("storageBackend", "magma", "magma is not supported by this node"),
            ("replicaIndex", "1", "replicaIndex other than 0 is not supported"),
            ("maxTTL", "10", "maxTTL other than 0 is not supported"),
            ("threadsNumber", "5", "must be one of 3, 8"),
            ("authType", "kerberos", "must be one of sasl, none"),
            ("proxyPort", "70000", "cannot be more than 65535"),
            ("colour", "red", "Unsupported key"),
        ]:
            errors = self.errors(**{field: value})
            self.assertEqual(list(errors), [field], (field, value))
            self.assertIn(text, errors[field])

    def test_all_faults_are_told_at_once(self) -> None:
        """A form with several faults names them all."""
        errors = self.assertRaises(DefinitionError, read_new_bucket, {"replicaNumber": "9"}).errors
        self.assertEqual(set(errors), {"name", "ramQuota", "replicaNumber"})

    def test_longest_name(self) -> None:
        """A hundred bytes are a name, one more is not."""
        self.assertIsNone(bucket_name_fault("n" * 100))
        self.assertIsNotNone(bucket_name_fault("n" * 101))


class EditTests(SynchronousTestCase):
    """The form that edits a bucket."""

    current = BucketDefinition("beer", quota_bytes=100 * MEBIBYTE, replica_number=1)

    def test_only_what_is_sent_changes(self) -> None:
        """Other settings stay; a name, and a fixed setting given as it is, change nothing."""
        changed = read_changes(
            {"flushEnabled": "1", "ramQuotaMB": "300", "name": "wine", "bucketType": "membase"}, self.current
        )
        self.assertEqual(changed, self.current._replace(flush_enabled=True, quota_bytes=300 * MEBIBYTE))
        self.assertEqual(read_changes({}, self.current), self.current)

    def test_what_is_fixed_stays(self) -> None:
        """The type, the conflict resolution and the password cannot be changed by an edit."""
        for field, value in [
            ("bucketType", "ephemeral"),
            ("conflictResolutionType", "lww"),
            ("saslPassword", "x"),
        ]:
            errors = self.assertRaises(DefinitionError, read_changes, {field: value}, self.current).errors
            self.assertEqual(list(errors), [field])
            self.assertIn("cannot be changed", errors[field])
