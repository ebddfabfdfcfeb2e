import assert from "node:assert/strict";
import { test } from "node:test";
import { JOB_TRANSITIONS, nextJobState, type JobTransition } from "./job-state.ts";
import { FINAL_JOB_STATES, isFinal, JOB_STATES, type JobState } from "./job.ts";

/**
 * The whole table once more, written by hand from the design: one row for each state, one column
 * for each transition, "-" where it is refused.
 */
const EXPECTED = `
             assign    start      pause  resume  disconnect  cancel     succeed   fail   time_out  confirm_cancel requeue retry
pending      scheduled -          -      -       -           cancelled  -         failed -         -              -       -
scheduled    -         running    -      -       unreachable cancelling succeeded failed timed_out cancelled      pending -
running      -         -          paused -       unreachable cancelling succeeded failed timed_out cancelled      pending -
paused       -         -          -      running unreachable cancelling succeeded failed timed_out cancelled      pending -
unreachable  -         running    paused -       unreachable cancelling succeeded failed timed_out cancelled      pending -
cancelling   -         cancelling -      -       cancelling  -          succeeded failed timed_out cancelled      pending -
succeeded    -         -          -      -       -           -          -         -      -         -              -       pending
failed       -         -          -      -       -           -          -         -      -         -              -       pending
cancelled    -         -          -      -       -           -          -         -      -         -              -       pending
timed_out    -         -          -      -       -           -          -         -      -         -              -       pending
`;

const expectedTable = readTable(EXPECTED);

for (const state of JOB_STATES) {
  test(`every transition from ${state} leads where the design says, or is refused`, () => {
    for (const transition of JOB_TRANSITIONS) {
      const expected = expectedTable.get(`${state} ${transition}`);
      assert.ok(expected, `no cell for ${state} ${transition}`);
      const change = nextJobState(state, transition);
      assert.deepEqual(
        change,
        expected === "-" ? { ok: false, state, transition } : { ok: true, state: expected },
        `${state} ${transition}`,
      );
    }
  });
}

test("a final state is left by a retry and by nothing else", () => {
  for (const state of FINAL_JOB_STATES) {
    const leaving = JOB_TRANSITIONS.filter((transition) => nextJobState(state, transition).ok);
    assert.deepEqual(leaving, ["retry"], state);
  }
});

test("every state can be reached from pending, and every state can reach a final one", () => {
  assert.deepEqual([...reachableFrom("pending")].toSorted(), [...JOB_STATES].toSorted());
  for (const state of JOB_STATES) {
    assert.ok([...reachableFrom(state)].some(isFinal), state);
  }
});

test("every state with processes accepts each way to end", () => {
  const ends: JobTransition[] = ["succeed", "fail", "time_out", "confirm_cancel"];
  for (const state of ["scheduled", "running", "paused", "unreachable", "cancelling"] as const) {
    for (const end of ends) assert.ok(nextJobState(state, end).ok, `${state} ${end}`);
  }
});

function readTable(text: string): Map<string, JobState | "-"> {
  const [header = [], ...rows] = text
    .trim()
    .split("\n")
    .map((line) => line.trim().split(/\s+/));
  const cells = new Map<string, JobState | "-">();
  for (const [state = "", ...targets] of rows) {
    assert.equal(targets.length, header.length, state);
    targets.forEach((target, index) => cells.set(`${state} ${header[index]}`, target as JobState | "-"));
  }
  assert.equal(cells.size, JOB_STATES.length * JOB_TRANSITIONS.length);
  return cells;
}

function reachableFrom(start: JobState): Set<JobState> {
  const seen = new Set<JobState>([start]);
  for (const state of seen) {
    for (const transition of JOB_TRANSITIONS) {
      const change = nextJobState(state, transition);
      if (change.ok) seen.add(change.state);
    }
  }
  return seen;
}
