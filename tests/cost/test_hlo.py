"""Collectives of programs written by hand, whose sizes can be counted."""

import pytest

from diffux.cost import collectives, of_activations

MODULE = """HloModule jit_step, is_scheduled=true, entry_computation_layout={{()->f32[]}}, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {{
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}}

{computations}
ENTRY %main.1_spmd (p: f32[4,8]) -> f32[4,8] {{
  %p = f32[4,8]{{1,0:T(8,128)}} parameter(0)
{entry}
}}
"""


def program(entry, computations=""):
    return MODULE.format(entry=entry, computations=computations)


SYNCHRONOUS = [
    # (text, kind, whole arrays, group, bytes, sent by each device)
    ("%r = f32[4,8]{1,0:T(8,128)S(1)} all-reduce(%p), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add",
     "all-reduce", (("f32", (4, 8)),), 4, 128, 2 * 3 / 4 * 128),
    ("%r = (f32[2]{0}, /*index=1*/bf16[3]{0}, pred[]) all-reduce(%p, %p, %p), replica_groups={}, to_apply=%add",
     "all-reduce", (("f32", (2,)), ("bf16", (3,)), ("pred", ())), 8, 8 + 6 + 1, 2 * 7 / 8 * 15),
    ("%r = bf16[16,8]{1,0} all-gather(%p), replica_groups=[1,8]<=[8], dimensions={0}",
     "all-gather", (("bf16", (16, 8)),), 8, 256, 7 / 8 * 256),
    ("%r = f32[2,4]{1,0} reduce-scatter(%p), replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}, to_apply=%add",
     "reduce-scatter", (("f32", (8, 4)),), 4, 128, 3 / 4 * 128),
    ("%r = s32[8,2]{1,0} all-to-all(%p), replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_1'}, dimensions={0}",
     "all-to-all", (("s32", (8, 2)),), 2, 64, 1 / 2 * 64),
    ("%r = f32[8]{0} all-gather(%p), replica_groups=mesh['axis_0'=8] {'axis_0':(2)4}, dimensions={0}",
     "all-gather", (("f32", (8,)),), 4, 32, 3 / 4 * 32),
    ("%r = u8[5]{0} collective-permute(%p), source_target_pairs={{0,1},{1,0}}",
     "collective-permute", (("u8", (5,)),), 2, 5, 5),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "shapes", "group", "size", "sent"), SYNCHRONOUS, ids=[line[1] for line in SYNCHRONOUS])
def test_one_collective(text, kind, shapes, group, size, sent):
    (found,) = collectives(program(f"  ROOT {text}"))
    assert (found.kind, found.shapes, found.group, found.times) == (kind, shapes, group, 1)
    assert found.bytes == size
    assert found.sent == pytest.approx(sent)


def test_what_starts_and_finishes_counts_once():
    found = collectives(program("""  %s = (f32[4,8], f32[32,8]) all-gather-start(%p), replica_groups={{0,1,2,3}}, dimensions={0}
  %d = f32[32,8]{1,0} all-gather-done(%s)
  %r = f32[4,8] all-reduce-start(%p), replica_groups={}, to_apply=%add
  %t = f32[4,8] all-reduce-done(%r)
  %c = (f32[4], f32[4], u32[], u32[]) collective-permute-start(%p), source_target_pairs={{0,1}}
  %e = f32[4] collective-permute-done(%c)
  %x = ((f32[8], f32[2]), (f32[8], f32[2]), u32[]) all-to-all-start(%p, %p), replica_groups={}
  ROOT %y = (f32[8], f32[2]) all-to-all-done(%x)"""))
    assert [(one.kind, one.bytes) for one in found] == [
        ("all-gather", 1024), ("all-reduce", 128), ("collective-permute", 16), ("all-to-all", 40)]  # fmt: skip


def test_a_computation_started_asynchronously_is_entered():
    computation = """%wrapped (q: f32[16]) -> f32[2] {
  %q = f32[16] parameter(0)
  ROOT %s = f32[2] reduce-scatter(%q), replica_groups={}, dimensions={0}, to_apply=%add
}
"""
    found = collectives(program("""  %a = ((f32[16]), f32[2], u32[]) async-start(%p), calls=%wrapped
  ROOT %b = f32[2] async-done(%a)""", computation))
    assert [(one.kind, one.shapes) for one in found] == [("reduce-scatter", (("f32", (16,)),))]


