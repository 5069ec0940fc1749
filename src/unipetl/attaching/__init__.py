"""The only code that touches a live model."""

from unipetl.attaching.attachment import Attachment, activate, attach, attachments, detach, detached
from unipetl.attaching.routing import Routing, routed

__all__ = ["Attachment", "Routing", "activate", "attach", "attachments", "detach", "detached", "routed"]
