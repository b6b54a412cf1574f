"""How many bytes of tensors operations make are alive at once, with content or without."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """Adds up the bytes of what operations make and what is let go of again.

    most: of all that was alive at once until the gradient of the embeddings is made. afterwards: from then on.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = self.afterwards = self._now = 0
        self._embeddings_are_next = False
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        before = {leaf.untyped_storage()._cdata for leaf in given}
        self._embeddings_are_next |= func is torch.ops.aten.embedding_dense_backward.default
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._see(leaf.untyped_storage(), before)
        return made

    def _see(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        key = storage._cdata
        if key in before or key in self._alive:
            return
        size = storage.nbytes()
        self._now += size
        if self._embeddings_are_next:
            self.afterwards = max(self.afterwards, self._now)
        else:
            self.most = max(self.most, self._now)

        def gone(_: object) -> None:
            self._now -= size
            self._alive.pop(key, None)

        self._alive[key] = weakref.ref(storage, gone)
