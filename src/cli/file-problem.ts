/** Why a file that somebody named cannot be read or written, in words for people. */

import { errorMessage, systemErrorCode } from "../base/errors.ts";

const PROBLEMS: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file or directory",
  EISDIR: "it is a directory",
  ENOTDIR: "part of the path is not a directory",
  EACCES: "permission denied",
  EEXIST: "it exists already",
};

export function fileProblem(error: unknown): string {
  return PROBLEMS[systemErrorCode(error) ?? ""] ?? errorMessage(error);
}
