/**
 * Labels, and what is asked of them: selectors of jobs, taints of workers and what tolerates them.
 */

export const LABEL_OPERATORS = ["in", "not_in", "exists", "not_exists", "gt", "lt"] as const;
export type LabelOperator = (typeof LABEL_OPERATORS)[number];

/**
 * One condition on labels. `in` and `not_in` have at least one value, `exists` and `not_exists` none,
 * `gt` and `lt` exactly one, a whole number: a label that is no number fulfils neither. `not_in` is
 * also fulfilled where there is no such label.
 */
export interface LabelRequirement {
  key: string;
  operator: LabelOperator;
  values: string[];
}

export const TAINT_EFFECTS = ["NoSchedule", "PreferNoSchedule", "NoExecute"] as const;
/**
 * What a taint does to a job that does not tolerate it: it is not placed there, it is placed there only
 * if no other worker fits, or it is also moved away if it runs there already.
 */
export type TaintEffect = (typeof TAINT_EFFECTS)[number];

export interface Taint {
  key: string;
  value: string;
  effect: TaintEffect;
}

/** Which taints a job accepts. An empty key stands for any, `effect: null` for each of them. */
export interface Toleration {
  key: string;
  operator: "equal" | "exists";
  value: string;
  effect: TaintEffect | null;
}

/** True if labels fulfil a condition. */
export function fulfils(labels: Readonly<Record<string, string>>, requirement: LabelRequirement): boolean {
  const { key, operator, values } = requirement;
  const value = Object.hasOwn(labels, key) ? labels[key] : undefined;
  switch (operator) {
    case "in":
      return value !== undefined && values.includes(value);
    case "not_in":
      return value === undefined || !values.includes(value);
    case "exists":
      return value !== undefined;
    case "not_exists":
      return value === undefined;
    case "gt":
      return compare(value, values[0]) > 0;
    case "lt":
      return compare(value, values[0]) < 0;
  }
}

/** NaN, which is neither more nor less than 0, if one of the two is no whole number. */
function compare(value: string | undefined, limit: string | undefined): number {
  return wholeNumber(value) - wholeNumber(limit);
}

function wholeNumber(text: string | undefined): number {
  return text !== undefined && /^-?\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
}

export function tolerates(tolerations: readonly Toleration[], taint: Taint): boolean {
  return tolerations.some(
    ({ key, operator, value, effect }) =>
      (key === "" ? operator === "exists" : key === taint.key) &&
      (operator === "exists" || value === taint.value) &&
      (effect === null || effect === taint.effect),
  );
}

const KEY = /^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$/;
const MAX_KEY_LENGTH = 128;
const MAX_VALUE_LENGTH = 256;
const MAX_VALUES = 64;
// oxlint-disable-next-line no-control-regex
const CONTROL_CHARACTERS = /[\u0000-\u001F\u007F]/;

/** What is wrong with the name of a label, or null. */
export function labelKeyProblem(key: string): string | null {
  if (key === "") return "the name of the label is missing";
  if (key.length > MAX_KEY_LENGTH) return `the name of a label has ${MAX_KEY_LENGTH} characters at most`;
  if (KEY.test(key)) return null;
  return `${JSON.stringify(key)} is not the name of a label: letters, digits and . _ / - between them`;
}

/** What is wrong with the value of a label, or null. */
export function labelValueProblem(value: string): string | null {
  if (value.length > MAX_VALUE_LENGTH)
    return `the value of a label has ${MAX_VALUE_LENGTH} characters at most`;
  return CONTROL_CHARACTERS.test(value)
    ? "the value of a label is one line without control characters"
    : null;
}

/** What is wrong with a condition, or null. */
export function requirementProblem({ key, operator, values }: LabelRequirement): string | null {
  const valuesProblem = values.map(labelValueProblem).find((problem) => problem !== null);
  return labelKeyProblem(key) ?? countProblem(operator, values) ?? valuesProblem ?? null;
}

function countProblem(operator: LabelOperator, values: readonly string[]): string | null {
  if (values.length > MAX_VALUES) return `a condition has ${MAX_VALUES} values at most`;
  switch (operator) {
    case "in":
    case "not_in":
      return values.length === 0 ? `${operator} needs at least one value` : null;
    case "exists":
    case "not_exists":
      return values.length > 0 ? `${operator} takes no value` : null;
    case "gt":
    case "lt":
      if (values.length !== 1) return `${operator} needs exactly one value`;
      return Number.isNaN(wholeNumber(values[0]))
        ? `${operator} compares with a whole number, and ${JSON.stringify(values[0])} is none`
        : null;
  }
}

