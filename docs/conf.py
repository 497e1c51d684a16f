"""How `make site` turns the pages of the repository into a site.

Pages are read where they are, with links that also work on a code host, so the root of the repository is the
root of the site.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from couchbase.protocol.version import VERSION  # noqa: E402 - the path above finds it

project = "couchgateway"
author = "couchgateway developers"
project_copyright = "couchgateway developers, MIT licence"
version = release = VERSION

extensions = ["myst_parser", "tests.tooling.sitepages"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "examples/**/README.md", "gateway/**/README.md"]
exclude_patterns = [".*", "build", "dist", "_trial_temp*", "**/node_modules"]
nitpicky = True

# Anchors as code hosts make them; a test compares them with those that the pages use.
myst_heading_anchors = 6

html_theme = "furo"
html_title = f"couchgateway {VERSION}"
html_favicon = "../gateway/console/icon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
templates_path = ["_templates"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
