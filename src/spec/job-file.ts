/**
 * Job files: YAML or JSON with one job or many, checked as a whole.
 *
 * One file holds a job, several documents separated by `---`, `jobs:` with a list, a list, or JSON
 * Lines. Whatever is in it, `parseJobFile` does not throw.
 */

import type { JobDefinition } from "../core/job.ts";
import { toJobDefinition, type ReadScriptFile } from "./job-definition.ts";
import { checkEveryValue, checkJobRules, isMapping, type RuleBreach } from "./job-rules.ts";
import { jobSchema } from "./job-schema.ts";
import { MAX_PROBLEMS, formatPath, type Problem, type ValuePath } from "./problem.ts";
import { explainIssues, type SchemaBreach } from "./schema-problems.ts";
import { readSourceValues, type SourceValue } from "./source-values.ts";

export interface ParsedJob {
  definition: JobDefinition;
  idempotencyKey: string | null;
}

export type JobFileResult = { ok: true; jobs: ParsedJob[] } | { ok: false; problems: Problem[] };

export interface JobFileOptions {
  /** Its last part without the extension names jobs that have no name. */
  fileName: string;
  /** Reads scripts named by `script.file`; without it such a job is a problem. */
  readFile?: ReadScriptFile;
}

export const MAX_JOB_FILE_BYTES = 32 * 1024 * 1024;

/** At least one job, or at least one problem. */
export function parseJobFile(source: string | Uint8Array, options: JobFileOptions): JobFileResult {
  const text = decode(source);
  if (typeof text !== "string") return { ok: false, problems: [text] };
  const read = readSourceValues(text);
  if (!read.ok) return read;

  const problems: Problem[] = [];
  const entries = read.values.flatMap((value) => jobEntries(value, problems));
  if (entries.length === 0 && problems.length === 0)
    problems.push(wholeFile("has no job", "write at least `run: …`"));
  const jobs: ParsedJob[] = [];
  for (const [index, entry] of entries.entries()) {
    const defaultName = jobNameFromFile(options.fileName) + (entries.length > 1 ? `-${index + 1}` : "");
    const job = parseJob(entry, { defaultName, readFile: options.readFile ?? null, problems });
    if (job) jobs.push(job);
    if (problems.length >= MAX_PROBLEMS) break;
  }
  if (problems.length > 0) return { ok: false, problems: problems.slice(0, MAX_PROBLEMS) };
  return { ok: true, jobs };
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
  if (size > MAX_JOB_FILE_BYTES) return wholeFile("is larger than 32 MiB", "split it into several files");
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

/** `dir/hello.yaml` → `hello`; `-` or nothing usable → `job`. */
export function jobNameFromFile(fileName: string): string {
  const base = fileName.split(/[/\\]/).at(-1) ?? "";
  const name = base.replace(/\.(ya?ml|json|jsonl|ndjson)$/i, "").replaceAll(/[\u0000-\u001f\u007f]/g, "");
  return name === "" || name === "-" ? "job" : [...name].slice(0, 190).join("");
}

interface JobEntry {
  source: SourceValue;
  path: ValuePath;
  value: unknown;
}

function jobEntries(source: SourceValue, problems: Problem[]): JobEntry[] {
  const { value } = source;
  if (Array.isArray(value)) return listEntries(source, value, []);
  if (!isMapping(value) || !Object.hasOwn(value, "jobs")) return [{ source, path: [], value }];
  for (const key of Object.keys(value)) {
    if (key === "jobs") continue;
    const place = source.locateKey([key]);
    problems.push({
      path: formatPath([key]),
      ...place,
      message: "cannot stand beside `jobs`",
      hint: "move it into the jobs",
    });
  }
  if (Array.isArray(value["jobs"])) return listEntries(source, value["jobs"], ["jobs"]);
  problems.push({
    path: "jobs",
    ...source.locateKey(["jobs"]),
    message: "must be a list of jobs",
    hint: "begin each job with `- `",
  });
  return [];
}

function listEntries(source: SourceValue, list: readonly unknown[], path: ValuePath): JobEntry[] {
  return list.map((value, index) => ({ source, path: [...path, index], value }));
}

function parseJob(
  entry: JobEntry,
  context: { defaultName: string; readFile: ReadScriptFile | null; problems: Problem[] },
): ParsedJob | null {
  const everywhere = checkEveryValue(entry.value);
  const breaches: (RuleBreach | SchemaBreach)[] = [...everywhere];
  // A value that is too large or cannot be held is not looked at any further.
  const parsed = everywhere.length === 0 ? jobSchema.safeParse(entry.value) : null;
  if (parsed?.error) breaches.push(...explainIssues(parsed.error, entry.value));
  if (parsed) breaches.push(...checkJobRules(entry.value));
  let definition: JobDefinition | null = null;
  if (parsed?.success) {
    definition = toJobDefinition(parsed.data, {
      defaultName: context.defaultName,
      readFile: context.readFile,
      breaches,
    });
  }
  context.problems.push(...breaches.map((breach) => toProblem(entry, breach)));
  if (breaches.length > 0 || definition === null) return null;
  return { definition, idempotencyKey: parsed?.data?.idempotencyKey || null };
}

function toProblem(entry: JobEntry, breach: RuleBreach | SchemaBreach): Problem {
  const path = [...entry.path, ...breach.path];
  const isKey = "isKey" in breach && breach.isKey;
  const place = isKey ? entry.source.locateKey(path) : entry.source.locate(path);
  return { path: formatPath(path), ...place, message: breach.message, hint: breach.hint };
}