LOOP = """%body (t: (s32[], f32[4])) -> (s32[], f32[4]) {
  %t = (s32[], f32[4]) parameter(0)
  %r = f32[4] all-reduce(%t), replica_groups={}, to_apply=%add
  ROOT %u = (s32[], f32[4]) tuple(%t, %r)
}

%until (v: (s32[], f32[4])) -> pred[] {
  %v = (s32[], f32[4]) parameter(0)
  %limit = s32[]{:T(128)} constant(LIMIT)
  %i = s32[] get-tuple-element(%v), index=0
  ROOT %c = pred[] compare(%i, %limit), direction=LT
}
"""


@pytest.mark.parametrize(
    ("condition", "noted", "times", "known"),
    [
        (LOOP.replace("LIMIT", "7"), "", 7, True),
        (LOOP.replace("LIMIT", "7"), ', backend_config={"known_trip_count":{"n":"12"}}', 12, True),
        (LOOP.replace("constant(LIMIT)", "parameter(1)"), "", 1, False),
    ],
)
def test_a_loop_counts_as_often_as_it_turns(condition, noted, times, known):
    loop = f"  ROOT %w = (s32[], f32[4]) while(%p), condition=%until, body=%body{noted}"
    (found,) = collectives(program(loop, condition))
    assert (found.times, found.known, found.bytes) == (times, known, 16 * times)


def test_loops_within_loops_multiply():
    outer = LOOP.replace("LIMIT", "3").replace("%body", "%turn").replace("%until", "%done")
    outer = outer.replace("f32[4] all-reduce(%t), replica_groups={}, to_apply=%add",
                          "(s32[], f32[4]) while(%t), condition=%until, body=%body")  # fmt: skip
    (found,) = collectives(program("  ROOT %w = (s32[], f32[4]) while(%p), condition=%done, body=%turn",
                                   LOOP.replace("LIMIT", "5") + "\n" + outer))  # fmt: skip
    assert found.times == 15


FUSED = """%all-reduce-scatter.2 (input: f32[16,8]) -> f32[4,8] {
  %input = f32[16,8] parameter(0)
  %all-reduce.1 = f32[16,8] all-reduce(%input), channel_id=2, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  %id = u32[] partition-id()
  ROOT %slice = f32[4,8] dynamic-slice(%all-reduce.1, %id), dynamic_slice_sizes={4,8}
}

%begin (a: bf16[2]) -> (bf16[2], bf16[16]) {
  %a = bf16[2] parameter(0)
  %g.1 = bf16[16] all-gather(%a), channel_id=5, replica_groups={}, dimensions={0}
  ROOT %o = (bf16[2], bf16[16]) tuple(%a, %g.1)
}

%async_collective_fusion.3 (b: bf16[2]) -> bf16[16] {
  %b = bf16[2] parameter(0)
  ROOT %g.2 = bf16[16] all-gather(%b), channel_id=5, replica_groups={}, dimensions={0}
}
"""


def test_fusions_of_tpus():
    """A fused all-reduce and slice is a reduce-scatter, and the parts of an overlapped all-gather are one."""
    found = collectives(program("""  %f = f32[4,8] fusion(%p), kind=kCustom, calls=%all-reduce-scatter.2
  %async-collective-start = (bf16[2], bf16[16]) fusion(%p), kind=kCustom, calls=%begin
  %fusion.9 = bf16[16] fusion(%async-collective-start), kind=kOutput, calls=%async_collective_fusion.3
  ROOT %async-collective-done = bf16[16] fusion(%fusion.9), kind=kCustom, calls=%async_collective_fusion.3""", FUSED))
    assert [(one.kind, one.shapes, one.group) for one in found] == [
        ("reduce-scatter", (("f32", (16, 8)),), 4), ("all-gather", (("bf16", (16,)),), 8)]  # fmt: skip


def test_two_gathers_of_one_channel_are_two():
    """Within one shard_map every collective may carry the same channel."""
    gather = "f32[8] all-gather(%p), channel_id=1, replica_groups={}, dimensions={0}"
    assert len(collectives(program(f"  %a = {gather}\n  ROOT %b = {gather}"))) == 2


def test_gathers_of_whole_batches():
    found = collectives(program("""  %a = f32[64,4,4,8] all-gather(%p), replica_groups={}, dimensions={0}
  %b = f32[64,32] all-gather(%p), replica_groups={}, dimensions={1}
  %c = f32[3,3,64] all-gather(%p), replica_groups={}, dimensions={2}
  %d = f32[64,2] all-reduce(%p), replica_groups={}, to_apply=%add
  ROOT %e = f32[64,5] all-to-all(%p), replica_groups={}, dimensions={0}"""))
    assert [one.shapes[0][1] for one in of_activations(found, 64, [(64, 32)])] == [(64, 4, 4, 8), (64, 5)]