/** What is wrong with a toleration, or null. */
export function tolerationProblem({ key, operator, value }: Toleration): string | null {
  if (key.length > MAX_KEY_LENGTH) return `the name of a taint has ${MAX_KEY_LENGTH} characters at most`;
  if (value.length > MAX_VALUE_LENGTH)
    return `the value of a taint has ${MAX_VALUE_LENGTH} characters at most`;
  if (operator === "exists" && value !== "") return "a toleration of any value takes no value";
  if (operator === "equal" && key === "") return "a toleration of a value needs the name of the taint";
  return null;
}

/** What is wrong with a preference of a job (`PlacementPreference` of job.ts), or null. */
export function preferenceProblem(preference: {
  weight: number;
  workerLabels: readonly LabelRequirement[];
  jobLabels: Readonly<Record<string, string>>;
}): string | null {
  const { weight, workerLabels, jobLabels } = preference;
  if (!Number.isInteger(weight) || Math.abs(weight) > 100)
    return "a weight is a whole number from -100 to 100";
  const entries = Object.entries(jobLabels);
  if (workerLabels.length === 0 && entries.length === 0) {
    return "a preference needs labels of the worker or of a job that runs there";
  }
  const problems = [
    ...workerLabels.map(requirementProblem),
    ...entries.map(([key, value]) => labelKeyProblem(key) ?? labelValueProblem(value)),
  ];
  return problems.find((problem) => problem !== null) ?? null;
}

/** The text that stands for a taint, such as `gpu=a100:NoSchedule`. */
export function formatTaint({ key, value, effect }: Taint): string {
  return `${key}${value === "" ? "" : `=${value}`}:${effect}`;
}

/** What a selector asks for: labels with one value, and every other condition. */
export interface ParsedSelector {
  selector: Record<string, string>;
  expressions: LabelRequirement[];
}

/**
 * Reads conditions that are separated by commas: `os=linux`, `os!=linux`, `zone in (a,b)`,
 * `zone notin (a,b)`, `gpu` (there is such a label), `!spot` (there is none), `cores>4`, `cores<8`. A
 * value with commas, brackets, quotes or spaces at its ends stands in double quotes, as in JSON.
 *
 * @returns the conditions; a text that says what is wrong, at which column (from 1), and what to write.
 */
export function parseSelector(text: string): ParsedSelector | string {
  const parsed: ParsedSelector = { selector: {}, expressions: [] };
  if (text.trim() === "") return parsed;
  let column = 1;
  for (const part of splitOutside(text)) {
    const at = column + part.length - part.trimStart().length;
    column += part.length + 1;
    const read = readCondition(part.trim());
    const problem = typeof read === "string" ? read : addCondition(parsed, read);
    if (problem !== null) return `column ${at}: ${problem}`;
  }
  return parsed;
}

/** The text that `parseSelector` reads as this condition. */
export function formatRequirement({ key, operator, values }: LabelRequirement): string {
  const list = values.map(formatValue).join(",");
  switch (operator) {
    case "in":
      return `${key} in (${list})`;
    case "not_in":
      return values.length === 1 ? `${key}!=${list}` : `${key} notin (${list})`;
    case "exists":
      return key;
    case "not_exists":
      return `!${key}`;
    case "gt":
      return `${key}>${list}`;
    case "lt":
      return `${key}<${list}`;
  }
}

