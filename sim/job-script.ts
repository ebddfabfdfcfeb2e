/** What the command of a job does: the simulation's stand-in for a shell script. */

export interface JobScript {
  /** The command writes, and waits, so many times. */
  steps: number;
  stepMs: number;
  bytesPerStep: number;
  exitCode: number;
  ignoresTerm: boolean;
  /** How long after SIGTERM it ends. */
  termMs: number;
  /** Leaves a process behind that must be killed. */
  leavesProcesses: boolean;
  /** How long it resists SIGKILL, as in an uninterruptible wait of the kernel. Nearly always 0. */
  unkillableMs: number;
  /** Says how far it is with each step. */
  saysProgress: boolean;
}

/** Scripts travel as the content of the command, as real ones do. */
export function scriptText(script: JobScript): string {
  return JSON.stringify(script);
}

export function parseScript(text: string): JobScript {
  return JSON.parse(text) as JobScript;
}
