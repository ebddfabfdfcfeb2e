/** The parts of a job file and a pool file that say which worker takes which job. */

import { z } from "zod";
import type { ConcurrencyLimit, PlacementPreference } from "../core/job.ts";
import { TAINT_EFFECTS, type ParsedSelector, type Taint, type Toleration } from "../core/labels.ts";
import {
  joinSelectors,
  parseTaint,
  parseToleration,
  requirementsOf,
  TAINT_EXAMPLES,
  TOLERATION_EXAMPLES,
} from "./placement-texts.ts";
import type { ValuePath } from "./problem.ts";
import { CONTROL_CHARACTERS, labels, name, textValue, wholeNumber } from "./schema-parts.ts";

/** Texts that `parse` turns into a value or into what is wrong with them. */
function parsed<Value extends object>(parse: (text: string) => Value | string) {
  return (text: string, context: z.core.$RefinementCtx): Value => {
    const value = parse(text);
    if (typeof value !== "string") return value;
    context.addIssue({ code: "custom", message: value });
    return z.NEVER;
  };
}

const selectorText = z.string("must be text").transform(parsed((text) => joinSelectors([text])));

const selectorList = z
  .array(z.string("must be text"), { error: "must be a list of conditions" })
  .max(64, "must have 64 entries at most")
  .transform((texts, context): ParsedSelector => parsed(() => joinSelectors(texts))("", context));

export const selector = z.union(
  [
    labels.transform((map): ParsedSelector => ({ selector: map, expressions: [] })),
    selectorText,
    selectorList,
  ],
  { error: "must be a mapping of labels, or text such as os=linux,zone in (a,b),!spot" },
);

const effect = z.enum(TAINT_EFFECTS, { error: `must be one of ${TAINT_EFFECTS.join(", ")}` });
const taintKey = z.string("must be text").min(1, "must not be empty").max(128, "is too long");
const taintValue = textValue.refine((text) => text.length <= 256 && !CONTROL_CHARACTERS.test(text), {
  error: "must be one line of 256 characters at most",
});

const tolerationMapping = z
  .strictObject(
    {
      key: taintKey.optional().describe("The name of the taint; any if it is left out"),
      value: taintValue.optional().describe("Its value; any if it is left out"),
      effect: effect.optional().describe("Its effect; any if it is left out"),
    },
    { error: "must be text or a mapping" },
  )
  .refine(({ key, value }) => value === undefined || key !== undefined, {
    error: "a toleration of a value needs the name of the taint",
  })
  .transform(({ key, value, effect: only }): Toleration => {
    const operator = value === undefined ? "exists" : "equal";
    return { key: key ?? "", operator, value: value ?? "", effect: only ?? null };
  });

export const tolerations = z
  .array(
    z.union([z.string("must be text").transform(parsed(parseToleration)), tolerationMapping], {
      error: `must be a toleration: ${TOLERATION_EXAMPLES}`,
    }),
    { error: `must be a list of tolerations: ${TOLERATION_EXAMPLES}` },
  )
  .max(64, "must have 64 entries at most");

const taintMapping = z
  .strictObject(
    { key: taintKey, value: taintValue.optional(), effect },
    { error: "must be text or a mapping" },
  )
  .transform((taint): Taint => ({ key: taint.key, value: taint.value ?? "", effect: taint.effect }));

export const taints = z
  .array(
    z.union([z.string("must be text").transform(parsed(parseTaint)), taintMapping], {
      error: `must be a taint: ${TAINT_EXAMPLES}`,
    }),
    { error: `must be a list of taints: ${TAINT_EXAMPLES}` },
  )
  .max(64, "must have 64 entries at most");

export const capabilities = z
  .array(z.string("must be text").min(1, "must not be empty").max(64, "must have 64 characters at most"), {
    error: "must be a list of what the worker can do, such as pause",
  })
  .max(64, "must have 64 entries at most");

const preferenceMapping = z
  .strictObject(
    {
      weight: wholeNumber(-100, 100).describe("What a worker that fulfils it gains; below 0 it is avoided"),
      selector: selector.optional().describe("For workers with such labels"),
      jobLabels: labels.optional().describe("For workers that run a job with these labels"),
    },
    { error: "must be a mapping with weight, and selector or jobLabels" },
  )
  .refine((preference) => (preference.selector === undefined) !== (preference.jobLabels === undefined), {
    error: "must have exactly one of selector and jobLabels",
  })
  .transform((preference): PlacementPreference => ({
    weight: preference.weight,
    workerLabels: preference.selector ? requirementsOf(preference.selector) : [],
    jobLabels: preference.jobLabels ?? {},
  }));

export const preferences = z
  .array(preferenceMapping, { error: "must be a list of preferences" })
  .max(64, "must have 64 entries at most");

export const concurrency = z.union(
  [
    name.transform((key): ConcurrencyLimit => ({ key, limit: 1 })),
    z
      .strictObject(
        {
          key: name.describe("Names what the jobs share, such as deploy-production"),
          limit: wholeNumber(1, 100_000).optional().describe("At most so many at a time; 1 by default"),
        },
        { error: "must be a key, or a mapping with key and limit" },
      )
      .transform(({ key, limit }): ConcurrencyLimit => ({ key, limit: limit ?? 1 })),
  ],
  { error: "must be a key, or a mapping with key and limit" },
);

const KNOWN_KEYS = {
  tolerations: ["key", "value", "effect"],
  taints: ["key", "value", "effect"],
  preferences: ["weight", "selector", "jobLabels"],
  concurrency: ["key", "limit"],
} as const;

/** Null if the path leads to none of these. */
export function knownPlacementKeys([first]: ValuePath): readonly string[] | null {
  return Object.entries(KNOWN_KEYS).find(([key]) => key === first)?.[1] ?? null;
}
