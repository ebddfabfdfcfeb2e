/**
 * A job that prints numbered lines at a steady pace and keeps its own account of them: it counts and
 * hashes what it prints, so that the log can be held against it without a copy of the output.
 *
 * It counts ticks, not time: one that was frozen or had to wait for its pipe goes on where it was.
 */

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { systemErrorCode } from "../../src/base/errors.ts";
import { eventually } from "../../src/base/eventually.ts";
import type { JobInit } from "../witness-job.ts";

export interface TalkOptions {
  name: string;
  /** Holds its account; must exist. */
  directory: string;
  ticks: number;
  /** Of every attempt but the first; the same if not set. */
  laterTicks?: number;
  tickMs: number;
  /** Printed to stdout in each tick; besides, one line goes to stderr. */
  bytesPerTick: number;
  /** How long it is busy in each tick. */
  burnMs?: number;
  exitCode: number;
  /** Processes in sessions of their own that ignore SIGTERM. */
  children?: number;
}

export interface StreamAccount {
  bytes: number;
  sha256: string;
}

/** What an attempt says of its beginning. */
export interface TalkBegin {
  pid: number;
  /** Milliseconds after the boot of the machine. */
  bootMs: number;
}

/** What an attempt says when it has printed everything. */
export interface TalkEnd {
  stdout: StreamAccount;
  stderr: StreamAccount;
  lines: number;
}

export function talkingJob(options: TalkOptions, rest: JobInit = {}): JobInit {
  const script = { interpreter: process.execPath, content: SCRIPT };
  return {
    ...rest,
    name: options.name,
    env: { TALK: JSON.stringify({ laterTicks: options.ticks, burnMs: 0, children: 0, ...options }) },
    command: { commandType: { case: "script" as const, value: script } },
  };
}

/** Waits until an attempt has begun. */
export function untilBegun(options: TalkOptions, attempt: number, timeoutMs: number): Promise<TalkBegin> {
  return eventually(() => readAccount<TalkBegin>(options, `begin-${attempt}`), {
    timeoutMs,
    intervalMs: 50,
    what: `the beginning of attempt ${attempt} of ${options.name}`,
  });
}

/** Null if the attempt has not printed everything. */
export function readEnd(options: TalkOptions, attempt: number): Promise<TalkEnd | null> {
  return readAccount<TalkEnd>(options, `end-${attempt}`);
}

async function readAccount<T>({ directory, name }: TalkOptions, part: string): Promise<T | null> {
  try {
    return JSON.parse(await readFile(join(directory, `${name}-${part}`), "utf8")) as T;
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return null;
    throw error;
  }
}

const SCRIPT = String.raw`
const { createHash } = require("node:crypto");
const { spawn } = require("node:child_process");
const { readFileSync, renameSync, writeFileSync, writeSync } = require("node:fs");

const talk = JSON.parse(process.env.TALK);
const attempt = Number(process.env.HODEI_ATTEMPT);
const ticks = attempt === 1 ? talk.ticks : talk.laterTicks;
const LINE_BYTES = 100;
const filling = "abcdefghijklmnopqrstuvwxyz".repeat(4);
const sleeper = new Int32Array(new SharedArrayBuffer(4));
let lines = 0;

function stream(fd) {
  const hash = createHash("sha256");
  let bytes = 0;
  return {
    print(text) {
      const data = Buffer.from(text);
      for (let at = 0; at < data.length; ) at += writeSync(fd, data, at);
      hash.update(data);
      bytes += data.length;
    },
    account: () => ({ bytes, sha256: hash.digest("hex") }),
  };
}
function note(part, value) {
  const path = talk.directory + "/" + talk.name + "-" + part + "-" + attempt;
  writeFileSync(path + ".new", JSON.stringify(value));
  renameSync(path + ".new", path);
}
function bootMs() {
  return Math.round(Number.parseFloat(readFileSync("/proc/uptime", "latin1")) * 1000);
}
function numbered(bytes) {
  let text = "";
  while (text.length < bytes) {
    lines += 1;
    text += (lines + " of " + talk.name + " attempt " + attempt + " " + filling).slice(0, LINE_BYTES - 1) + "\n";
  }
  return text;
}
function burn(ms) {
  const end = process.hrtime.bigint() + BigInt(ms) * 1000000n;
  while (process.hrtime.bigint() < end);
}

note("begin", { pid: process.pid, bootMs: bootMs() });
for (let i = 0; i < talk.children; i++) {
  const child = spawn("bash", ["-c", "trap '' TERM; exec sleep 7200"], { detached: true, stdio: "ignore" });
  child.unref();
}
const stdout = stream(1);
const stderr = stream(2);
for (let tick = 1; tick <= ticks; tick++) {
  stdout.print(numbered(talk.bytesPerTick));
  stderr.print("tick " + tick + "\n");
  burn(talk.burnMs);
  Atomics.wait(sleeper, 0, 0, talk.tickMs);
}
note("end", { stdout: stdout.account(), stderr: stderr.account(), lines });
process.exitCode = talk.exitCode;
`;
