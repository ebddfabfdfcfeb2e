/** Plants each bug in a copy of the program and runs seeds until a rule is violated. */

import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkoutRoot } from "../src/base/checkout-root.ts";
import { BatchProcess } from "./batch-process.ts";
import { MUTATIONS, type Mutation } from "./mutations.ts";
import { RULES } from "./rules.ts";

const BATCH_SEEDS = 100;
const BATCH_TIMEOUT_MS = 5 * 60_000;

export interface MutationsRun {
  directory: string;
  maxSeeds: number;
  processes: number;
  only: string | null;
}

/** Returns whether every bug was found. */
export async function runMutations(run: MutationsRun): Promise<boolean> {
  const waiting = MUTATIONS.filter(({ name }) => run.only === null || name === run.only);
  let survivors = 0;
  const work = async (): Promise<void> => {
    const copy = copyProgram(run.directory);
    try {
      for (let mutation = waiting.shift(); mutation; mutation = waiting.shift()) {
        const outcome = await tryMutation(copy, mutation, run.maxSeeds);
        if (outcome === null) survivors += 1;
        console.log(
          `${outcome === null ? "SURVIVED" : "found   "} ${mutation.name}: ${outcome ?? `not within ${run.maxSeeds} seeds`}`,
        );
      }
    } finally {
      rmSync(copy, { recursive: true, force: true });
    }
  };
  const count = waiting.length;
  if (count === 0) throw new Error(`there is no planted bug named ${run.only}`);
  await Promise.all(Array.from({ length: run.processes }, work));
  console.log(`${count - survivors} of ${count} planted bugs were found`);
  return survivors === 0;
}

/** Beside links to what it needs, so that its imports are found. */
function copyProgram(directory: string): string {
  const copy = mkdtempSync(join(tmpdir(), "hodei-sim-"));
  for (const folder of ["src", "sim"]) {
    cpSync(join(directory, folder), join(copy, folder), {
      recursive: true,
      filter: (path) => !path.endsWith(".map") && !path.endsWith(".test.js"),
    });
  }
  writeFileSync(join(copy, "package.json"), JSON.stringify({ type: "module" }));
  symlinkSync(join(checkoutRoot(), "node_modules"), join(copy, "node_modules"));
  return copy;
}

/** How the bug was found, or null. */
async function tryMutation(copy: string, mutation: Mutation, maxSeeds: number): Promise<string | null> {
  const path = join(copy, "src", mutation.file.replace(/\.ts$/, ".js"));
  const original = readFileSync(path, "utf8");
  const parts = original.split(mutation.find);
  if (parts.length !== 2) {
    throw new Error(
      `planted bug "${mutation.name}": its text is ${parts.length - 1} times in ${mutation.file}`,
    );
  }
  writeFileSync(path, parts.join(mutation.replace));
  const batch = new BatchProcess(copy);
  try {
    for (let from = 1; from <= maxSeeds; from += BATCH_SEEDS) {
      const count = Math.min(BATCH_SEEDS, maxSeeds - from + 1);
      const { failures } = await batch.run({ from, count, stopAtFirst: true }, BATCH_TIMEOUT_MS);
      const [first] = failures;
      if (first) return `seed ${first.seed}, ${RULES[first.violation.rule]}`;
    }
    return null;
  } finally {
    batch.close();
    writeFileSync(path, original);
  }
}
