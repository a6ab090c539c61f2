"""Templates: ours beside Flower's, and the two places in Flower's where a batch is linked."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tornado import template
from tornado.web import UIModule

logger = logging.getLogger(__name__)

_OURS: Final = Path(__file__).parent / "templates"

_TAB: Final = """
        <li class="nav-item">
          <a class="nav-link{% if active_tab == 'batches' %} active{% end %}"
            href="{{ reverse_url('batches') }}"
            {% if active_tab == 'batches' %}aria-current="page"{% end %}>Batches</a>
        </li>
      </ul>"""

#: What is put into a template of Flower's, as it is loaded: (where, in place of what, what).
_ADDITIONS: Final[Mapping[str, tuple[str, str]]] = {
    # Behind the last tab: the first list of the navigation.
    "navbar.html": ("\n      </ul>", _TAB),
    # Below a task's arguments, which name its batch.
    "task.html": (
        "<code>{{ task.kwargs }}</code></pre>",
        "<code>{{ task.kwargs }}</code></pre>{% module BatchLink(task.kwargs) %}",
    ),
}

_BATCH: Final = re.compile(r"'batch_id': '(batch_[0-9a-f]{24})'")


class Loader(template.Loader):
    """Finds our templates first, and Flower's own wherever it is installed."""

    def _create_template(self, name: str) -> template.Template:
        ours = _OURS / name
        if ours.is_file():
            return template.Template(ours.read_bytes(), name=name, loader=self)
        if name not in _ADDITIONS:
            return super()._create_template(name)
        where, what = _ADDITIONS[name]
        text = (Path(self.root) / name).read_text(encoding="utf-8")
        if where not in text:
            # A Flower that has changed: its page is shown as it is.
            logger.warning("Flower's %s is not as expected: no link to batches in it", name)
        return template.Template(text.replace(where, what, 1), name=name, loader=self)


class BatchLink(UIModule):
    """On a task's page: the way back to its batch, if it is an item's or a gather."""

    def render(self, kwargs: Any) -> str:
        """Return the link, or nothing."""
        found = _BATCH.search(str(kwargs or ""))
        if found is None:
            return ""
        url = self.handler.reverse_url("batch", found[1])
        return f'<a class="d-block mt-2 text-nowrap" id="batch-link" href="{url}">Its batch</a>'
