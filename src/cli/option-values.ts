/** Values of options, checked. What is wrong is an `AppError` that names the option. */

import { AppError } from "../base/errors.ts";
import { closestName } from "../spec/closest-name.ts";
import { DURATION_EXAMPLES, parseDurationMs } from "../spec/quantities.ts";
import { queueNameProblem } from "../spec/queue-name.ts";

export function invalidOption(option: string, problem: string, hint = ""): AppError {
  return new AppError("invalid_argument", `option ${option}: ${problem}`, { details: { hint } });
}

/** For options that may be given many times. */
export function collect(value: string, previous: string[] | undefined): string[] {
  return [...(previous ?? []), value];
}

export function textOption(options: Record<string, unknown>, name: string): string | undefined {
  const value = options[name];
  return typeof value === "string" ? value : undefined;
}

export function textsOption(options: Record<string, unknown>, name: string): string[] {
  const value = options[name];
  return Array.isArray(value) ? value.map(String) : [];
}

/** @param what is named in the refusal: an option, or what the operand is. */
export function checkQueueName(name: string, what: string): string {
  const problem = queueNameProblem(name);
  if (problem === null) return name;
  if (what.startsWith("--")) throw invalidOption(what, problem);
  throw new AppError("invalid_argument", `${what}: ${problem}`);
}

export function flagOption(options: Record<string, unknown>, name: string): boolean {
  return options[name] === true;
}

export function pairsOption(
  options: Record<string, unknown>,
  name: string,
  option: string,
): Record<string, string> {
  const pairs: Record<string, string> = {};
  for (const text of textsOption(options, name)) {
    const [key, value] = splitPair(text);
    if (value === null || key === "")
      throw invalidOption(option, `${JSON.stringify(text)} is not of the form key=value`);
    pairs[key] = value;
  }
  return pairs;
}

/** `A=b=c` → `["A", "b=c"]`; without an equals sign the value is null. */
export function splitPair(text: string): [string, string | null] {
  const index = text.indexOf("=");
  return index < 0 ? [text, null] : [text.slice(0, index), text.slice(index + 1)];
}

export function wholeNumberOption(
  options: Record<string, unknown>,
  name: string,
  rule: { option: string; min: number; max: number },
): number | undefined {
  const text = textOption(options, name);
  if (text === undefined) return undefined;
  const value = /^-?\d+$/.test(text) ? Number(text) : Number.NaN;
  if (value >= rule.min && value <= rule.max) return value;
  throw invalidOption(
    rule.option,
    `${JSON.stringify(text)} is not a whole number from ${rule.min} to ${rule.max}`,
  );
}

/** Milliseconds, more than none unless the rule says otherwise. */
export function durationOption(
  options: Record<string, unknown>,
  name: string,
  rule: { option: string; allowsZero?: boolean },
): number | undefined {
  const text = textOption(options, name);
  if (text === undefined) return undefined;
  const durationMs = parseDurationMs(text);
  if (durationMs !== null && (durationMs > 0 || rule.allowsZero === true)) return durationMs;
  throw invalidOption(rule.option, `${JSON.stringify(text)} is not a duration: ${DURATION_EXAMPLES}`);
}

export function choiceOption<Choice extends string>(
  text: string,
  choices: readonly Choice[],
  option: string,
): Choice {
  const wanted = text.toLowerCase().replaceAll("-", "_");
  const found = choices.find((choice) => choice === wanted);
  if (found !== undefined) return found;
  const close = closestName(wanted, choices);
  const hint = close === null ? "" : `did you mean ${close}?`;
  throw invalidOption(option, `${JSON.stringify(text)} is none of ${choices.join(", ")}`, hint);
}

/** A duration back from now, or a time such as `2026-11-21T20:00:00Z`; milliseconds since the epoch. */
export function sinceOption(options: Record<string, unknown>, nowMs: number): number | undefined {
  const text = textOption(options, "since");
  if (text === undefined) return undefined;
  const agoMs = parseDurationMs(text);
  if (agoMs !== null) return nowMs - agoMs;
  const timeMs = /^\d{4}-\d{2}-\d{2}/.test(text) ? new Date(text).getTime() : Number.NaN;
  if (!Number.isNaN(timeMs)) return timeMs;
  throw invalidOption(
    "--since",
    `${JSON.stringify(text)} is neither a duration (${DURATION_EXAMPLES}) nor a time such as 2026-01-31T12:00:00Z`,
  );
}

export function jsonOutput(options: Record<string, unknown>): boolean {
  const text = textOption(options, "output");
  return text !== undefined && choiceOption(text, ["text", "json"], "--output") === "json";
}

const ID_PREFIX = /^[0-9a-fA-F-]{4,36}$/;

/** Ids are checked here, so that a typo is not a round trip. */
export function checkIds(ids: readonly string[], what: string): void {
  for (const id of ids) {
    if (ID_PREFIX.test(id)) continue;
    throw new AppError(
      "invalid_argument",
      `${JSON.stringify(id)} is not the id of a ${what}, nor its beginning (4 characters or more)`,
    );
  }
}
