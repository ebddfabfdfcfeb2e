/** Why a container has ended, in words for whoever finds a job that was lost with it. */

import { errorMessage } from "../../base/errors.ts";
import { formatBytes } from "../../base/quantities.ts";
import type { Engine } from "./engine.ts";

export interface EndedState {
  ExitCode: number;
  OOMKilled: boolean;
  /** The engine's own word, mostly empty. */
  Error: string;
}

export interface EndedContainer {
  name: string;
  state: EndedState;
  /** What it could have; 0 without a limit. */
  memoryBytes: number;
}

/** How much of what a container has said is of interest. */
const LAST_LINES = "50";
const MAX_WORDS = 500;
const SIGKILL_CODE = 137;

export async function describeEnd(engine: Engine, container: EndedContainer): Promise<string> {
  const { state, name, memoryBytes } = container;
  const reasons = [`its container ended with ${exitText(state.ExitCode)}`];
  if (state.OOMKilled) reasons.push("the kernel killed for want of memory in it");
  // An engine begins to watch a container's memory after its start, and misses what happens until then.
  else if (state.ExitCode === SIGKILL_CODE && memoryBytes > 0)
    reasons.push(`perhaps for want of memory, its limit is ${formatBytes(memoryBytes)}`);
  if (state.Error !== "") reasons.push(state.Error);
  // What is killed from outside has no last words, only old ones.
  if (state.ExitCode !== 0 && state.ExitCode < 128) reasons.push(await lastWords(engine, name));
  return reasons.filter((reason) => reason !== "").join(": ");
}

/** The program could not be started: its files are not there, or are not for this machine. */
export function hasNotStarted(state: EndedState): boolean {
  return state.ExitCode === 126 || state.ExitCode === 127;
}

/** As a shell counts: 128+n for signal n. */
function exitText(code: number): string {
  const signal = { [SIGKILL_CODE]: "SIGKILL", 139: "SIGSEGV", 134: "SIGABRT", 143: "SIGTERM" }[code];
  return signal === undefined ? `code ${code}` : `${signal} (code ${code})`;
}

async function lastWords(engine: Engine, name: string): Promise<string> {
  try {
    const bytes = await engine.bytes({
      method: "GET",
      path: `/containers/${name}/logs`,
      query: { stdout: "true", stderr: "true", tail: LAST_LINES },
      what: `read what container ${name} said`,
    });
    return whatMatters(readFrames(bytes)).slice(0, MAX_WORDS);
  } catch (error) {
    return `(${errorMessage(error)})`;
  }
}

/** Of a program that Node.js has ended the error without its stack, else the last line. */
function whatMatters(text: string): string {
  const [error] = /^\w*Error: [^]*?(?=\n +at )/m.exec(text) ?? [];
  return error?.replaceAll(/\s+/g, " ") ?? text.trimEnd().split("\n").at(-1) ?? "";
}

/** Pieces of output, each after 8 bytes: its stream, three zeros, and its length. */
function readFrames(bytes: Buffer): string {
  const pieces: Buffer[] = [];
  for (let at = 0; at + 8 <= bytes.length;) {
    const end = at + 8 + bytes.readUInt32BE(at + 4);
    pieces.push(bytes.subarray(at + 8, end));
    at = end;
  }
  return Buffer.concat(pieces).toString("utf8");
}
