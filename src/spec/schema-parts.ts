/** What the schemas of job files and pool files have in common. */

import { z } from "zod";
import { formatDurationMs } from "../base/quantities.ts";
import { DURATION_EXAMPLES, parseDurationMs } from "./quantities.ts";

export const SECOND_MS = 1_000;
export const DAY_MS = 86_400_000;
export const YEAR_MS = 365 * DAY_MS;
export const CONTROL_CHARACTERS = /[\u0000-\u001f\u007f]/;
const LABEL_KEY = /^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$/;

export function duration(limits: { minMs: number; maxMs: number }) {
  return z
    .union([z.number(), z.string()], { error: `must be a duration: ${DURATION_EXAMPLES}` })
    .transform((value, context) => {
      const durationMs = parseDurationMs(value);
      if (durationMs !== null && durationMs >= limits.minMs && durationMs <= limits.maxMs) return durationMs;
      const range = `${formatDurationMs(limits.minMs)} to ${formatDurationMs(limits.maxMs)}`;
      const problem = durationMs === null ? `is not a duration: ${DURATION_EXAMPLES}` : `must be ${range}`;
      context.addIssue({ code: "custom", message: `${JSON.stringify(value)} ${problem}` });
      return z.NEVER;
    });
}

export function quantity(options: {
  parse: (value: string | number) => number | null;
  min?: number;
  max: number;
  what: string;
  examples: string;
}) {
  const { parse, min = 0, max, what, examples } = options;
  return z
    .union([z.number(), z.string()], { error: `must be ${what}: ${examples}` })
    .transform((value, context) => {
      const parsed = parse(value);
      if (parsed !== null && parsed >= min && parsed <= max) return parsed;
      const range = parsed !== null && parsed < min ? "is too small" : "is too large";
      const problem = parsed === null ? `is not ${what}: ${examples}` : range;
      context.addIssue({ code: "custom", message: `${JSON.stringify(value)} ${problem}` });
      return z.NEVER;
    });
}

/** Numbers and booleans are taken as the text that they are written with. */
export const textValue = z
  .union([z.string(), z.number(), z.boolean()], { error: 'must be text (write "" for none)' })
  .transform(String);

export const labels = z
  .record(
    z
      .string()
      .max(128, "must have 128 characters at most")
      .regex(LABEL_KEY, "must be letters, digits and . _ / - and begin and end with a letter or digit"),
    textValue.refine((text) => text.length <= 256 && !CONTROL_CHARACTERS.test(text), {
      error: "must be one line of 256 characters at most",
    }),
    { error: "must be a mapping of names to values" },
  )
  .refine((map) => Object.keys(map).length <= 64, { error: "must have 64 entries at most" });

export const name = z
  .string("must be text")
  .min(1, "must not be empty")
  .max(200, "must have 200 characters at most")
  .refine((text) => !CONTROL_CHARACTERS.test(text), { error: "must be one line" });

export function wholeNumber(min: number, max: number) {
  const message = `must be a whole number from ${min} to ${max}`;
  return z.number(message).int(message).min(min, message).max(max, message);
}

/** Of a file with one thing, a mapping with a list of them, or the list. */
export function fileJsonSchema(
  schema: z.ZodType,
  file: { title: string; noun: string; listKey: string },
): Record<string, unknown> {
  const whole = z.toJSONSchema(schema, { io: "input", target: "draft-2020-12", reused: "ref" });
  const { $schema, $defs, ...shape } = whole as Record<string, unknown>;
  const one = { $ref: `#/$defs/${file.noun}` };
  const list = { type: "array", items: one, minItems: 1 };
  const properties = { [file.listKey]: list };
  return {
    $schema,
    title: file.title,
    anyOf: [one, { type: "object", properties, required: [file.listKey], additionalProperties: false }, list],
    $defs: { ...($defs as Record<string, unknown> | undefined), [file.noun]: shape },
  };
}
