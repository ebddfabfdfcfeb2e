/** Errors as people see them: one line with what and why, and a hint where there is one. */

import { AppError } from "../base/errors.ts";
import { EXIT, exitCodeOfError } from "./exit-codes.ts";

export interface ReportedError {
  text: string;
  exitCode: number;
}

/** @param isDebug also shows where in the program it happened. */
export function reportError(error: unknown, isDebug: boolean): ReportedError {
  const stack = isDebug ? stackOf(error) : "";
  if (!(error instanceof AppError)) {
    const message = error instanceof Error ? error.message : String(error);
    const hint = "this is a fault of hodei; HODEI_DEBUG=1 shows where it happened";
    return {
      text: `hodei: unexpected failure: ${oneLine(message)}\nhint: ${hint}\n${stack}`,
      exitCode: EXIT.failure,
    };
  }
  const hint =
    typeof error.details["hint"] === "string" && error.details["hint"]
      ? error.details["hint"]
      : defaultHint(error);
  const lines = [`hodei: ${oneLine(error.message)}`];
  const problems = error.details["problems"];
  // Those of settings are objects, and stand in the message already.
  if (Array.isArray(problems))
    for (const problem of problems) if (typeof problem === "string") lines.push(`  ${problem}`);
  if (hint !== "") lines.push(`hint: ${hint}`);
  return { text: `${lines.join("\n")}\n${stack}`, exitCode: exitCodeOfError(error.code) };
}

function defaultHint(error: AppError): string {
  switch (error.code) {
    case "unauthenticated":
      return "set HODEI_API_TOKEN, or HODEI_API_TOKEN_FILE to the file api-token in the server's data directory";
    case "unavailable":
      return "is the server running, and is its address right? See --server and HODEI_SERVER";
    default:
      return "";
  }
}

function oneLine(message: string): string {
  return message.trim().replaceAll(/\s*\n\s*/g, "; ");
}

/** With the causes: the interesting one is often the innermost. */
function stackOf(error: unknown): string {
  let text = "";
  let current: unknown = error;
  for (let depth = 0; depth < 5 && current instanceof Error; depth += 1) {
    text += `${depth === 0 ? "" : "caused by: "}${current.stack ?? current.message}\n`;
    current = current.cause;
  }
  return text;
}
