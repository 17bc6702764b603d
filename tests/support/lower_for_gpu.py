"""What torch would build of a forecast's calls for an H100, on a machine without one; run as a process of its own.

Needs a CUDA build of torch, Triton and the stub of ``gpu_stub.c`` preloaded. Prints one line of JSON: which inputs
the lowered call writes into, and which torch is told never move. torch records no CUDA graph that writes into an
input which may move. Nothing runs on a GPU. It replaces private parts of torch, so a new release may need a change
here; `make torch-matrix` shows with which releases it works.

    python lower_for_gpu.py fp32|bf16 first|following HORIZON [may-move]

With ``may-move`` torch is not told that the suffix stays where it is.
"""

# mypy: ignore-errors

from __future__ import annotations

import collections
import json
import sys
import types

import torch
import torch._inductor.config as inductor_config
import triton
from torch._dynamo.device_interface import CudaInterface
from torch._inductor import compile_fx
from torch._inductor.fx_passes import fuse_attention, misc_patterns, pad_mm
from torch._inductor.graph import GraphLowering
from torch._subclasses import FakeTensorMode, fake_tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.stateless import _reparametrize_module
from triton.backends.compiler import GPUTarget

from toto_core.compiling.calls import stay_in_place
from toto_core.compiling.packages import flatten, unflatten
from toto_core.toto1 import decode, forward
from toto_core.toto1.cache import empty_suffix
from toto_core.toto1.decode import Context, Decoder
from toto_core.toto1.forward import NewestPatch
from toto_core.toto1.model import TotoModel
from toto_core.toto1.model_config import ModelConfig
from toto_core.toto1.sampling import Noise
from toto_core.toto1.scaling import Stats

SHAPE = ModelConfig(
    patch_size=64,
    embed_dim=768,
    num_layers=2,
    num_heads=12,
    mlp_hidden_dim=3072,
    spacewise_every_n_layers=2,
    k_components=24,
)
SAMPLES = 256
H100 = {
    "name": "NVIDIA H100 80GB HBM3",
    "major": 9,
    "minor": 0,
    "multi_processor_count": 132,
    "regs_per_multiprocessor": 65536,
    "max_threads_per_multi_processor": 2048,
    "max_threads_per_block": 1024,
    "warp_size": 32,
    "total_memory": 85 << 30,
    "L2_cache_size": 50 << 20,
    "shared_memory_per_block_optin": 232448,
    "shared_memory_per_block": 49152,
    "shared_memory_per_multiprocessor": 233472,
    "gcnArchName": "",
    "uuid": 0,
    "is_integrated": 0,
    "is_multi_gpu_board": 0,
    "clock_rate": 1980000,
    "memory_clock_rate": 2619000,
    "memory_bus_width": 5120,
}


class LoweredError(Exception):
    """The graph is lowered; nothing needs to be compiled."""


class Driver:
    """As much of a driver as Triton asks for."""

    utils = None

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, *_):
        return 0

    def get_active_torch_device(self):
        return torch.device("cuda", 0)

    def get_device_interface(self):
        return torch.cuda


def pretend() -> None:
    """Let this process believe in a GPU."""
    properties = collections.namedtuple("Properties", H100)(**H100)
    torch.cuda.is_available = lambda: True
    torch.cuda.get_device_capability = lambda _=None: (9, 0)
    torch.cuda.get_device_properties = lambda _=None: properties
    torch.cuda.current_device = lambda: 0
    torch.cuda.device_count = lambda: 1
    torch.cuda.is_bf16_supported = lambda *_, **__: True
    torch.cuda._lazy_init = lambda: None
    torch.cuda.get_rng_state = lambda *_, **__: torch.zeros(16, dtype=torch.uint8)
    torch.cuda.set_rng_state = lambda *_, **__: None
    CudaInterface.Worker.get_device_properties = staticmethod(lambda _=None: properties)
    CudaInterface.Worker.current_device = staticmethod(lambda: 0)
    CudaInterface.get_compute_capability = staticmethod(lambda _=None: 90)
    CudaInterface.get_device_properties = staticmethod(lambda _=None: properties)
    CudaInterface.is_available = staticmethod(lambda: True)
    triton.runtime.driver.set_active(Driver())
    fake_tensor.init_gpu_context = lambda _: None
    for module, name in (
        (fuse_attention, "_sfdp_init"),
        (pad_mm, "_pad_mm_init"),
        (misc_patterns, "_misc_patterns_init"),
    ):
        setattr(module, name, lambda *_, **__: None)  # patterns are traced on a real GPU
    decode.copy = types.SimpleNamespace(deepcopy=lambda same: same)


