/** Options of `run` and `submit` that say which worker may take the job, and which is better. */

import type { Command } from "commander";
import type { ConcurrencyLimit, JobDefinition } from "../core/job.ts";
import {
  TOLERATION_EXAMPLES,
  joinSelectors,
  parsePreference,
  parseToleration,
} from "../spec/placement-texts.ts";
import {
  collect,
  flagOption,
  invalidOption,
  textOption,
  textsOption,
  wholeNumberOption,
} from "./option-values.ts";

export function addPlacementOptions(command: Command): void {
  command
    .option(
      "--selector <expression>",
      "what the labels of the worker must be, such as os=linux,zone in (a,b),!spot (repeatable)",
      collect,
    )
    .option(
      "--toleration <taint>",
      `taint that the job accepts: ${TOLERATION_EXAMPLES} (repeatable)`,
      collect,
    )
    .option("--capability <name>", "what the worker must be able to do, such as pause (repeatable)", collect)
    .option(
      "--prefer <expression:weight>",
      "workers that are better, or below 0 worse, such as zone=a:50 (repeatable)",
      collect,
    )
    .option("--concurrency-key <key>", "jobs with this key run one at a time")
    .option("--concurrency-limit <number>", "as many jobs with the key at a time")
    .option("--preemptible", "the job may be ended and queued again for one with a higher priority")
    .option("--accept-unplaceable", "queue the job even if no worker and no pool could ever take it");
}

type Placement = Pick<
  JobDefinition,
  | "selector"
  | "selectorExpressions"
  | "tolerations"
  | "capabilities"
  | "preferences"
  | "concurrency"
  | "preemptible"
>;

/** Conditions are added to those of the file; for a label with one value the option counts. */
export function placementOptions(definition: JobDefinition, options: Record<string, unknown>): Placement {
  const given = checked("--selector", joinSelectors(textsOption(options, "selector")));
  const tolerations = textsOption(options, "toleration");
  const preferences = textsOption(options, "prefer");
  return {
    selector: { ...definition.selector, ...given.selector },
    selectorExpressions: [...definition.selectorExpressions, ...given.expressions],
    tolerations: [
      ...definition.tolerations,
      ...tolerations.map((text) => checked("--toleration", parseToleration(text))),
    ],
    capabilities: [...new Set([...definition.capabilities, ...textsOption(options, "capability")])],
    preferences: [
      ...definition.preferences,
      ...preferences.map((text) => checked("--prefer", parsePreference(text))),
    ],
    concurrency: concurrencyOption(definition.concurrency, options),
    preemptible: flagOption(options, "preemptible") || definition.preemptible,
  };
}

function concurrencyOption(
  fromFile: ConcurrencyLimit | null,
  options: Record<string, unknown>,
): ConcurrencyLimit | null {
  const key = textOption(options, "concurrencyKey") ?? fromFile?.key;
  const rule = { option: "--concurrency-limit", min: 1, max: 100_000 };
  const limit = wholeNumberOption(options, "concurrencyLimit", rule);
  if (key === undefined) {
    if (limit === undefined) return null;
    throw invalidOption("--concurrency-limit", "there is no key that it is for", "add --concurrency-key KEY");
  }
  const sameLimit = fromFile?.key === key ? fromFile.limit : 1;
  return { key, limit: limit ?? sameLimit };
}

function checked<Value extends object>(option: string, value: Value | string): Value {
  if (typeof value === "string") throw invalidOption(option, value);
  return value;
}
