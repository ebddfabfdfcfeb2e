/** What zod found, in words that say what to do. */

import type { z } from "zod";
import { closestName } from "./closest-name.ts";
import type { RuleBreach } from "./job-rules.ts";
import type { ValuePath } from "./problem.ts";

export interface SchemaBreach extends RuleBreach {
  /** The problem is the key at the end of the path, not its value. */
  isKey: boolean;
}

/** The keys that the mapping at a path may have. */
export type KnownKeys = (path: ValuePath) => readonly string[];

export function explainIssues(error: z.ZodError, whole: unknown, knownKeys: KnownKeys): SchemaBreach[] {
  return error.issues.flatMap((issue) => explainIssue(issue, whole, knownKeys));
}

function explainIssue(issue: z.core.$ZodIssue, whole: unknown, knownKeys: KnownKeys): SchemaBreach[] {
  const path = issue.path.map((part) => (typeof part === "number" ? part : String(part)));
  if (issue.code === "unrecognized_keys")
    return issue.keys.map((key) => unknownKey(path, key, knownKeys(path)));
  if (issue.code === "invalid_key") {
    const message = `is not a possible name: ${issue.issues[0]?.message ?? "invalid"}`;
    return [{ path, message, hint: "", isKey: true }];
  }
  if (issue.code === "invalid_union") {
    const inner = innerIssues(issue, valueAt(whole, path));
    if (inner.length > 0)
      return inner.flatMap((deeper) =>
        explainIssue({ ...deeper, path: [...issue.path, ...deeper.path] }, whole, knownKeys),
      );
  }
  const value = valueAt(whole, path);
  const isShown =
    issue.code === "invalid_type" || issue.code === "invalid_union" || issue.code === "invalid_value";
  const found = isShown ? `, not ${describe(value)}` : "";
  return [{ path, message: `${issue.message}${found}`, hint: "", isKey: false }];
}

/**
 * A union fails as a whole, but a list meant as a command should be told which item is wrong, and
 * a text what is wrong with the text: the branch of the value's own kind is the one that was meant.
 */
function innerIssues(issue: z.core.$ZodIssueInvalidUnion, value: unknown): z.core.$ZodIssue[] {
  const isPlain = typeof value === "string" || (typeof value === "object" && value !== null);
  if (!isPlain) return [];
  const meant = issue.errors.find(
    (branch) => !branch.some((inner) => inner.path.length === 0 && inner.code === "invalid_type"),
  );
  return meant ?? [];
}

function unknownKey(path: ValuePath, key: string, known: readonly string[]): SchemaBreach {
  const close = closestName(key, known);
  const others = known.length === 0 ? "there are no keys here" : `known keys are ${known.join(", ")}`;
  const hint = close === null ? others : `did you mean \`${close}\`?`;
  return { path: [...path, key], message: `unknown key \`${key.slice(0, 100)}\``, hint, isKey: true };
}

function valueAt(whole: unknown, path: ValuePath): unknown {
  let value = whole;
  for (const part of path) {
    if (typeof value !== "object" || value === null) return undefined;
    value = (value as Record<string | number, unknown>)[part];
  }
  return value;
}

function describe(value: unknown): string {
  if (value === undefined || value === null) return "nothing";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "a mapping";
  if (typeof value === "string")
    return `the text ${JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value)}`;
  return `${typeof value} ${JSON.stringify(value)}`;
}