def call_of(decoder, patch: str, horizon: int, placed):
    """A call of the decoder and its arguments, on the device there is not."""
    context = Context(
        torch.empty(1, 1, 512, device="cuda"),
        torch.empty(1, 1, 512, device="cuda", dtype=torch.bool),
        None,
        None,
    )
    rows = min(horizon, SHAPE.patch_size)
    noise = Noise(*(torch.empty(1, rows, SAMPLES, device="cuda") for _ in range(3)))
    keep = horizon > SHAPE.patch_size
    if patch == "first":
        return lambda c, n: forward.first(decoder, c, rows, n, keep=keep), (context, noise)
    begun = forward.first(decoder, context, rows, noise, keep=True)
    stats = Stats(*(v.unsqueeze(-1).expand(*v.shape, SAMPLES).clone() for v in begun.carry.stats))
    suffix = placed(empty_suffix(begun.carry.prefix, samples=SAMPLES, slots=1))
    newest = NewestPatch(torch.empty(1, 1, SAMPLES, SHAPE.patch_size, device="cuda"), stats)
    return lambda *arguments: forward.following(decoder, *arguments), (newest, begun.carry, suffix, noise)


def main(precision: str, patch: str, horizon: int, placed) -> None:
    pretend()
    mode = FakeTensorMode()
    decoder = Decoder(TotoModel(SHAPE), precision=precision).eval().requires_grad_(False)
    weights = [*decoder.named_parameters(), *decoder.named_buffers()]
    names = [name for name, _ in weights]
    with mode, torch.no_grad():
        there = [torch.empty(w.shape, dtype=w.dtype, device="cuda") for _, w in weights]
        with _reparametrize_module(decoder, dict(zip(names, there, strict=True))):
            call, arguments = call_of(decoder, patch, horizon, placed)
        given = list(flatten(arguments))

        def pure(*tensors):
            own, rest = tensors[: len(names)], iter(tensors[len(names) :])
            with _reparametrize_module(decoder, dict(zip(names, own, strict=True))):
                return tuple(flatten(call(*unflatten(arguments, rest))))

        graph = make_fx(pure, tracing_mode="real")(*there, *given)

    found = {}

    def stop(lowering, _) -> None:
        found["mutated"] = sorted(lowering.mutated_input_idxs)
        raise LoweredError

    GraphLowering._compile_to_module_lines = stop
    options = {
        "force_disable_caches": True,
        "triton.cudagraphs": True,
        "joint_graph_constant_folding": False,
        "compile_threads": 1,
        "shape_padding": False,
    }
    try:
        with mode, torch.no_grad(), inductor_config.patch(options):
            compile_fx.compile_fx(graph, [*there, *given])
    except Exception as error:
        if not is_lowered(error):
            raise
    inputs = [*there, *given]
    static = [index for index, tensor in enumerate(inputs) if hasattr(tensor, "_dynamo_static_input_type")]
    sys.stdout.write(json.dumps({**found, "static": static, "inputs": len(inputs)}) + "\n")


def is_lowered(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, LoweredError):
        error = error.__cause__ or error.__context__
    return error is not None


if __name__ == "__main__":
    may_move = sys.argv[4:] == ["may-move"]
    main(*sys.argv[1:3], int(sys.argv[3]), (lambda same: same) if may_move else stay_in_place)
