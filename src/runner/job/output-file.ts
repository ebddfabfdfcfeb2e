/**
 * What a job wrote to `$HODEI_OUTPUT`: `key=value` lines, and for values of several lines
 *
 *     key<<EOF
 *     first
 *     second
 *     EOF
 *
 * The last value of a key counts. What cannot be read is left out and told, never fatal: a job that
 * did its work does not fail for a badly written note.
 */

const MAX_OUTPUT_KEYS = 1_000;
export const MAX_OUTPUT_BYTES = 1024 * 1024;
const MAX_REPORTED_PROBLEMS = 20;

const KEY = /^[A-Za-z_][A-Za-z0-9_.-]{0,127}$/;

export interface ParsedOutputs {
  outputs: Record<string, string>;
  /** A sentence each, with the line number where there is one. */
  problems: string[];
}

export function parseOutputs(text: string): ParsedOutputs {
  const values = new Map<string, string>();
  const problems: string[] = [];
  const lines = text.split("\n");
  let ignored = 0;
  for (let index = 0; index < lines.length; index++) {
    const line = (lines[index] ?? "").replace(/\r$/, "");
    if (line.trim() === "") continue;
    const entry = readEntry(line, lines, index);
    if (!entry.ok) {
      problems.push(`HODEI_OUTPUT line ${index + 1}: ${entry.problem}`);
      continue;
    }
    index = entry.lastIndex;
    if (values.size >= MAX_OUTPUT_KEYS && !values.has(entry.key)) ignored += 1;
    else values.set(entry.key, entry.value);
  }
  if (ignored > 0)
    problems.push(`HODEI_OUTPUT: only ${MAX_OUTPUT_KEYS} keys are kept; ${ignored} more were ignored`);
  const hidden = problems.length - MAX_REPORTED_PROBLEMS;
  if (hidden > 0) problems.splice(MAX_REPORTED_PROBLEMS, hidden, `HODEI_OUTPUT: ${hidden} more problems`);
  return { outputs: Object.fromEntries(values), problems };
}

type Entry = { ok: true; key: string; value: string; lastIndex: number } | { ok: false; problem: string };

function readEntry(line: string, lines: readonly string[], index: number): Entry {
  const equals = line.indexOf("=");
  const heredoc = line.indexOf("<<");
  if (heredoc >= 0 && (equals < 0 || heredoc < equals)) return readHeredoc(line, lines, index);
  if (equals < 0) return { ok: false, problem: "expected key=value or key<<MARKER" };
  const key = line.slice(0, equals).trim();
  if (!KEY.test(key)) return { ok: false, problem: badKey(key) };
  return { ok: true, key, value: line.slice(equals + 1), lastIndex: index };
}

function readHeredoc(line: string, lines: readonly string[], index: number): Entry {
  const start = line.indexOf("<<");
  const key = line.slice(0, start).trim();
  const marker = line.slice(start + 2).trim();
  if (!KEY.test(key)) return { ok: false, problem: badKey(key) };
  if (marker === "") return { ok: false, problem: `a marker must follow ${key}<<` };
  const end = lines.findIndex((text, place) => place > index && text.replace(/\r$/, "") === marker);
  if (end < 0) return { ok: false, problem: `the value of ${key} is not ended by a line ${marker}` };
  return { ok: true, key, value: lines.slice(index + 1, end).join("\n"), lastIndex: end };
}

function badKey(key: string): string {
  return `${JSON.stringify(key.slice(0, 60))} is no key: use letters, digits, "_", "-" and "."`;
}
