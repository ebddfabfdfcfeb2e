/** Tolerations, taints and preferences as options and files write them. */

import type { PlacementPreference } from "../core/job.ts";
import {
  TAINT_EFFECTS,
  parseSelector,
  type LabelRequirement,
  type ParsedSelector,
  type Taint,
  type TaintEffect,
  type Toleration,
} from "../core/labels.ts";
import { closestName } from "./closest-name.ts";

const KEY = /^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$/;
export const TOLERATION_EXAMPLES = "gpu, gpu=a100, gpu:NoExecute or * for any taint";
export const TAINT_EXAMPLES = "gpu:NoSchedule or gpu=a100:PreferNoSchedule";

/** One text is one condition more; two values for one label are a problem, because none has both. */
export function joinSelectors(texts: readonly string[]): ParsedSelector | string {
  const joined: ParsedSelector = { selector: {}, expressions: [] };
  for (const text of texts) {
    if (text.trim() === "") return "is empty; write conditions such as os=linux,zone in (a,b)";
    const parsed = parseSelector(text);
    if (typeof parsed === "string") return parsed;
    for (const [key, value] of Object.entries(parsed.selector)) {
      const other = joined.selector[key];
      if (other !== undefined && other !== value)
        return `no worker has both ${key}=${other} and ${key}=${value}; write ${key} in (${other},${value})`;
      joined.selector[key] = value;
    }
    joined.expressions.push(...parsed.expressions);
  }
  return joined;
}

/** `key`, `key=value`, each with `:Effect` or without; `*` stands for any key. */
export function parseToleration(text: string): Toleration | string {
  const parts = splitTaint(text);
  if (typeof parts === "string") return parts;
  const { key, value, effect } = parts;
  if (key === "*" && value === null) return { key: "", operator: "exists", value: "", effect };
  const problem = keyProblem(text, key, TOLERATION_EXAMPLES);
  if (problem !== null) return problem;
  return { key, operator: value === null ? "exists" : "equal", value: value ?? "", effect };
}

/** `key:Effect` or `key=value:Effect`. */
export function parseTaint(text: string): Taint | string {
  const parts = splitTaint(text);
  if (typeof parts === "string") return parts;
  const { key, value, effect } = parts;
  const problem = keyProblem(text, key, TAINT_EXAMPLES);
  if (problem !== null) return problem;
  if (effect === null) return `${JSON.stringify(text)} has no effect: write ${TAINT_EXAMPLES}`;
  return { key, value: value ?? "", effect };
}

export function formatToleration({ key, operator, value, effect }: Toleration): string {
  const text = `${key === "" ? "*" : key}${operator === "equal" ? `=${value}` : ""}`;
  return effect === null ? text : `${text}:${effect}`;
}

/** `EXPR:WEIGHT`, such as `zone=a:50` or `spot:-100`. */
export function parsePreference(text: string): PlacementPreference | string {
  const colon = text.lastIndexOf(":");
  const weightText = text.slice(colon + 1).trim();
  const weight = /^[+-]?\d+$/.test(weightText) ? Number(weightText) : Number.NaN;
  if (colon < 0 || !(Math.abs(weight) <= 100))
    return `${JSON.stringify(text)} does not end in a weight from -100 to 100: write zone=a:50`;
  const parsed = joinSelectors([text.slice(0, colon)]);
  return typeof parsed === "string"
    ? parsed
    : { weight, workerLabels: requirementsOf(parsed), jobLabels: {} };
}

/** The same conditions in one list. */
export function requirementsOf({ selector, expressions }: ParsedSelector): LabelRequirement[] {
  const equal = Object.entries(selector).map(([key, value]): LabelRequirement => {
    return { key, operator: "in", values: [value] };
  });
  return [...equal, ...expressions];
}

function splitTaint(
  text: string,
): { key: string; value: string | null; effect: TaintEffect | null } | string {
  const colon = text.lastIndexOf(":");
  const named = colon < 0 ? "" : text.slice(colon + 1);
  const effect = TAINT_EFFECTS.find((known) => known === named) ?? null;
  if (colon >= 0 && effect === null) {
    const close = closestName(named, TAINT_EFFECTS);
    const hint = close === null ? "" : `; did you mean ${close}?`;
    return `${JSON.stringify(text)}: ${JSON.stringify(named)} is none of ${TAINT_EFFECTS.join(", ")}${hint}`;
  }
  const rest = colon < 0 ? text : text.slice(0, colon);
  const equals = rest.indexOf("=");
  return equals < 0
    ? { key: rest, value: null, effect }
    : { key: rest.slice(0, equals), value: rest.slice(equals + 1), effect };
}

function keyProblem(text: string, key: string, examples: string): string | null {
  if (KEY.test(key) && key.length <= 128) return null;
  return `${JSON.stringify(text)}: ${JSON.stringify(key)} is not the name of a taint: write ${examples}`;
}
