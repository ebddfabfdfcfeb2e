/** Entry of the one-file worker program: all that a worker needs besides Node.js. */

import { agentMain } from "./agent/main.ts";
import { VERSION } from "./base/version.ts";
import { runnerMain } from "./runner/main.ts";

const workerProgram = process.argv[1] ?? "";
const part = process.argv[2];
if (part === "agent") {
  process.exitCode = await agentMain({ flags: {}, version: VERSION, workerProgram });
} else if (part === "runner") {
  process.exitCode = await runnerMain({ environment: process.env, version: VERSION });
} else {
  console.error(`worker: say what to run: agent or runner, not ${JSON.stringify(part ?? "")}`);
  process.exitCode = 2;
}
