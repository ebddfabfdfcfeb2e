/** Entry of the one-file worker program: all that a worker needs besides Node.js. */

import { useBroughtPrograms } from "./base/brought-programs.ts";
import { AppError, errorMessage } from "./base/errors.ts";
import { AGENT_REFUSED } from "./base/exit-codes.ts";
import { VERSION } from "./base/version.ts";

useBroughtPrograms(process.env["HODEI_PROGRAMS"] ?? "");

const workerProgram = process.argv[1] ?? "";
const part = process.argv[2];
// Each part is evaluated only when it is wanted: the memory of the runner is the price of each
// start of a process, and the agent's gRPC code would double it.
if (part === "agent") {
  const { agentMain } = await import("./agent/main.ts");
  try {
    process.exitCode = await agentMain({ flags: {}, version: VERSION, workerProgram });
  } catch (error) {
    // Its provider tells people the last line.
    console.error(`worker: ${errorMessage(error)}`);
    const isHopeless = error instanceof AppError && error.code === "invalid_argument";
    process.exitCode = isHopeless ? AGENT_REFUSED : 1;
  }
} else if (part === "runner") {
  const { runnerMain } = await import("./runner/main.ts");
  process.exitCode = await runnerMain({ environment: process.env, version: VERSION });
} else if (part === "sweep") {
  const { sweepMain } = await import("./runner/sweep.ts");
  process.exitCode = await sweepMain(process.argv.slice(3));
} else {
  console.error(`worker: say what to run: agent, runner or sweep, not ${JSON.stringify(part ?? "")}`);
  process.exitCode = 2;
}
