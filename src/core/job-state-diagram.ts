/** Prints the table of job states as a Mermaid diagram, for docs/states.md. */

import { JOB_TRANSITIONS, NEXT_JOB_STATE, type JobTransition } from "./job-state.ts";
import { FINAL_JOB_STATES, JOB_STATES, type JobState } from "./job.ts";

/** One arrow for each pair of states, labelled with every transition that leads along it. */
export function jobStateDiagram(): string {
  const lines = ["stateDiagram-v2", "  [*] --> pending: queue"];
  for (const from of JOB_STATES) {
    for (const [to, transitions] of arrowsFrom(from))
      lines.push(`  ${from} --> ${to}: ${transitions.join(", ")}`);
  }
  for (const state of FINAL_JOB_STATES) lines.push(`  ${state} --> [*]`);
  return `${lines.join("\n")}\n`;
}

function arrowsFrom(from: JobState): Map<JobState, JobTransition[]> {
  const arrows = new Map<JobState, JobTransition[]>();
  for (const transition of JOB_TRANSITIONS) {
    const to = NEXT_JOB_STATE[from][transition];
    if (to !== undefined) arrows.set(to, [...(arrows.get(to) ?? []), transition]);
  }
  return arrows;
}
