"""Licences as bills of materials write them: an SPDX identifier where the name is one, the name alone where not."""

from __future__ import annotations

import re

SPDX = (
    "AFL-3.0",
    "AGPL-3.0-only",
    "AGPL-3.0-or-later",
    "Apache-2.0",
    "Artistic-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC-BY-2.0",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC-BY-NC-2.0",
    "CC-BY-NC-3.0",
    "CC-BY-NC-4.0",
    "CC-BY-NC-ND-4.0",
    "CC-BY-NC-SA-3.0",
    "CC-BY-NC-SA-4.0",
    "CC-BY-ND-4.0",
    "CC-BY-SA-3.0",
    "CC-BY-SA-4.0",
    "CC0-1.0",
    "CDLA-Permissive-1.0",
    "CDLA-Permissive-2.0",
    "CDLA-Sharing-1.0",
    "EPL-2.0",
    "EUPL-1.2",
    "GPL-2.0-only",
    "GPL-2.0-or-later",
    "GPL-3.0-only",
    "GPL-3.0-or-later",
    "ISC",
    "LGPL-2.1-only",
    "LGPL-2.1-or-later",
    "LGPL-3.0-only",
    "LGPL-3.0-or-later",
    "MIT",
    "MPL-2.0",
    "MS-PL",
    "ODbL-1.0",
    "ODC-By-1.0",
    "OFL-1.1",
    "PDDL-1.0",
    "Unlicense",
    "WTFPL",
    "Zlib",
)
"""Identifiers of the SPDX list that models and data sets are published under. The whole list has hundreds more; one
that is not here is passed on as a name, which no reader misunderstands."""
_BY_NAME = {name.lower(): name for name in SPDX}


def parts(licence: str) -> tuple[str, ...]:
    """Licences that all apply, out of what was recorded: `a AND b` is two."""
    return tuple(name for name in re.split(r"\s+AND\s+", licence.strip()) if name)


def identifier(name: str) -> str | None:
    """The SPDX identifier that a name is, in whatever case; None if it is not among those known here."""
    return _BY_NAME.get(name.lower())


def expression(licence: str) -> str:
    """A licence as an SPDX expression; a name that is no known identifier becomes a `LicenseRef-`."""
    refs = [identifier(name) or reference(name) for name in parts(licence)]
    return " AND ".join(refs)


def reference(name: str) -> str:
    """A name of one's own in the form that SPDX has for it."""
    return f"LicenseRef-{re.sub(r'[^A-Za-z0-9.-]+', '-', name).strip('-')}"
