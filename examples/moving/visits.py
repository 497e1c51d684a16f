# Python 3: python visits.py CONNECTION_STRING PASSWORD_FILE
import sys
from pathlib import Path

from couchbase import FMT_BYTES, Couchbase
from couchbase.exceptions import KeyExistsError, NotFoundError

password = Path(sys.argv[2]).read_text().strip()
cb = Couchbase.connect(bucket="default", connection_string=sys.argv[1], password=password)


def visit(name):
    while True:
        try:
            found = cb.get("visits")
            visits = found.value
            visits[name] = visits.get(name, 0) + 1
            cb.replace("visits", visits, cas=found.cas)
            return
        except NotFoundError as error:
            print("new:", error.key)
            cb.add("visits", {name: 1})
            return
        except KeyExistsError:
            continue


visit("anna")
visit("bert")
for key, result in sorted(cb.get_multi(["visits", "nobody"], quiet=True).items()):
    print(key, result.value)

cb.set("avatar", b"\x89PNG", format=FMT_BYTES)
print(len(cb.get("avatar").value), "bytes")
for key in ("visits", "avatar"):
    cb.delete(key)
