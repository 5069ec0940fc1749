"""Adapter folders of AdapterHub's `adapters`: bottlenecks, LoRA, (IA)^3, prefix tuning and unions of them.

    from unipetl.interop import adapterhub

    attachment = adapterhub.load(model, "adapter-folder")   # as model.load_adapter would compute
    adapterhub.export(model, "folder")                      # model.load_adapter(..., use_safetensors=True) reads it

What the format or unipetl cannot say is refused, with the reason. The library itself is not needed.
"""

from unipetl.interop.adapterhub.exchange import export, load

__all__ = ["export", "load"]
