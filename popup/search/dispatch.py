"""A look at each operation of a pass."""

from torch.utils._python_dispatch import TorchDispatchMode


class DispatchMode(TorchDispatchMode):
    """torch's mode without what later versions than 2.6 put around `__torch_dispatch__`: a guard against compiling it, which
    imports torch's compiler, two seconds, at the first operation, and is gone through at each. Nothing is compiled here."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
