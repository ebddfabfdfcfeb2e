/** The command line's environment in a real process. */

import { isatty } from "node:tty";
import { systemClock } from "../base/clock.ts";
import { systemRandom } from "../base/random.ts";
import { listenForSignals } from "../base/signals.ts";
import type { CliEnvironment } from "./environment.ts";

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
    onInterruption: (listener) => listenForSignals(systemClock, listener),
  };
}
