"""What is read of a compiled program: loops by their trips, collectives once each."""

import pytest

from octavo.configs.checks import ConfigError
from octavo.launch import topologies
from octavo.launch.program import group, read, size_of

CYCLES = 'backend_config={{"window_config":{{"estimated_cycles":"{}"}}}}'
TEXT = """HloModule jit_step, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %add.9 = f32[]{:T(128)} add(%a, %b)
}

%product (p: bf16[16,64], q: bf16[64,64]) -> bf16[16,64] {
  ROOT %dot.1 = bf16[16,64]{1,0} convolution(%p, %q), dim_labels=bf_io->bf
}

%async_collective_fusion.1 (p: bf16[4,64]) -> bf16[64,64] {
  ROOT %all-gather.1 = bf16[64,64]{1,0} all-gather(%p), channel_id=3, replica_groups=[1,16]<=[16]
}

%async_collective_fusion.2 (p: bf16[4,64]) -> bf16[64,64] {
  ROOT %all-gather.2 = bf16[64,64]{1,0} all-gather(%p), channel_id=3, replica_groups=[1,16]<=[16]
}

%scattered (p: f32[64,64]) -> f32[4,64] {
  %all-reduce.5 = f32[64,64]{1,0} all-reduce(%p), channel_id=5, replica_groups=[4,4]<=[16]
  ROOT %own = f32[4,64]{1,0} dynamic-slice(%all-reduce.5, %i, %zero)
}

%body (state: (s32[], bf16[4,64])) -> (s32[], bf16[4,64]) {
  %one = s32[]{:T(128)} constant(2)
  %state = (s32[]{:T(128)}, bf16[4,64]{1,0}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%state), index=0
  %w = bf16[4,64]{1,0} get-tuple-element(%state), index=1
  %fusion.1 = bf16[64,64]{1,0} fusion(%w), kind=kCustom, calls=%async_collective_fusion.1
  %fusion.2 = bf16[64,64]{1,0} fusion(%w), kind=kCustom, calls=%async_collective_fusion.2
  %fusion.3 = bf16[16,64]{1,0} fusion(%w), kind=kOutput, calls=%product, PRODUCT
  %copy.1 = bf16[16,64]{0,1} copy(%fusion.3), COPY
  %next = s32[]{:T(128)} add(%i.1, %one)
  ROOT %out = (s32[]{:T(128)}, bf16[4,64]{1,0}) tuple(%next, %w)
}

%condition (state.1: (s32[], bf16[4,64])) -> pred[] {
  %most = s32[]{:T(128)} constant(24)
  %state.1 = (s32[]{:T(128)}, bf16[4,64]{1,0}) parameter(0)
  %i.2 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %less = pred[]{:T(512)} compare(%i.2, %most), direction=LT
}

ENTRY %main (w.1: bf16[4,64], g: f32[64,64]) -> f32[64,64] {
  %from = s32[]{:T(128)} constant(4)
  %w.1 = bf16[4,64]{1,0} parameter(0)
  %g = f32[64,64]{1,0} parameter(1)
  %begin = (s32[]{:T(128)}, bf16[4,64]{1,0}) tuple(%from, %w.1)
  %while.1 = (s32[]{:T(128)}, bf16[4,64]{1,0}) while(%begin), condition=%condition, body=%body
  %fusion.4 = f32[4,64]{1,0} fusion(%g), kind=kCustom, calls=%scattered, ELEMENTWISE
  %moved = bf16[4,64]{1,0} collective-permute-start(%w.1), source_target_pairs={{0,1},{1,0}}
  ROOT %all-reduce.6 = f32[64,64]{1,0} all-reduce(%g), channel_id=6, replica_groups={{0,1},{2,3}}
}
"""


def test_a_program():
    text = TEXT
    for name, cycles in (("PRODUCT", 1000), ("COPY", 10), ("ELEMENTWISE", 7)):
        text = text.replace(name, CYCLES.format(cycles))
    found = read(text)
    assert found.cycles == {"products": 10_000, "copies": 100, "elementwise": 7}
    told = {(one.kind, one.synchronous): (one.times, one.bytes) for one in found.collectives}
    matrix = 64 * 64
    assert told == {
        # Ten trips, each gather once though it stands in two fusions.
        ("all-gather", False): (10, 10 * 2 * matrix),
        # Only its part is kept.
        ("reduce-scatter", True): (1, 4 * matrix),
        ("collective-permute", False): (1, 2 * 4 * 64),
        ("all-reduce", True): (1, 2 * 4 * matrix),
    }
    assert found.arrays[0][:2] == (4 * matrix, "f32[64,64]")


def test_sizes_and_groups():
    assert size_of("(bf16[2,3]{1,0:T(8,128)(2,1)}, pred[5], s4[3])") == 12 + 5 + 2
    assert group("[2,4]<=[8]", 8) == [0, 1, 2, 3]
    assert group("[4,2]<=[2,4]T(1,0)", 8) == [0, 4]
    assert group("{{0,3},{3,0}}", 4) == [0, 3]
    assert group("{{4,5,6},{0,1,2}}", 8) == [4, 5, 6]
    assert group("mesh['axis_0'=2,'axis_1'=3] {'axis_0'}", 6) == [0, 3]
    assert group("", 3) == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "shape", "slices", "accelerator"),
    [
        ("v5e-256", "v5e:16x16", 1, "v5litepod-256"),
        ("v5p-128", "v5p:4x4x4", 1, "v5p-128"),
        ("2xv6e-16", "v6e:4x4", 2, "v6e-16"),
        ("v4:2x2x4", "v4:2x2x4", 1, "v4-32"),
    ],
)
def test_topologies(name, shape, slices, accelerator):
    found = topologies.topology(name)
    assert (found.shape, found.slices, found.accelerator) == (shape, slices, accelerator)


@pytest.mark.parametrize("name", ["v9-1", "v5e", "v5e-3", "0xv5e-4", "v5e-²", "", "v5e-256x"])
def test_no_topology(name):
    with pytest.raises(ConfigError, match=r"no topology .*; known: "):
        topologies.topology(name)
