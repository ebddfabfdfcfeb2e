/** Job files: YAML or JSON with one job or many, checked as a whole. `parseJobFile` does not throw. */

import type { JobDefinition } from "../core/job.ts";
import { toJobDefinition, type ReadScriptFile } from "./job-definition.ts";
import { checkEveryValue, checkJobRules, type RuleBreach } from "./job-rules.ts";
import { jobSchema, knownJobKeys } from "./job-schema.ts";
import { MAX_PROBLEMS, type Problem } from "./problem.ts";
import { explainIssues, type SchemaBreach } from "./schema-problems.ts";
import { readSourceEntries, toProblem, type EntryKind, type SourceEntry } from "./source-entries.ts";

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

const JOB_ENTRIES: EntryKind = { noun: "job", listKey: "jobs", example: "run: …" };

/** At least one job, or at least one problem. */
export function parseJobFile(source: string | Uint8Array, options: JobFileOptions): JobFileResult {
  const read = readSourceEntries(source, JOB_ENTRIES);
  if (!read.ok) return read;
  const problems: Problem[] = [];
  const jobs: ParsedJob[] = [];
  for (const [index, entry] of read.entries.entries()) {
    const defaultName = jobNameFromFile(options.fileName) + (read.entries.length > 1 ? `-${index + 1}` : "");
    const job = parseJob(entry, { defaultName, readFile: options.readFile ?? null, problems });
    if (job) jobs.push(job);
    if (problems.length >= MAX_PROBLEMS) break;
  }
  if (problems.length > 0) return { ok: false, problems: problems.slice(0, MAX_PROBLEMS) };
  return { ok: true, jobs };
}

/** `dir/hello.yaml` → `hello`; `-` or nothing usable → `job`. */
export function jobNameFromFile(fileName: string): string {
  const base = fileName.split(/[/\\]/).at(-1) ?? "";
  const name = base.replace(/\.(ya?ml|json|jsonl|ndjson)$/i, "").replaceAll(/[\u0000-\u001f\u007f]/g, "");
  return name === "" || name === "-" ? "job" : [...name].slice(0, 190).join("");
}

function parseJob(
  entry: SourceEntry,
  context: { defaultName: string; readFile: ReadScriptFile | null; problems: Problem[] },
): ParsedJob | null {
  const everywhere = checkEveryValue(entry.value);
  const breaches: (RuleBreach | SchemaBreach)[] = [...everywhere];
  // A value that is too large or cannot be held is not looked at any further.
  const parsed = everywhere.length === 0 ? jobSchema.safeParse(entry.value) : null;
  if (parsed?.error) breaches.push(...explainIssues(parsed.error, entry.value, knownJobKeys));
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
