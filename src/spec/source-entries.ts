/**
 * What job files and pool files have in common: YAML or JSON text with one thing or many.
 *
 * One file holds one thing, several documents separated by `---`, a mapping with one key that holds a
 * list, a list, or JSON Lines.
 */

import { isMapping, type RuleBreach } from "./job-rules.ts";
import { formatPath, type Problem, type ValuePath } from "./problem.ts";
import type { SchemaBreach } from "./schema-problems.ts";
import { readSourceValues, type SourceValue } from "./source-values.ts";

export interface SourceEntry {
  source: SourceValue;
  path: ValuePath;
  value: unknown;
}

export interface EntryKind {
  /** Such as `job`. */
  noun: string;
  /** The key that holds a list of them, such as `jobs`. */
  listKey: string;
  /** The least that such a file holds. */
  example: string;
}

export const MAX_SOURCE_BYTES = 32 * 1024 * 1024;

export type EntriesResult = { ok: true; entries: SourceEntry[] } | { ok: false; problems: Problem[] };

/** At least one entry, or at least one problem. */
export function readSourceEntries(source: string | Uint8Array, kind: EntryKind): EntriesResult {
  const text = decode(source);
  if (typeof text !== "string") return { ok: false, problems: [text] };
  const read = readSourceValues(text);
  if (!read.ok) return read;
  const problems: Problem[] = [];
  const entries = read.values.flatMap((value) => entriesOf(value, kind, problems));
  if (entries.length === 0 && problems.length === 0)
    problems.push(wholeFile(`has no ${kind.noun}`, `write at least \`${kind.example}\``));
  return problems.length > 0 ? { ok: false, problems } : { ok: true, entries };
}

function wholeFile(
  message: string,
  hint: string,
  line: number | null = null,
  column: number | null = null,
): Problem {
  return { path: "", line, column, message, hint };
}

function decode(source: string | Uint8Array): string | Problem {
  const size = typeof source === "string" ? source.length : source.byteLength;
  if (size > MAX_SOURCE_BYTES) return wholeFile("is larger than 32 MiB", "split it into several files");
  let text: string;
  try {
    text =
      typeof source === "string"
        ? source.replace(/^\uFEFF/, "")
        : new TextDecoder("utf-8", { fatal: true }).decode(source);
  } catch {
    // The decoder does not say where; the first bad byte is found again for the message.
    return wholeFile("is not UTF-8 text", "save it as UTF-8", lineOfBadByte(source as Uint8Array), 1);
  }
  const nul = text.indexOf("\0");
  if (nul < 0) return text;
  const before = text.slice(0, nul).split("\n");
  return wholeFile(
    "has a NUL byte: it is not a text file",
    "remove it",
    before.length,
    (before.at(-1)?.length ?? 0) + 1,
  );
}

function lineOfBadByte(bytes: Uint8Array): number {
  const lossy = new TextDecoder("utf-8").decode(bytes);
  const bad = lossy.indexOf("\uFFFD");
  return bad < 0 ? 1 : lossy.slice(0, bad).split("\n").length;
}

function entriesOf(source: SourceValue, kind: EntryKind, problems: Problem[]): SourceEntry[] {
  const { listKey } = kind;
  const { value } = source;
  if (Array.isArray(value)) return listEntries(source, value, []);
  if (!isMapping(value) || !Object.hasOwn(value, listKey)) return [{ source, path: [], value }];
  for (const key of Object.keys(value)) {
    if (key === listKey) continue;
    const place = source.locateKey([key]);
    problems.push({
      path: formatPath([key]),
      ...place,
      message: `cannot stand beside \`${listKey}\``,
      hint: `move it into the ${listKey}`,
    });
  }
  const list = value[listKey];
  if (Array.isArray(list)) return listEntries(source, list, [listKey]);
  problems.push({
    path: listKey,
    ...source.locateKey([listKey]),
    message: `must be a list of ${listKey}`,
    hint: `begin each ${kind.noun} with \`- \``,
  });
  return [];
}

function listEntries(source: SourceValue, list: readonly unknown[], path: ValuePath): SourceEntry[] {
  return list.map((value, index) => ({ source, path: [...path, index], value }));
}

export function toProblem(entry: SourceEntry, breach: RuleBreach | SchemaBreach): Problem {
  const path = [...entry.path, ...breach.path];
  const isKey = "isKey" in breach && breach.isKey;
  const place = isKey ? entry.source.locateKey(path) : entry.source.locate(path);
  return { path: formatPath(path), ...place, message: breach.message, hint: breach.hint };
}
