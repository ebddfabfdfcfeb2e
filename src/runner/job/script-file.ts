/**
 * Write-execute: how a script is written down and by whom it is run.
 *
 * It is run as `<interpreter> <file>` and never executed itself: a file that was just written
 * cannot be executed while another thread of this process is between fork and exec with the file
 * still open (ETXTBSY). The shebang is there for scripts that call themselves.
 */

import { basename } from "node:path";

const SAFETY_HEADERS: Readonly<Record<string, string>> = {
  bash: "set -euo pipefail",
  sh: "set -eu",
  dash: "set -eu",
  ash: "set -eu",
  ksh: "set -eu",
  zsh: "set -eu",
};

export interface ScriptPlan {
  /** Without the file, which comes last. */
  interpreter: string[];
  text: string;
}

/** A script that begins with a shebang of its own is run by that; else by `interpreter`. */
export function planScript(spec: {
  interpreter: string;
  content: string;
  safetyHeaders: boolean;
}): ScriptPlan {
  const own = /^#![ \t]*(\S+)[ \t]*(.*?)[ \t\r]*(?:\n|$)/.exec(spec.content);
  const shebang = own ? own[0].trimEnd() : makeShebang(spec.interpreter);
  const body = own ? spec.content.slice(own[0].length) : spec.content;
  // The kernel passes everything after the interpreter as one argument (execve(2)).
  const words = own
    ? [own[1] ?? "", own[2] ?? ""].filter((word) => word !== "")
    : splitWords(spec.interpreter);
  const interpreter = withoutEnv(words);
  const header = spec.safetyHeaders ? SAFETY_HEADERS[basename(interpreter[0] ?? "")] : undefined;
  const lines = header === undefined ? [shebang] : [shebang, header];
  return { interpreter, text: `${lines.join("\n")}\n${body}` };
}

function makeShebang(interpreter: string): string {
  const words = splitWords(interpreter);
  if (words[0]?.startsWith("/")) return `#!${words.join(" ")}`;
  return words.length > 1 ? `#!/usr/bin/env -S ${words.join(" ")}` : `#!/usr/bin/env ${words.join("")}`;
}

/** `/usr/bin/env node` is `node` looked up in PATH; so a missing one can be named. */
function withoutEnv(words: string[]): string[] {
  if (basename(words[0] ?? "") !== "env" || words.length < 2) return words;
  const rest = splitWords(words.slice(1).join(" "));
  const command = rest[0] === "-S" ? rest.slice(1) : rest;
  const isPlain = command[0] !== undefined && !command[0].startsWith("-") && !command[0].includes("=");
  return isPlain ? command : words;
}

function splitWords(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== "");
}
