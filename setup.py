"""Build and installation of couchgateway; `make run` and `make test` use it, and so does plain pip."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent

# Read, not imported: that would need what is about to be installed.
VERSION: dict[str, str] = {}
exec((HERE / "couchbase" / "protocol" / "version.py").read_text(encoding="utf-8"), VERSION)

# What the views of the embedded node need. PyICU with ICU inside comes ready built or not at all; for macOS
# 13 and 14 (Darwin 22 and 23) in an older version only, and not for every Python and processor. A requirement
# that cannot be met would make the whole installation fail, so there a plain installation does without
# views. Markers look for words rather than compare: what Linux has in platform_version is no version.
VIEWS_REQUIREMENTS = [
    "mini-racer >= 0.14 ; platform_python_implementation == 'CPython'",
    "pyicu-wheels >= 2.14 ; platform_python_implementation == 'CPython'",
]

VIEWS_WHERE_READY_BUILT = [
    "mini-racer >= 0.14 ; platform_python_implementation == 'CPython'",
    "pyicu-wheels >= 2.15 ; platform_python_implementation == 'CPython'"
    " and 'Version 21.' not in platform_version"
    " and 'Version 22.' not in platform_version and 'Version 23.' not in platform_version",
    "pyicu-wheels >= 2.14, < 2.15 ; platform_python_implementation == 'CPython' and python_version < '3.14' "
    "and ('Version 23.' in platform_version or "
    "('Version 22.' in platform_version and platform_machine == 'x86_64'))",
]

# One floor for each runtime dependency, with wheels for every Python supported. docs/dependencies.md says
# what each saves (a test compares the two), requirements/lock.txt pins the exact versions that the tests
# run with.
REQUIREMENTS = [
    "Twisted[tls] >= 24.11",
    "klein >= 24.8",
    "treq >= 24.9.1",
    "zope.interface >= 8.1.1",
    "httptools >= 0.7.1",
    "h2 >= 4.3",
    # h2 brings it, too.
    "hpack >= 4.1",
    "cramjam >= 2.11",
    # Twisted's extra brings it, too. 48 is the last version with wheels for Macs with Intel's processors;
    # others would have to be built there, with Rust.
    "cryptography >= 42 ; sys_platform != 'darwin' or platform_machine != 'x86_64'",
    "cryptography >= 46, < 49 ; sys_platform == 'darwin' and platform_machine == 'x86_64'",
    "google-crc32c >= 1.8 ; platform_python_implementation == 'CPython'",
    "orjson >= 3.11.4 ; platform_python_implementation == 'CPython'",
    "prometheus-client >= 0.20",
    "PyJWT >= 2.10.1",
    "tqdm >= 4.66",
    *VIEWS_WHERE_READY_BUILT,
    "tomli >= 2.0 ; python_version < '3.11'",
]

GEVENT_REQUIREMENTS = [
    # Greenlets on the SDK, for programs that live on gevent. The newest versions have no wheels for Python
    # 3.10 and 3.11 on macOS, and for 3.10 on Linux with ARM.
    "gevent >= 25.8.1 ; python_version >= '3.12' or (python_version == '3.11' and sys_platform != 'darwin')",
    "gevent >= 25.8.1, < 26 ; python_version < '3.11' and sys_platform != 'darwin'",
    "gevent >= 24.11, < 25.6 ; python_version < '3.12' and sys_platform == 'darwin'",
]

OTEL_REQUIREMENTS = [
    # Spans of --tracing, and their export over HTTP.
    "opentelemetry-sdk >= 1.30",
    "opentelemetry-exporter-otlp-proto-http >= 1.30",
]

TEST_REQUIREMENTS = [
    *GEVENT_REQUIREMENTS,
    *OTEL_REQUIREMENTS,
    "hypothesis >= 6.100",
    # The gateway's OpenAPI document is held to the specification, and answers to its schemas.
    "openapi-spec-validator >= 0.7.2",
    # What a platform gets is tested with the markers' own rules.
    "packaging >= 24.2",
    # Not only to install: a test builds the wheel.
    "setuptools >= 77",
]

DEVELOPMENT_REQUIREMENTS = [
    *TEST_REQUIREMENTS,
    "mypy >= 1.14",
    "mypy-zope >= 1.0",
    "pydoctor >= 25.10",
    "ruff >= 0.9",
    "types-tqdm",
]

SOURCE_PACKAGES = ["couchbase", "txcouchbase", "gcouchbase", "couchnode", "gateway", "reactor"]

setup(
    name="couchgateway",
    version=VERSION["VERSION"],
    description="Documents over HTTP: a REST front end, a Twisted driver and an embedded node for Couchbase",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="couchgateway developers",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    # Said in full so that an editable installation is one path entry: twistd then finds the plugins below as
    # files of this folder, which the import hooks of other editable installations do not allow.
    package_dir={"": "."},
    packages=[
        *find_packages(include=[pattern for name in SOURCE_PACKAGES for pattern in (name, f"{name}.*")]),
        # Laid into a folder of Twisted without __init__.py: that is how twistd finds its commands.
        "twisted.plugins",
    ],
    package_data={
        **{name: ["py.typed"] for name in SOURCE_PACKAGES},
        "couchnode.views": ["prelude.js"],
        "gateway": ["py.typed", "console/*"],
        "gateway.openapi": ["static/*"],
        "gateway.pages": ["*.css"],
    },
    include_package_data=False,
    data_files=[
        ("share/man/man1", [str(page.relative_to(HERE)) for page in (HERE / "docs" / "man").glob("*.1")])
    ],
    zip_safe=False,
    install_requires=REQUIREMENTS,
    extras_require={
        "gevent": GEVENT_REQUIREMENTS,
        "otel": OTEL_REQUIREMENTS,
        "views": VIEWS_REQUIREMENTS,
        "test": TEST_REQUIREMENTS,
        "dev": DEVELOPMENT_REQUIREMENTS,
    },
    entry_points={
        "console_scripts": [
            "couchgateway = gateway.commandline:main",
            "couchnode = couchnode.command:main",
            "couchgateway-export = gateway.loader.exportcommand:main",
            "couchgateway-key = gateway.access.keycommand:main",
            "couchgateway-load = gateway.loader.command:main",
        ]
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Framework :: Twisted",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Database :: Front-Ends",
        "Topic :: Internet :: WWW/HTTP :: HTTP Servers",
        "Typing :: Typed",
    ],
)
