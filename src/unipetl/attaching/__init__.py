"""The only code that touches a live model."""

from unipetl.attaching.attachment import Attachment, activate, attach, attachments, detach, detached

__all__ = ["Attachment", "activate", "attach", "attachments", "detach", "detached"]
