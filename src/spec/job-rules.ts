/** Rules that the shape of single values cannot say, checked on the raw value of a job. */

import type { ValuePath } from "./problem.ts";

export interface RuleBreach {
  path: ValuePath;
  message: string;
  hint: string;
}

/** What a job or step runs must be said in exactly one way. */
export function checkJobRules(job: unknown): RuleBreach[] {
  if (!isMapping(job)) return [];
  const breaches = exactlyOne(job, [], { keys: ["run", "script", "command", "steps"], what: "a job" });
  breaches.push(...checkScript(job["script"], ["script"]));
  if (!Array.isArray(job["steps"])) return breaches;
  for (const [index, step] of job["steps"].entries()) {
    if (!isMapping(step)) continue;
    const path = ["steps", index];
    breaches.push(...exactlyOne(step, path, { keys: ["run", "script", "command"], what: "a step" }));
    breaches.push(...checkScript(step["script"], [...path, "script"]));
  }
  return breaches;
}

function checkScript(script: unknown, path: ValuePath): RuleBreach[] {
  if (!isMapping(script)) return [];
  return exactlyOne(script, path, { keys: ["content", "file"], what: "a script" });
}

export function exactlyOne(
  mapping: Record<string, unknown>,
  path: ValuePath,
  rule: { keys: readonly string[]; what: string; missing?: string },
): RuleBreach[] {
  const present = rule.keys.filter((key) => Object.hasOwn(mapping, key) && mapping[key] !== undefined);
  if (present.length === 1) return [];
  const [second] = present.slice(1);
  if (second === undefined) {
    const keys = `${rule.keys.slice(0, -1).join(", ")} or ${rule.keys.at(-1)}`;
    return [
      {
        path,
        message: `${rule.missing ?? "nothing to run"}: ${rule.what} needs ${keys}`,
        hint: `add \`${rule.keys[0]}:\``,
      },
    ];
  }
  const message = `${present.join(" and ")} are given, but ${rule.what} has only one of ${rule.keys.join(", ")}`;
  return [{ path: [...path, second], message, hint: "keep one of them" }];
}

/** Values of one file that are looked at. With aliases, a small file can hold very many. */
const MAX_VALUES = 5_000_000;

/** Finds what must not stand anywhere: NUL bytes, and a key that JavaScript objects cannot hold. */
export function checkEveryValue(value: unknown): RuleBreach[] {
  const breaches: RuleBreach[] = [];
  let left = MAX_VALUES;
  const visit = (node: unknown, path: ValuePath): void => {
    left -= 1;
    if (left < 0 || breaches.length >= 100) return;
    if (typeof node === "string" && node.includes("\0")) {
      breaches.push({
        path,
        message: "has a NUL character, which no program can be given",
        hint: "remove it",
      });
    } else if (Array.isArray(node)) {
      node.forEach((item, index) => visit(item, [...path, index]));
    } else if (isMapping(node)) {
      for (const [key, item] of Object.entries(node)) {
        if (key === "__proto__")
          breaches.push({ path: [...path, key], message: "is not a possible name", hint: "rename it" });
        else visit(item, [...path, key]);
      }
    }
  };
  visit(value, []);
  if (left < 0) breaches.unshift({ path: [], message: "expands to too many values", hint: "split the file" });
  return breaches;
}

export function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
