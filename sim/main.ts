/** `npm run sim`: many seeds, one seed with its trace, or the planted bugs. */

import { join } from "node:path";
import { parseArgs } from "node:util";
import { runSeed } from "./cluster.ts";
import { runMutations } from "./run-mutations.ts";
import { report, runSeeds } from "./run-seeds.ts";

const USAGE = `Simulates whole clusters, each drawn from a seed, and checks that nothing is lost or done twice.

  npm run sim -- --seeds 1000          seeds 1 to 1000
  npm run sim -- --seeds 1000 --from 5001
  npm run sim -- --seed 42             one seed, with all that happens in it
  npm run sim -- --mutations           plants bugs, and expects that each is found
                 --seeds 8000          … within so many seeds
                 --only NAME           … this one

  --processes N                        how many processes share the seeds; 2 by default
`;

const { values } = parseArgs({
  options: {
    seeds: { type: "string" },
    from: { type: "string", default: "1" },
    seed: { type: "string" },
    processes: { type: "string", default: "2" },
    mutations: { type: "boolean", default: false },
    only: { type: "string" },
    help: { type: "boolean", default: false },
  },
});
const directory = join(import.meta.dirname, "..");
const processes = wholeNumber("processes", values.processes);

if (values.help) {
  console.log(USAGE);
} else if (values.mutations) {
  const maxSeeds = wholeNumber("seeds", values.seeds ?? "8000");
  const areCaught = await runMutations({ directory, maxSeeds, processes, only: values.only ?? null });
  process.exitCode = areCaught ? 0 : 1;
} else if (values.seed !== undefined) {
  process.exitCode = (await showSeed(wholeNumber("seed", values.seed))) ? 0 : 1;
} else {
  const count = wholeNumber("seeds", values.seeds ?? "1000");
  const from = wholeNumber("from", values.from);
  process.exitCode = (await runSeeds({ directory, from, count, processes })) ? 0 : 1;
}

async function showSeed(seed: number): Promise<boolean> {
  const run = await runSeed(seed, (line) => console.log(line));
  console.log(`trace ${run.traceHash}, ${run.events} events`);
  if (run.violation) report({ seed, violation: run.violation, lastLines: [] });
  return run.violation === null;
}

function wholeNumber(name: string, text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value > 0) return value;
  console.error(`--${name} must be a whole number above 0, and is ${text}`);
  process.exit(2);
}
