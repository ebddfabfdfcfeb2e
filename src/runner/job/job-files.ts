/** Reads the files that a job may write for Hodei. They may be anything: absent, huge, a pipe. */

import { constants, readdirSync } from "node:fs";
import { open } from "node:fs/promises";
import { errorMessage, systemErrorCode } from "../../base/errors.ts";
import type { Progress } from "../../core/job.ts";
import { OUTPUT_FILE, PROGRESS_FILE, SUMMARY_FILE, type AttemptPaths } from "./attempt-directory.ts";
import { MAX_OUTPUT_BYTES, parseOutputs } from "./output-file.ts";
import { PROGRESS_TAIL_BYTES, parseProgress } from "./progress-file.ts";

export const MAX_SUMMARY_BYTES = 1024 * 1024;

export interface JobFiles {
  outputs: Record<string, string>;
  summary: string;
  progress: Progress | null;
  problems: string[];
}

/** One look at the directory tells which of the files there are: most jobs write none. */
export async function readJobFiles(paths: AttemptPaths): Promise<JobFiles> {
  const names = new Set(readdirSync(paths.root));
  const files: JobFiles = { outputs: {}, summary: "", progress: null, problems: [] };
  if (names.has(OUTPUT_FILE)) await readOutputs(paths.output, files);
  if (names.has(SUMMARY_FILE)) await readSummary(paths.summary, files);
  if (names.has(PROGRESS_FILE)) files.progress = await readProgress(paths.progress);
  return files;
}

async function readOutputs(path: string, files: JobFiles): Promise<void> {
  const part = await readPart(path, { maxBytes: MAX_OUTPUT_BYTES, from: "start" });
  if (!part.ok) {
    files.problems.push(`HODEI_OUTPUT could not be read: ${part.problem}`);
    return;
  }
  const cut = part.size > MAX_OUTPUT_BYTES;
  // The last line of a part is not whole.
  const text = cut ? part.text.slice(0, part.text.lastIndexOf("\n") + 1) : part.text;
  const parsed = parseOutputs(text);
  files.outputs = parsed.outputs;
  files.problems.push(...parsed.problems);
  if (cut) {
    files.problems.push(
      `HODEI_OUTPUT has ${part.size} bytes; what lies beyond ${MAX_OUTPUT_BYTES} was ignored`,
    );
  }
}

async function readSummary(path: string, files: JobFiles): Promise<void> {
  const part = await readPart(path, { maxBytes: MAX_SUMMARY_BYTES, from: "start" });
  if (!part.ok) {
    files.problems.push(`HODEI_SUMMARY could not be read: ${part.problem}`);
    return;
  }
  files.summary = part.text;
  if (part.size <= MAX_SUMMARY_BYTES) return;
  const note = `\n\n[cut: the summary has ${part.size} bytes, ${MAX_SUMMARY_BYTES} are kept]\n`;
  // The limit may have cut a character in two; and the note must fit within the limit too.
  files.summary = part.text.slice(0, MAX_SUMMARY_BYTES - note.length - 4).replace(/\uFFFD+$/, "") + note;
}

/** The newest progress in the file; null also if there is no file. */
export async function readProgress(path: string): Promise<Progress | null> {
  const part = await readPart(path, { maxBytes: PROGRESS_TAIL_BYTES, from: "end" });
  return part.ok ? parseProgress(part.text) : null;
}

type Part = { ok: true; text: string; size: number } | { ok: false; problem: string };

/** Never waits: a job may have put a pipe in the place of the file. */
async function readPart(path: string, limit: { maxBytes: number; from: "start" | "end" }): Promise<Part> {
  try {
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stats = await file.stat();
      if (!stats.isFile()) return { ok: false, problem: "it is not a regular file" };
      const position = limit.from === "start" ? 0 : Math.max(0, stats.size - limit.maxBytes);
      const buffer = Buffer.alloc(Math.min(stats.size, limit.maxBytes));
      const { bytesRead } = await file.read(buffer, 0, buffer.byteLength, position);
      return { ok: true, text: buffer.toString("utf8", 0, bytesRead), size: stats.size };
    } finally {
      await file.close();
    }
  } catch (error) {
    return { ok: false, problem: systemErrorCode(error) ?? errorMessage(error) };
  }
}
