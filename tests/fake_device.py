"""A device that is not there: tensors on it are computed by the CPU, but refuse what a GPU refuses.

`fake_device` registers the name ``fake`` with torch's hook for new devices (PrivateUse1). A tensor there has no NumPy array, and
cannot be added to a tensor of the host. Every operation is counted. So a test can ask how often the host waits for an answer.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

__all__ = ["WAITS", "calls", "fake_device"]

NAME = "fake"
COPIES = ("aten::_copy_from", "aten::_copy_from_and_resize", "aten::copy_", "aten::_to_copy")
RESHAPES = ("aten::view", "aten::_unsafe_view", "aten::_reshape_alias")
WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select")  # the host needs their answer to go on

calls: Counter[str] = Counter()
_contents: dict[int, torch.Tensor] = {}
_libraries: list[torch.library.Library] = []


def _is_there(value) -> bool:
    return isinstance(value, torch.Tensor) and value.device.type == NAME


def _content(value):
    return _contents[value._cdata] if _is_there(value) else value


def _placed(content: torch.Tensor) -> torch.Tensor:
    tensor = torch._C._acc.create_empty_tensor(content.shape, content.dtype)
    _contents[tensor._cdata] = content
    return tensor


def _run(operation, *arguments, **options):
    name = operation.name()
    calls[name] += 1
    if any(index is not None and _is_there(index) and index.dtype == torch.bool for index in _indices(name, arguments)):
        calls["aten::nonzero"] += 1
    known: dict[int, torch.Tensor] = {}
    for value in tree_flatten((arguments, options))[0]:
        if _is_there(value):
            known[id(_content(value))] = value
        elif isinstance(value, torch.Tensor) and value.dim() and name not in COPIES:
            raise RuntimeError(f"{name}: a tensor {tuple(value.shape)} of the host meets one of the device")
    target = options.get("device")
    if target is not None:
        options = {**options, "device": "cpu"}
    on_host, settings = tree_map(_content, (arguments, options))
    if name in COPIES[:2]:
        on_host[1].copy_(on_host[0])
        return arguments[1]
    # What is placed says that it is contiguous, so torch may ask for a view that its content cannot give.
    result = on_host[0].reshape(on_host[1]) if name in RESHAPES else operation(*on_host, **settings)
    if name == "aten::_to_copy" and target is not None and torch.device(target).type == "cpu":
        return result
    place = lambda value: known.get(id(value)) if id(value) in known else _placed(value)  # noqa: E731
    return tree_map(lambda value: place(value) if isinstance(value, torch.Tensor) else value, result)


def _indices(name: str, arguments) -> list:
    return list(arguments[1]) if name in ("aten::index.Tensor", "aten::index_put_", "aten::_index_put_impl_") else []


def _as_subclass(tensor: torch.Tensor, kind: type) -> torch.Tensor:
    if not _is_there(tensor):
        return _plain_as_subclass(tensor, kind)
    with torch._C.DisableTorchFunctionSubclass():
        other = torch.ops.aten.alias(tensor)
    other.__class__ = kind
    return other


_plain_as_subclass = torch.Tensor.as_subclass


def fake_device() -> torch.device:
    """The device, registered at the first call; it stays for the life of the process."""
    if not _libraries:
        _setup_privateuseone_for_python_backend(NAME)
        everything, aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
        everything.fallback(_run, "PrivateUse1")
        for name in torch._C._dispatch_get_all_op_names():
            # torch has kernels for these that work on any device, and would look for storage that is not there.
            if name.startswith("aten::") and torch._C._dispatch_has_kernel_for_dispatch_key(
                name, "CompositeExplicitAutograd"
            ):
                short, _, overload = name.removeprefix("aten::").partition(".")
                operation = getattr(getattr(torch.ops.aten, short, None), overload or "default", None)
                if operation is not None:
                    run = lambda *arguments, _op=operation, **options: _run(_op, *arguments, **options)  # noqa: E731
                    aten.impl(name.removeprefix("aten::"), run, "PrivateUse1")
        _libraries.extend([everything, aten])
        torch.Tensor.as_subclass = _as_subclass
    return torch.device(NAME)
