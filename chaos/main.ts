/** `npm run chaos`: breaks a real cluster, and checks that no job was lost or run twice. */

import { parseArgs } from "node:util";
import { errorMessage } from "../src/base/errors.ts";
import { stormJson, stormText } from "./report.ts";
import { SCENARIOS } from "./scenarios/scenario-list.ts";
import { runStorm, type StormOptions } from "./storm.ts";

const USAGE = `usage: npm run chaos -- [options]
  --minutes M        a storm of M minutes in all, about
  --faults F         at least so many faults (200), together with
  --jobs J           at least so many jobs (2000)
  --seed S           repeats the draws of an earlier storm (1)
  --only PART,…      only faults with one of these in their name
  --scenario NAME    one long scenario instead of the storm; "list" names them
  --short            the scenario in about a minute
  --output json      the result as one JSON object`;

/** The rest of the time that `--minutes` gives is for the jobs to end and for the check. */
const CALM_PART = 0.3;
const SHORT_FAULT_INTERVAL_MS = 3_000;
const LONG_FAULT_INTERVAL_MS = 5_000;

process.exitCode = await main(process.argv.slice(2)).catch((error: unknown) => {
  console.error(`chaos: ${error instanceof Error ? (error.stack ?? error.message) : errorMessage(error)}`);
  return 2;
});
// A connection that is kept alive shall not keep this process.
process.exit();

async function main(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      minutes: { type: "string" },
      faults: { type: "string" },
      jobs: { type: "string" },
      seed: { type: "string" },
      only: { type: "string" },
      scenario: { type: "string" },
      short: { type: "boolean" },
      output: { type: "string" },
      help: { type: "boolean" },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  if (values.scenario !== undefined) return runScenario(values.scenario, values.short ?? false);
  const result = await runStorm(stormOptions(values));
  console.log(values.output === "json" ? stormJson(result) : stormText(result));
  return result.violations.length === 0 ? 0 : 1;
}

function stormOptions(values: {
  minutes?: string;
  faults?: string;
  jobs?: string;
  seed?: string;
  only?: string;
}): StormOptions {
  const { minutes } = values;
  const isTimed = minutes !== undefined;
  return {
    seed: toCount(values.seed ?? "1", "--seed"),
    durationMs: isTimed ? Number(minutes) * 60_000 * (1 - CALM_PART) : null,
    faults: isTimed ? null : toCount(values.faults ?? "200", "--faults"),
    jobs: isTimed ? null : toCount(values.jobs ?? "2000", "--jobs"),
    only: values.only?.split(",") ?? [],
    meanFaultIntervalMs: isTimed ? SHORT_FAULT_INTERVAL_MS : LONG_FAULT_INTERVAL_MS,
    onProgress: (line) => console.error(line),
  };
}

async function runScenario(name: string, isShort: boolean): Promise<number> {
  const scenario = SCENARIOS.find((candidate) => candidate.name === name);
  if (!scenario) {
    console.log(SCENARIOS.map((known) => `${known.name}: ${known.description}`).join("\n"));
    return name === "list" ? 0 : 2;
  }
  const problems = await scenario.run({ isShort, say: (line) => console.log(line) });
  console.log(problems.length === 0 ? `${name}: all is well` : `${name}:\n  ${problems.join("\n  ")}`);
  return problems.length === 0 ? 0 : 1;
}

function toCount(text: string, option: string): number {
  const count = Number(text);
  if (!Number.isSafeInteger(count) || count < 0) throw new Error(`${option} ${text}: not a whole number`);
  return count;
}
