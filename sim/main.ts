/** `npm run sim`: runs seeds, or one of them with its trace. */

import { runSeed } from "./cluster.ts";
import { RULES } from "./rules.ts";

const seed = Number(process.argv[2] ?? 1);
const count = Number(process.argv[3] ?? 1);
const showTrace = process.argv.includes("--trace");
let events = 0;
let virtualMs = 0;
let failures = 0;
for (let next = seed; next < seed + count; next += 1) {
  const result = await runSeed(next, showTrace ? (line) => console.log(line) : null);
  events += result.events;
  virtualMs += result.virtualMs;
  if (result.violation) {
    failures += 1;
    console.log(`seed ${next}: ${RULES[result.violation.rule]}: ${result.violation.details}`);
  }
}
console.log({ events, virtualMs, failures, cpu: process.cpuUsage().user / 1000 / count });
