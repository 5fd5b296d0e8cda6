"""What tests on a CPU find in CUDA kernels: each of these kernels has a fault."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nlijob.gpu.fast.cuda import Source
from tests.cuda_on_cpu.emulation import Emulation, KernelError, on_gpu
from tests.cuda_on_cpu.places import folder_of_libraries, needs_compiler

pytestmark = needs_compiler

KERNELS = """
extern "C" __global__ void write_to(T* x, long place) {
    if (threadIdx.x == 0) x[place] = down(1.f);
}
extern "C" __global__ void read_from(T* x, long place) { x[0] = x[place]; }
extern "C" __global__ void read_eight(T* x, long place) {
    float sum = 0.f;
    EACH sum += up(at(x, place).of[i]);
    x[0] = down(sum);
}
extern "C" __global__ void use_own(T* x, int place) {
    float own[8];
    own[place] = 1.f;
    x[0] = down(own[place / 2]);
}
extern "C" __global__ void through_shared(T* x, int waits) {
    extern __shared__ __align__(16) T memory[];
    memory[threadIdx.x] = x[threadIdx.x];
    if (waits) __syncthreads();
    x[threadIdx.x] = memory[blockDim.x - 1 - threadIdx.x];
}
extern "C" __global__ void copy_through_shared(T* x, int waits) {
    extern __shared__ __align__(16) T memory[];
    if (threadIdx.x == 0) copy_16_bytes(__cvta_generic_to_shared(memory), x);
    if (waits) await_copies();
    __syncthreads();
    if (threadIdx.x == 0) x[0] = memory[3];
}
extern "C" __global__ void beyond_shared(T* x, int place) {
    extern __shared__ __align__(16) T memory[];
    memory[place] = x[0];
}
extern "C" __global__ void __launch_bounds__(64) exchange(T* x, int lanes) {
    if (threadIdx.x < lanes) x[threadIdx.x] = __shfl_xor_sync(~0u, x[threadIdx.x], 1);
    __syncthreads();
}
extern "C" __global__ void shift(T* x, int n) {
    x[blockIdx.x] = x[(blockIdx.x + 1) % n];
}
"""
Launch = Callable[..., None]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    path = tmp_path_factory.mktemp("kernels") / "faulty.cu"
    path.write_text(KERNELS)
    return Source(str(path))


@pytest.fixture(params=["first threads first", "last threads first"])
def launch(
    source: Source, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Launch:
    folder = folder_of_libraries(tmp_path_factory.getbasetemp())
    emulation = Emulation(folder, "last" in request.param)

    def run(name: str, x: Tensor, argument: int, threads: int = 1, **others: int) -> None:
        blocks = (others.pop("blocks", 1), 1)
        emulation.launch(source, name, blocks, threads, on_gpu(x), argument, **others)

    return run


def test_a_kernel_without_fault_computes_what_it_says(launch: Launch) -> None:
    x = torch.arange(48.0)
    launch("through_shared", x, 1, threads=48, shared_bytes=192)
    assert x.tolist() == [*range(47, -1, -1)]
    launch("copy_through_shared", x, 1, threads=48, shared_bytes=16)
    assert x[0] == 44
    launch("exchange", x, 64, threads=32)
    assert x[:4].tolist() == [46, 44, 44, 45]


@pytest.mark.parametrize("place", [64, 67, 100_000, -1, -4])
def test_values_outside_of_a_tensor_are_not_written(launch: Launch, place: int) -> None:
    x = torch.zeros(64)
    with pytest.raises(AssertionError, match=r"bytes (before|after) x|writes beside \['x'\]"):
        launch("write_to", x, place)
    assert not x.any()


@pytest.mark.parametrize("place", [64, -1])
def test_values_outside_of_a_tensor_are_not_read_unnoticed(launch: Launch, place: int) -> None:
    x = torch.zeros(64)
    try:
        launch("read_from", x, place)
    except KernelError:
        return
    assert x[0].isnan()


def test_values_between_a_tensors_rows_do_not_belong_to_it(launch: Launch) -> None:
    whole = torch.zeros(4, 24)
    x = whole[:, :16]
    launch("write_to", x, 24)
    with pytest.raises(AssertionError, match=r"writes beside \['x'\]"):
        launch("write_to", x, 16)
    launch("read_from", x, 17)
    assert x[0, 0].isnan()
    assert x[1, 0] == 1
    assert not whole[:, 16:].any()


def test_an_address_that_is_not_aligned_is_a_fault(launch: Launch) -> None:
    launch("read_eight", torch.zeros(64), 8)
    with pytest.raises(KernelError, match=r"read_eight: an address is no multiple.*thread 0 of"):
        launch("read_eight", torch.zeros(64), 2)
    with pytest.raises(KernelError, match="an address is no multiple"):
        launch("read_eight", torch.zeros(64)[1:], 8)


def test_a_thread_cannot_leave_its_own_array(launch: Launch) -> None:
    launch("use_own", torch.zeros(1), 7)
    with pytest.raises(KernelError, match="an index is outside"):
        launch("use_own", torch.zeros(1), 8)


def test_a_missing_barrier_gives_no_numbers(launch: Launch) -> None:
    x = torch.zeros(64)
    launch("through_shared", x, 0, threads=64, shared_bytes=256)
    assert x.isnan().any()


def test_a_copy_that_nobody_waits_for_gives_no_number(launch: Launch) -> None:
    x = torch.zeros(64)
    launch("copy_through_shared", x, 0, threads=64, shared_bytes=16)
    assert x[0].isnan()


def test_shared_memory_ends_where_the_launch_says(launch: Launch) -> None:
    launch("beyond_shared", torch.zeros(1), 63, shared_bytes=256)
    for place in (64, 100_000):
        with pytest.raises(KernelError, match="beyond_shared: access to"):
            launch("beyond_shared", torch.zeros(1), place, shared_bytes=256)
    with pytest.raises(KernelError, match="writes before shared memory"):
        launch("beyond_shared", torch.zeros(1), -1, shared_bytes=256)


def test_lanes_must_all_take_part_in_an_exchange(launch: Launch) -> None:
    with pytest.raises(KernelError, match="do not come"):
        launch("exchange", torch.zeros(64), 31, threads=64)


@pytest.mark.parametrize(("threads", "blocks"), [(65, 1), (0, 1), (32, 0)])
def test_a_launch_that_a_gpu_refuses_is_a_fault(launch: Launch, threads: int, blocks: int) -> None:
    with pytest.raises(KernelError, match="64 at most"):
        launch("exchange", torch.zeros(64), 64, threads=threads, blocks=blocks)


def test_what_depends_on_the_order_of_blocks_differs(
    source: Source, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = folder_of_libraries(tmp_path_factory.getbasetemp())
    found = []
    for is_reversed in (False, True):
        x = torch.arange(4.0)
        Emulation(folder, is_reversed).launch(source, "shift", (4, 1), 1, on_gpu(x), 4)
        found.append(x.tolist())
    assert found == [[1, 2, 3, 1], [0, 0, 0, 0]]
