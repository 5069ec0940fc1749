"""What was put where: every hook, program and replaced method that attachments put on a model, in one list.

The list lies beside the state of the attachments. Taking everything off again walks this list and not the model, so
it costs what is there and not what the model is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.utils.hooks import RemovableHandle

from unipetl.attaching.heads import HeadProgram, view_of

#: Attribute of a model that holds the list.
INSTALLED = "_unipetl_installed"
#: Attribute of an attention module that holds the changes inside it.
HEADS = "_unipetl_heads"

Kind = Literal["hook", "heads", "methods", "stand-in"]


@dataclass(frozen=True)
class Put:
    """One thing that was put on a module; ``handle`` is a hook's, ``name`` that of a method.

    ``before`` says of every module whose method was replaced what it had of its own.

    A handle that is unpickled in another process keeps hooks registered there from getting its number.
    """

    module: nn.Module
    kind: Kind
    handle: RemovableHandle | None = None
    name: str = ""
    before: Any = None


class Hooks:
    """Puts things on the modules of one model, and remembers each as it does."""

    def __init__(self, model: nn.Module) -> None:
        self.installed: list[Put] = model.__dict__.setdefault(INSTALLED, [])

    def before(self, module: nn.Module, hook: Callable[..., Any], *, with_kwargs: bool = False) -> None:
        """Register a forward pre-hook."""
        handle = module.register_forward_pre_hook(hook, with_kwargs=with_kwargs)
        self.installed.append(Put(module, "hook", handle))

    def after(
        self,
        module: nn.Module,
        hook: Callable[..., Any],
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always: bool = False,
    ) -> None:
        """Register a forward hook; ``prepend`` puts it before those of others, ``always`` calls it on errors, too."""
        handle = module.register_forward_hook(hook, prepend=prepend, with_kwargs=with_kwargs, always_call=always)
        self.installed.append(Put(module, "hook", handle))

    def heads(self, core: nn.Module) -> HeadProgram:
        """Return the program of an attention module, which gets a view of its config that names our attention."""
        if HEADS not in core.__dict__:
            self.installed.append(Put(core, "heads"))
            core.__dict__[HEADS] = HeadProgram()
            anything: Any = core
            anything.config = view_of(anything.config)
        program: HeadProgram = core.__dict__[HEADS]
        return program

    def stand_in(self, module: nn.Module, name: str) -> None:
        """Note what hooks put before a parameter for the time of a call; a keyboard interrupt may leave it there."""
        self.installed.append(Put(module, "stand-in", name=name))

    def method(self, module: nn.Module, name: str, replacement: Callable[..., Any]) -> None:
        """Let ``replacement`` stand before a method of one module, or before what stands there already."""
        self.methods(name, [(module, replacement)])

    def methods(self, name: str, replacements: Sequence[tuple[nn.Module, Callable[..., Any]]]) -> None:
        """Do so for many modules, in one entry."""
        before = [(module, module.__dict__.get(name)) for module, _ in replacements]
        self.installed.append(Put(replacements[0][0], "methods", name=name, before=before))
        for module, replacement in replacements:
            module.__dict__[name] = replacement


def take_off(model: nn.Module) -> None:
    """Remove everything that [Hooks][] put on ``model``."""
    for one in reversed(model.__dict__.pop(INSTALLED, [])):
        module = one.module
        if one.handle is not None:
            one.handle.remove()
        elif one.kind == "stand-in":
            module.__dict__.pop(one.name, None)
        elif one.kind == "heads":
            del module.__dict__[HEADS]
            core: Any = module
            core.config = core.config._unipetl_config
        else:
            for changed, before in one.before:
                del changed.__dict__[one.name]
                if before is not None:
                    changed.__dict__[one.name] = before
