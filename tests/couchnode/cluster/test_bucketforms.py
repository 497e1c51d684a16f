"""Bucket settings in the REST forms: accepted values, and the messages for invalid ones."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from couchnode.cluster.bucketforms import read_changes, read_new_bucket
from couchnode.cluster.definition import MEBIBYTE, BucketDefinition, DefinitionError, bucket_name_fault

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
            BucketDefinition(
                "beer",
                "couchbase",
                100 * MEBIBYTE,
                replica_number=1,
                flush_enabled=False,
                replica_index=True,
            ),
        )

    def test_every_setting(self) -> None:
        """Each setting that the node keeps arrives in the definition."""
        definition, password = read_new_bucket(
            {
                "name": "Beer_1.x-%",
                "ramQuota": "256",
                "bucketType": "ephemeral",
                "replicaNumber": "2",
                "flushEnabled": "1",
                "evictionPolicy": "nruEviction",
                "threadsNumber": "8",
                "compressionMode": "active",
                "conflictResolutionType": "lww",
                "durabilityMinLevel": "majority",
                "maxTTL": "2147483647",
                "rank": "7",
                "authType": "sasl",
                "saslPassword": "pw",
            },
            node_count=2,
        )
        self.assertEqual(password, "pw")
        self.assertEqual(
            definition,
            BucketDefinition(
                "Beer_1.x-%", "ephemeral", 256 * MEBIBYTE, 2, True, "nruEviction", 8, "active", "lww",
                max_ttl=2147483647, durability_min_level="majority", rank=7,
            ),
        )  # fmt: skip
        self.assertFalse(definition.persistent)
        self.assertEqual(definition.min_level, 1)

    def test_magma(self) -> None:
        """A magma bucket has history, 1024 or 128 vbuckets, full eviction by default, and no views."""
        form = {
            "name": "m",
            "ramQuotaMB": "1024",
            "storageBackend": "magma",
            "historyRetentionCollectionDefault": "false",
            "historyRetentionSeconds": "60",
            "historyRetentionBytes": "2147483648",
        }
        definition, _ = read_new_bucket(form)
        self.assertEqual(
            definition,
            BucketDefinition(
                "m", quota_bytes=1024 * MEBIBYTE, replica_number=1, replica_index=True,
                eviction_policy="fullEviction", storage_backend="magma", history_default=False,
                history_seconds=60, history_bytes=2**31,
            ),
        )  # fmt: skip
        self.assertFalse(definition.may_have_views)
        small = {"name": "m", "ramQuotaMB": "100", "storageBackend": "magma", "numVBuckets": "128"}
        self.assertEqual(read_new_bucket(small)[0].vbuckets, 128)

    def test_fields_of_operators(self) -> None:
        """Settings for a real server's disk and memory are accepted and have no effect."""
        tuned = {**SMALLEST, "autoCompactionDefined": "false", "purgeInterval": "3", "warmupBehavior": "none"}
        self.assertEqual(read_new_bucket(tuned), read_new_bucket(SMALLEST))

    def test_settings_of_old_servers(self) -> None:
        """Settings for old servers' ports and logins are accepted and have no effect."""
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
            ("name", "_users.couch.x", "This name is reserved for the internal use."),
            ("name", "n" * 101, "cannot exceed 100"),
            ("ramQuotaMB", "99", "RAM quota cannot be less than 100 MiB"),
            ("ramQuotaMB", "-5", "positive integer"),
            ("ramQuotaMB", "lots", "positive integer"),
            ("ramQuotaMB", "٣٠٠", "positive integer"),
            ("bucketType", "magic", "invalid bucket type"),
            ("bucketType", "memcached", "memcached buckets are no longer supported"),
            ("replicaNumber", "4", "Replica number larger than 3 is not supported."),
            ("replicaNumber", "-1", "must be a non-negative integer."),
            ("replicaIndex", "2", "replicaIndex can only be 1 or 0"),
            ("flushEnabled", "true", "flushEnabled can only be 1 or 0"),
            ("evictionPolicy", "never", "must be one of"),
            ("evictionPolicy", "noEviction", "either 'valueOnly' or 'fullEviction' for couchbase buckets"),
            ("maxTTL", "2147483648", "must be an integer between 0 and 2147483647"),
            ("maxTTL", "-1", "must be an integer between 0 and 2147483647"),
            ("numVBuckets", "128", "Number of vbuckets must be 128 or 1024 (magma) or 1024 (couchstore)"),
            ("numVBuckets", "many", "Number of vbuckets must be 128 or 1024 (magma) or 1024 (couchstore)"),
            ("historyRetentionCollectionDefault", "true", "History Retention can only used with Magma"),
            ("historyRetentionSeconds", "0", "History Retention can only used with Magma"),
            ("historyRetentionBytes", "1", "Value must be an integer between 2147483648"),
            ("conflictResolutionType", "custom", "is supported only with developer preview enabled"),
            ("conflictResolutionType", "mine", "must be 'seqno' or 'lww'"),
            ("compressionMode", "zip", "'off', 'passive' or 'active'"),
            ("rank", "1001", "between 0 and 1000"),
            ("threadsNumber", "9", "must be an integer between 2 and 8"),
            ("authType", "kerberos", "must be one of sasl, none"),
            ("proxyPort", "70000", "an integer from 0 to 65535"),
            ("colour", "red", "Unsupported key"),
        ]:
            errors = self.errors(**{field: value})
            self.assertEqual(list(errors), [field], (field, value))
            self.assertIn(text, errors[field])

    def test_errors_under_another_name(self) -> None:
        """A real server names some fields otherwise in its errors, and clients look for those names."""
        for field, value, name, text in [
            ("durabilityMinLevel", "some", "durability_min_level", "must be one of none, majority"),
            ("durabilityMinLevel", "majority", "durability_min_level", "You do not have enough data servers"),
            ("storageBackend", "tape", "storage_mode", "storage backend must be couchstore or magma"),
        ]:
            errors = self.errors(**{field: value})
            self.assertEqual(list(errors), [name])
            self.assertIn(text, errors[name])

    def test_combinations(self) -> None:
        """Settings that exclude each other are refused, whichever of them is the odd one."""
        for fields, name, text in [
            ({"replicaNumber": "3", "durabilityMinLevel": "majority"}, "durability_min_level", "3 replicas"),
            (
                {"bucketType": "ephemeral", "durabilityMinLevel": "persistToMajority", "replicaNumber": "0"},
                "durability_min_level",
                "'none' or 'majority' for ephemeral buckets",
            ),
            ({"bucketType": "ephemeral", "replicaIndex": "0"}, "replicaIndex", "not supported for ephemeral"),
            (
                {"bucketType": "ephemeral", "evictionPolicy": "valueOnly"},
                "evictionPolicy",
                "either 'noEviction' or 'nruEviction' for ephemeral buckets",
            ),
            ({"storageBackend": "magma"}, "ramQuota", "Ram quota for magma must be at least 1024 MiB"),
        ]:
            errors = self.errors(**fields)
            self.assertEqual(list(errors), [name])
            self.assertIn(text, errors[name])

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
        """Other settings are kept; a name, and an unchanged fixed setting, change nothing."""
        changed = read_changes(
            {"flushEnabled": "1", "ramQuotaMB": "300", "name": "wine", "bucketType": "membase"}, self.current
        )
        self.assertEqual(changed, self.current._replace(flush_enabled=True, quota_bytes=300 * MEBIBYTE))
        self.assertEqual(read_changes({}, self.current), self.current)

    def test_what_is_fixed_stays(self) -> None:
        """The type, the conflict resolution, the vbuckets and the password cannot be changed by an edit."""
        for field, value, text in [
            ("bucketType", "ephemeral", "Cannot change bucket type."),
            ("conflictResolutionType", "lww", "Conflict resolution type not allowed in update bucket"),
            ("numVBuckets", "128", "Number of vbuckets cannot be modified"),
            ("saslPassword", "x", "cannot be changed here"),
        ]:
            errors = self.assertRaises(DefinitionError, read_changes, {field: value}, self.current).errors
            self.assertEqual(list(errors), [field])
            self.assertIn(text, errors[field])

    def test_everything_that_can_change(self) -> None:
        """An edit changes limits, levels and policies; replicaIndex is read and ignored."""
        form = {
            "maxTTL": "60",
            "evictionPolicy": "fullEviction",
            "compressionMode": "off",
            "durabilityMinLevel": "majority",
            "replicaNumber": "2",
            "replicaIndex": "1",
        }
        self.assertEqual(
            read_changes(form, self.current, node_count=2),
            self.current._replace(
                max_ttl=60,
                eviction_policy="fullEviction",
                compression_mode="off",
                durability_min_level="majority",
                replica_number=2,
            ),
        )
