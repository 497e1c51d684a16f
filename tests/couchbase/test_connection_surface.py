"""The modules, names and constants that programs written for SDK 1.2 import."""

import importlib
from unittest import TestCase

import couchbase
from couchbase import exceptions, experimental, user_constants


class SurfaceTests(TestCase):
    """Every documented name is where it was."""

    def test_modules(self):
        """Names by module."""
        for module, names in {
            "couchbase": "Couchbase Connection set_json_converters set_pickle_converters __version__",
            "couchbase.connection": "Connection Pipeline DurabilityContext View CouchbaseError NotFoundError "
            "TimeoutError ValueResult MultiResult ObserveInfo AsyncResult HttpResult FMT_JSON LOCKMODE_WAIT",
            "couchbase.result": "Result OperationResult ValueResult HttpResult MultiResult ObserveInfo "
            "AsyncResult",
            "couchbase.transcoder": "Transcoder TranscoderPP",
            "couchbase.views.iterator": "View ViewRow RowProcessor AlreadyQueriedError MAX_URI_LENGTH",
            "couchbase.items": "Item ItemCollection ItemOptionDict ItemSequence",
            "couchbase.admin": "Admin METHMAP",
            "couchbase.experimental": "enable enabled_or_raise",
        }.items():
            found = importlib.import_module(module)
            for name in names.split():
                self.assertTrue(hasattr(found, name), f"{module}.{name}")
        self.assertIsInstance(couchbase.__version__, str)

    def test_constants(self):
        """Values, at the top of the package and in their module."""
        for name, value in {
            "FMT_JSON": 0,
            "FMT_PICKLE": 1,
            "FMT_BYTES": 2,
            "FMT_UTF8": 4,
            "FMT_MASK": 7,
            "OBS_FOUND": 0x00,
            "OBS_PERSISTED": 0x01,
            "OBS_NOTFOUND": 0x80,
            "OBS_LOGICALLY_DELETED": 0x81,
            "OBS_MASK": 0x81,
            "LOCKMODE_NONE": 0,
            "LOCKMODE_EXC": 1,
            "LOCKMODE_WAIT": 2,
        }.items():
            self.assertEqual(getattr(couchbase, name), value)
            self.assertEqual(getattr(user_constants, name), value)
        self.assertNotIsInstance(couchbase.FMT_AUTO, int)

    def test_reexported(self):
        """``couchbase.connection`` has every exception."""
        connection = importlib.import_module("couchbase.connection")
        for name, value in vars(exceptions).items():
            is_error = isinstance(value, type) and issubclass(value, exceptions.CouchbaseError)
            if is_error and not name.startswith("_"):
                self.assertIs(getattr(connection, name), value)

    def test_experimental(self):
        """The switch is one."""
        experimental._enabled = False
        self.assertRaises(ImportError, experimental.enabled_or_raise)
        experimental.enable()
        experimental.enabled_or_raise()