function formatValue(value: string): string {
  return /^[^\s,()"]([^,()"]*[^\s,()"])?$/.test(value) ? value : JSON.stringify(value);
}

/** The parts between the commas that are in neither quotes nor brackets. */
function splitOutside(text: string): string[] {
  const parts = [""];
  let isQuoted = false;
  let depth = 0;
  for (let index = 0; index < text.length; index += 1) {
    const character = text.charAt(index);
    if (character === "," && !isQuoted && depth === 0) {
      parts.push("");
      continue;
    }
    if (character === '"') isQuoted = !isQuoted;
    else if (!isQuoted && character === "(") depth += 1;
    else if (!isQuoted && character === ")") depth -= 1;
    parts.push(parts.pop() + character);
    // What is escaped ends no quotes.
    if (isQuoted && character === "\\") parts.push(parts.pop() + text.charAt((index += 1)));
  }
  return parts;
}

const EXAMPLES = "os=linux, os!=linux, zone in (a,b), zone notin (a,b), gpu, !gpu, cores>4 or cores<8";

/** `os=linux` is returned with the operator `equal`, which a selector keeps apart. */
type Condition = LabelRequirement | { key: string; operator: "equal"; values: [string] };

function readCondition(text: string): Condition | string {
  if (text === "") return `a condition is missing; write ${EXAMPLES}`;
  const match = /^(!?)\s*([^\s=!<>()",]+)\s*(.*)$/s.exec(text);
  if (match === null) return `${JSON.stringify(text)} begins with no label; write ${EXAMPLES}`;
  const [, not = "", key = "", rest = ""] = match;
  const keyProblem = labelKeyProblem(key);
  if (keyProblem !== null) return keyProblem;
  if (rest === "") return { key, operator: not === "" ? "exists" : "not_exists", values: [] };
  if (not !== "") return `after !${key} nothing may follow; write !${key} or ${key}!=VALUE`;
  return readComparison(key, rest);
}

function readComparison(key: string, rest: string): Condition | string {
  const list = /^(in|notin|not\s+in)\s*\((.*)\)$/s.exec(rest);
  if (list)
    return withValues({ key, operator: list[1] === "in" ? "in" : "not_in" }, splitOutside(list[2] ?? ""));
  if (/^(in|notin|not\s+in)\b/.test(rest)) return `after ${key} in comes a list; write ${key} in (a,b)`;
  const compared = /^(==|=|!=|>=|<=|>|<)(.*)$/s.exec(rest);
  if (compared === null) return `${JSON.stringify(rest)} after ${key} is no comparison; write ${EXAMPLES}`;
  const [, sign = "", value = ""] = compared;
  switch (sign) {
    case ">=":
    case "<=":
      return `${sign} is not known; write ${key}${sign[0] ?? ""}${nextNumber(sign, value.trim())}`;
    case "!=":
      return withValues({ key, operator: "not_in" }, [value]);
    case ">":
      return withValues({ key, operator: "gt" }, [value]);
    case "<":
      return withValues({ key, operator: "lt" }, [value]);
    default:
      return withValues({ key, operator: "equal" }, [value]);
  }
}

/** What `>=` or `<=` this number is with `>` or `<`. */
function nextNumber(sign: string, value: string): string {
  const number = wholeNumber(value);
  return Number.isNaN(number) ? "NUMBER" : String(sign === ">=" ? number - 1 : number + 1);
}

function withValues(
  { key, operator }: { key: string; operator: Condition["operator"] },
  texts: readonly string[],
): Condition | string {
  const values: string[] = [];
  for (const text of texts) {
    const value = readValue(text.trim());
    if (value === null) return `${text.trim()} is no value; write it in double quotes: ${key}="VALUE"`;
    values.push(value);
  }
  if (operator !== "equal") {
    const isEmptyList = operator.endsWith("in") && texts.length === 1 && texts[0]?.trim() === "";
    const read: LabelRequirement = { key, operator, values: isEmptyList ? [] : values };
    return requirementProblem(read) ?? read;
  }
  const [value = ""] = values;
  return labelValueProblem(value) ?? { key, operator, values: [value] };
}

function readValue(text: string): string | null {
  if (!text.startsWith('"')) return /[,()"]/.test(text) ? null : text;
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "string" ? value : null;
  } catch {
    // Not a JSON text: the caller says how a value is written.
    return null;
  }
}

function addCondition(parsed: ParsedSelector, condition: Condition): string | null {
  if (condition.operator !== "equal") {
    parsed.expressions.push({ ...condition, operator: condition.operator });
    return null;
  }
  const { key, values } = condition;
  const other = Object.hasOwn(parsed.selector, key) ? parsed.selector[key] : undefined;
  if (other !== undefined && other !== values[0]) {
    return `no worker has both ${key}=${other} and ${key}=${values[0]}; write ${key} in (${other},${values[0]})`;
  }
  parsed.selector[key] = values[0];
  return null;
}
