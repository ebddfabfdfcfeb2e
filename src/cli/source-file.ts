/** Files of jobs and of pools that somebody names, `-` being standard input. */

import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { AppError } from "../base/errors.ts";
import type { Problem } from "../spec/problem.ts";
import type { CliEnvironment } from "./environment.ts";
import { fileProblem } from "./file-problem.ts";

/** `kind` and `hint` are for the error if it cannot be read. */
export async function readSource(
  file: string,
  { kind, hint }: { kind: "job" | "pool"; hint?: string },
  { stdin, cwd }: CliEnvironment,
): Promise<Uint8Array> {
  const { MAX_SOURCE_BYTES } = await import("../spec/source-entries.ts");
  if (file === "-") return await readAll(stdin, MAX_SOURCE_BYTES);
  const path = resolve(cwd, file);
  try {
    return await readFile(path);
  } catch (error) {
    const details = hint === undefined ? {} : { hint };
    throw new AppError("invalid_argument", `read ${kind} file ${path}: ${fileProblem(error)}`, {
      cause: error,
      details,
    });
  }
}

/** Tells all that is wrong in a file. */
export async function sourceError(file: string, problems: readonly Problem[]): Promise<AppError> {
  const { formatProblem } = await import("../spec/problem.ts");
  const [name, shortName] = file === "-" ? ["standard input", "stdin"] : [file, file];
  const count = problems.length === 1 ? "1 problem" : `${problems.length} problems`;
  return new AppError("invalid_argument", `read ${name}: ${count}`, {
    details: { problems: problems.map((problem) => formatProblem(problem, shortName)) },
  });
}

async function readAll(stdin: AsyncIterable<unknown>, maxBytes: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of stdin) {
    const bytes = Buffer.from(chunk as Uint8Array | string);
    chunks.push(bytes);
    size += bytes.length;
    // One byte more than allowed is enough for the parser to say so.
    if (size > maxBytes) break;
  }
  return Buffer.concat(chunks);
}
