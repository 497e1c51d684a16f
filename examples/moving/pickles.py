"""Read values that a program on Python 2 pickled: python pickles.py CONNECTION_STRING PASSWORD_FILE."""

import pickle
import sys
from pathlib import Path

from couchbase import FMT_PICKLE, Connection, set_pickle_converters
from couchbase.exceptions import ValueFormatError
from couchbase.transcoder import RawTranscoder

# What Python 2 made of {'name': 'Café'}, a str in UTF-8.
FROM_PYTHON_2 = b"\x80\x02}q\x00U\x04nameq\x01U\x05Caf\xc3\xa9q\x02s."

password = Path(sys.argv[2]).read_text().strip()
options = {"bucket": "default", "connection_string": sys.argv[1], "password": password}
raw = Connection(transcoder=RawTranscoder(), **options)
raw.set(b"session", FROM_PYTHON_2, format=FMT_PICKLE)

bucket = Connection(**options)
try:
    bucket.get("session")
except ValueFormatError as error:
    print(type(error.inner_cause).__name__)

# Python 2's str becomes text; protocol 2 is the newest that Python 2 can read.
set_pickle_converters(
    lambda value: pickle.dumps(value, protocol=2), lambda text: pickle.loads(text, encoding="utf-8")
)
print(bucket.get("session").value)
bucket.delete("session")
