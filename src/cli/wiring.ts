/** The command line's environment in a real process. */

import { isatty } from "node:tty";
import { systemClock } from "../base/clock.ts";
import { systemRandom } from "../base/random.ts";
import type { CliEnvironment, Interruption } from "./environment.ts";

export function processEnvironment(
  parts: Pick<CliEnvironment, "version" | "startEmbeddedServer" | "processCommands">,
): CliEnvironment {
  const { stdout, stderr } = process;
  return {
    ...parts,
    stdout,
    stderr,
    // Opening standard input costs time and can fail; few commands read it.
    get stdin() {
      return process.stdin;
    },
    isTty: { stdin: isatty(0), stdout: isatty(1), stderr: isatty(2) },
    variables: process.env,
    cwd: process.cwd(),
    uid: process.getuid?.(),
    clock: systemClock,
    random: systemRandom,
    onInterruption: listenForSignals,
  };
}

function listenForSignals(listener: (signal: Interruption) => void): () => void {
  const signals: Interruption[] = ["SIGINT", "SIGTERM"];
  for (const signal of signals) process.on(signal, listener);
  return () => {
    for (const signal of signals) process.off(signal, listener);
  };
}
