"""Use of the machine, and figures that were not measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlijob.analysis.resources import GpusInUse, resource_use, total_energy_j
from nlijob.records.job import Environment, GpuInfo, GpuSample, HardwareSample, Machine, Memory
from nlijob.records.outcome import Imbalance, ResourceUse

UUID = "AB12-cd34"
GPU = GpuInfo("a GPU", UUID, "9.0", 100, "580.1")
ENVIRONMENT = Environment(
    "cuda", (GPU,), "Linux", "3.12", {}, "13.0", "a CPU", 4, 1000, "bfloat16", "sdpa"
)
OTHER = replace(GPU, uuid="ef56")
GPU_SAMPLE = GpuSample("GPU-ab12-CD34", 0.5, 40, 60.0, 300.0, 1000.0)


def sample(gpu: GpuSample | None, attempt: int = 1, stage: str = "train") -> HardwareSample:
    return HardwareSample(attempt, 0.0, stage, 0.25, 7, 9, (gpu,) if gpu else ())


def with_energy(joules: float | None, attempt: int = 1) -> HardwareSample:
    return sample(replace(GPU_SAMPLE, energy_j=joules), attempt)


def energy(*samples: HardwareSample) -> float | None:
    return resource_use(GpusInUse(ENVIRONMENT, []), samples, [], {}).gpus[0].energy_j


def test_gpu_is_matched_whatever_the_prefix_and_case_of_its_uuid() -> None:
    (gpu,) = resource_use(GpusInUse(ENVIRONMENT, []), [sample(GPU_SAMPLE)], [], {}).gpus
    assert (gpu.mean_load, gpu.max_memory_used_bytes) == (0.5, 40)


def test_other_gpus_of_the_machine_are_left_out() -> None:
    other = replace(GPU_SAMPLE, uuid="GPU-of-a-neighbour")
    (gpu,) = resource_use(GpusInUse(ENVIRONMENT, []), [sample(other)], [], {}).gpus
    assert (gpu.mean_load, gpu.energy_j, gpu.max_temperature_c) == (None, None, None)


def loads(first: float | None, second: float | None, stage: str = "train") -> HardwareSample:
    """A sample of two GPUs with these loads, which the driver lists the other way round."""
    own = replace(GPU_SAMPLE, load=first)
    other = replace(GPU_SAMPLE, uuid=f"GPU-{OTHER.uuid}", load=second)
    return replace(sample(own, stage=stage), gpus=(other, own))


def two_gpus(*samples: HardwareSample) -> ResourceUse:
    both = replace(ENVIRONMENT, gpus=(GPU, OTHER))
    return resource_use(GpusInUse(both, []), samples, [], {1: 9.0})


def test_a_job_on_the_second_gpu_has_the_figures_of_that_one() -> None:
    one = sample(GPU_SAMPLE)
    neighbour = replace(GPU_SAMPLE, uuid="GPU-of-a-neighbour", load=0.01, memory_used_bytes=1)
    both = replace(one, gpus=(neighbour, GPU_SAMPLE))
    (gpu,) = resource_use(GpusInUse(ENVIRONMENT, []), [both], [], {}).gpus
    assert (gpu.mean_load, gpu.max_memory_used_bytes) == (0.5, 40)


def test_each_of_several_gpus_has_figures_of_its_own() -> None:
    use = two_gpus(loads(0.25, 0.5, "baseline"), loads(0.75, 0.25), loads(1.0, 0.5))
    first, second = use.gpus
    assert (first.mean_training_load, second.mean_training_load) == (0.875, 0.375)
    assert (first.mean_scoring_load, second.mean_scoring_load) == (0.25, 0.5)
    assert use.imbalance == Imbalance(busiest=0, idlest=1, difference=0.5)


def test_imbalance_needs_two_gpus_that_were_measured_in_training() -> None:
    assert two_gpus(loads(0.25, None)).imbalance is None
    assert two_gpus(loads(0.25, 0.5, "baseline")).imbalance is None
    assert resource_use(GpusInUse(ENVIRONMENT, []), [sample(GPU_SAMPLE)], [], {}).imbalance is None


def test_energy_is_the_sum_over_all_gpus() -> None:
    later = replace(loads(1, 1), gpus=tuple(replace(g, energy_j=40.0) for g in loads(1, 1).gpus))
    earlier = replace(later, gpus=tuple(replace(g, energy_j=10.0) for g in later.gpus))
    assert two_gpus(earlier, later).total_energy_j == 60
    assert two_gpus(earlier).total_energy_j is None


def test_a_gpu_on_another_host_is_named_without_figures() -> None:
    far = replace(OTHER, host="second")
    both = replace(ENVIRONMENT, gpus=(replace(GPU, host="first"), far))
    use = resource_use(GpusInUse(both, []), [sample(GPU_SAMPLE)], [], {1: 9.0})
    assert [(gpu.host, gpu.mean_load) for gpu in use.gpus] == [("first", 0.5), ("second", None)]


def test_a_gpu_without_uuid_is_matched_only_where_it_is_alone() -> None:
    nameless = replace(ENVIRONMENT, gpus=(replace(GPU, uuid=None),))
    one = sample(GPU_SAMPLE)
    two = replace(one, gpus=(GPU_SAMPLE, GPU_SAMPLE))
    assert resource_use(GpusInUse(nameless, []), [one], [], {}).gpus[0].mean_load == 0.5
    assert resource_use(GpusInUse(nameless, []), [two], [], {}).gpus[0].mean_load is None


def test_a_run_on_the_cpu_has_no_gpus() -> None:
    on_cpu = replace(ENVIRONMENT, device="cpu", gpus=())
    use = resource_use(GpusInUse(on_cpu, []), [sample(GPU_SAMPLE)], [Memory(None, None)], {})
    assert use.gpus == ()
    assert use.peak_allocated_bytes is None


def test_no_samples_leave_everything_unmeasured() -> None:
    use = resource_use(GpusInUse(ENVIRONMENT, []), [], [], {})
    assert (use.mean_cpu_load, use.max_ram_used_bytes, use.min_disk_free_bytes) == (None,) * 3


def test_load_that_the_driver_does_not_report_is_not_zero() -> None:
    (gpu,) = resource_use(
        GpusInUse(ENVIRONMENT, []), [sample(replace(GPU_SAMPLE, load=None))], [], {}
    ).gpus
    assert gpu.mean_load is None


def test_training_load_is_that_of_the_train_stage() -> None:
    idle = sample(replace(GPU_SAMPLE, load=0.0), stage="load")
    (gpu,) = resource_use(GpusInUse(ENVIRONMENT, []), [idle, sample(GPU_SAMPLE)], [], {}).gpus
    assert (gpu.mean_load, gpu.mean_training_load) == (0.25, 0.5)


def test_energy_is_the_difference_of_the_running_total() -> None:
    assert energy(with_energy(1000), with_energy(1500), with_energy(1750)) == 750


def test_energy_between_attempts_is_not_counted() -> None:
    first = [with_energy(1000), with_energy(1100)]
    second = [with_energy(90_000, attempt=2), with_energy(90_050, attempt=2)]
    assert energy(*first, *second) == 150


def test_energy_is_unknown_where_an_attempt_did_not_measure_it() -> None:
    first = [with_energy(1000), with_energy(1100)]
    assert energy(*first, with_energy(None, attempt=2), with_energy(None, attempt=2)) is None


def test_energy_is_unknown_where_the_counter_was_reset() -> None:
    assert energy(with_energy(1000), with_energy(10)) is None


def test_peaks_are_the_highest_of_all_stages() -> None:
    use = resource_use(
        GpusInUse(ENVIRONMENT, []), [], [Memory(5, 6), Memory(9, 12), Memory(None, None)], {}
    )
    assert (use.peak_allocated_bytes, use.peak_reserved_bytes) == (9, 12)


def test_cpu_ram_and_disk_are_mean_peak_and_least() -> None:
    low, high = sample(None), replace(sample(None), cpu_load=0.75, ram_used_bytes=8)
    use = resource_use(GpusInUse(ENVIRONMENT, []), [low, replace(high, disk_free_bytes=3)], [], {})
    assert use.mean_cpu_load == pytest.approx(0.5)
    assert (use.max_ram_used_bytes, use.min_disk_free_bytes) == (8, 3)


def at(moment_s: float, joules: float | None, attempt: int = 1) -> HardwareSample:
    return replace(with_energy(joules, attempt), monotonic_s=moment_s)


def test_energy_covers_the_time_from_its_first_sample_to_its_last() -> None:
    killed = [at(500, None), at(501, 10), at(509, 90)]
    resumed = [at(3, 5000, 2), at(7, 5400, 2)]
    (gpu,) = resource_use(
        GpusInUse(ENVIRONMENT, []), [*killed, *resumed], [], {1: 12.0, 2: 6.0, 3: 2.0}
    ).gpus
    assert (gpu.energy_j, gpu.energy_s, gpu.attempts_s) == (480, 12, 20)


def test_the_time_that_the_energy_of_an_older_run_covers_is_unknown() -> None:
    (gpu,) = resource_use(
        GpusInUse(ENVIRONMENT, []), [with_energy(10), with_energy(50)], [], {1: 9.0}
    ).gpus
    assert (gpu.energy_j, gpu.energy_s) == (40, None)


def test_energy_is_unknown_where_the_counter_was_reset_in_between() -> None:
    assert energy(with_energy(10), with_energy(5), with_energy(500)) is None


def test_a_cpu_load_that_was_not_measured_is_no_load_of_0() -> None:
    missing = replace(sample(None), cpu_load=None, ram_used_bytes=None, disk_free_bytes=None)
    use = resource_use(GpusInUse(ENVIRONMENT, []), [missing, sample(None)], [], {})
    assert (use.mean_cpu_load, use.max_ram_used_bytes, use.min_disk_free_bytes) == (0.25, 7, 9)


def test_the_interval_of_the_samples_is_measured_and_not_what_is_configured_now() -> None:
    samples = [at(moment, None) for moment in (1, 3, 5, 105)]
    samples += [at(moment, None, 2) for moment in (0, 2)]
    use = resource_use(GpusInUse(ENVIRONMENT, []), samples, [], {})
    assert use.interval_s == 2
    assert resource_use(GpusInUse(ENVIRONMENT, []), samples[:1], [], {}).interval_s is None


def test_what_could_not_be_read_is_told_once_for_all_attempts() -> None:
    told = replace(sample(None), unread=("disk: gone",))
    again = replace(told, attempt=2, unread=("disk: gone", "CPU load: odd"))
    use = resource_use(GpusInUse(ENVIRONMENT, []), [told, sample(None), again], [], {})
    assert use.unread == ("disk: gone", "CPU load: odd")


@given(st.lists(st.tuples(st.integers(1, 3), st.floats(0, 1e6), st.floats(-1e10, 1e10))))
def test_energy_and_its_time_are_never_negative_whatever_the_wall_clock(
    steps: list[tuple[int, float, float]],
) -> None:
    samples = []
    for moment, (attempt, joules, wall_s) in enumerate(sorted(steps, key=lambda step: step[0])):
        samples.append(replace(at(float(moment), joules, attempt), time_s=wall_s))
    (gpu,) = resource_use(GpusInUse(ENVIRONMENT, []), samples, [], {1: 1e9}).gpus
    assert gpu.energy_j is None or gpu.energy_j >= 0
    assert gpu.energy_s is None or gpu.energy_s >= 0


OTHER = GpuInfo("another GPU", "ef56", "8.0", 50, "570.9")
OTHER_SAMPLE = GpuSample("GPU-ef56", 1.0, 30, 70.0, 200.0, 5000.0)


def on_other(joules: float, attempt: int = 1) -> HardwareSample:
    return sample(replace(OTHER_SAMPLE, energy_j=joules), attempt)


def test_each_attempts_gpu_is_counted() -> None:
    in_use = GpusInUse(ENVIRONMENT, [Machine(1, (OTHER,)), Machine(2, (GPU,))])
    samples = [on_other(5000), on_other(5600), with_energy(1000, 2), with_energy(1100, 2)]
    last, first = resource_use(in_use, samples, [], {}).gpus
    assert (last.name, last.energy_j, last.attempts) == ("a GPU", 100, (2,))
    assert (first.name, first.energy_j, first.attempts) == ("another GPU", 600, (1,))
    assert total_energy_j([last, first]) == 700


def test_a_gpu_of_another_attempt_is_left_out_of_this_one() -> None:
    in_use = GpusInUse(ENVIRONMENT, [Machine(1, (OTHER,)), Machine(2, (GPU,))])
    beside = replace(sample(GPU_SAMPLE, attempt=2), gpus=(GPU_SAMPLE, OTHER_SAMPLE))
    (gpu,) = resource_use(in_use, [beside], [], {}).gpus
    assert (gpu.name, gpu.attempts) == ("a GPU", (2,))


def test_a_gpu_with_a_single_sample_does_not_make_the_energy_unknown() -> None:
    in_use = GpusInUse(ENVIRONMENT, [Machine(1, (OTHER,)), Machine(2, (GPU,))])
    samples = [on_other(5000), with_energy(1000, 2), with_energy(1100, 2)]
    assert total_energy_j(resource_use(in_use, samples, [], {}).gpus) == 100


def test_the_same_gpu_with_a_newer_driver_is_one() -> None:
    before = replace(GPU, driver_version="570.0", uuid="GPU-AB12-CD34")
    in_use = GpusInUse(ENVIRONMENT, [Machine(1, (before,)), Machine(2, (GPU,))])
    samples = [with_energy(e, a) for e, a in ((0, 1), (50, 1), (10, 2), (30, 2))]
    (gpu,) = resource_use(in_use, samples, [], {}).gpus
    assert (gpu.energy_j, gpu.driver_version, gpu.attempts) == (70, "580.1", (1, 2))
