"""Folders of Hugging Face PEFT: LoRA, (IA)^3, prefix and prompt tuning, read and written with the same function.

    from unipetl.interop import peft

    attachment = peft.load(model, "lora-folder")       # as PeftModel.from_pretrained would compute
    peft.export(model, "folder")                       # PeftModel.from_pretrained reads it; so do engines for LoRA

What the format or unipetl cannot say is refused, with the reason. PEFT itself is not needed.
"""

from unipetl.interop.peft.exchange import export, load

__all__ = ["export", "load"]
