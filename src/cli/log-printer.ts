/** Prints pieces of a log as they come, at the pace of the reader. */

import { describeGap, readGap } from "../core/log-gap.ts";
import type { LogStreamName } from "../core/log-record.ts";
import { LOG_STREAMS } from "../core/log-record.ts";
import { timeFromWire } from "../protocol/convert.ts";
import { LogStream, type LogEntry } from "../protocol/gen/hodei/v1/logs_pb.ts";
import type { Colors } from "./command.ts";
import type { Output } from "./output.ts";

/** A piece of one stream of a log. */
export interface LogPiece {
  stream: LogStreamName;
  timeMs: number;
  data: Uint8Array;
}

export interface LogPrinter {
  print(pieces: readonly LogPiece[], attempt: number): Promise<void>;
  /** Prints what was held back for want of the end of a line. */
  finish(): Promise<void>;
}

export function piecesFromWire(entries: readonly LogEntry[]): LogPiece[] {
  return entries.map((entry) => ({
    // Streams of a newer server are shown as if Hodei said them.
    stream: LOG_STREAMS[entry.stream - 1] ?? "system",
    timeMs: timeFromWire(entry.time) ?? 0,
    data: entry.stream === LogStream.GAP ? gapText(entry.data) : entry.data,
  }));
}

/** A gap of a newer server is shown as it is. */
function gapText(data: Uint8Array): Uint8Array {
  const gap = readGap(data);
  return Buffer.from(`[hodei: ${gap === null ? Buffer.from(data).toString() : describeGap(gap)}]\n`);
}

export interface TextPrinterOptions {
  /** Where each stream goes; null leaves it out. */
  targets: Record<LogStreamName, { output: Output; colors: Colors } | null>;
  timestamps: boolean;
  /** Nothing is changed, not even what Hodei says. */
  exact?: boolean;
}

const NEWLINE = 10;

/**
 * The bytes as they are, what Hodei says dimmed. With time stamps, each line begins with the time
 * at which its first byte was read; colours that a job left on stay on.
 */
export function createTextPrinter(options: TextPrinterOptions): LogPrinter {
  const isLineStart: Record<LogStreamName, boolean> = { stdout: true, stderr: true, system: true, gap: true };
  return {
    async print(pieces) {
      let pending: Uint8Array[] = [];
      let pendingFor: Output | null = null;
      for (const piece of pieces) {
        const target = options.targets[piece.stream];
        if (target === null || piece.data.length === 0) continue;
        if (pendingFor !== null && pendingFor !== target.output) {
          await pendingFor.write(Buffer.concat(pending));
          pending = [];
        }
        pendingFor = target.output;
        const data = options.exact === true ? piece.data : colored(piece, target.colors);
        pending.push(
          ...(options.timestamps ? stamped({ ...piece, data }, isLineStart, target.colors) : [data]),
        );
      }
      if (pendingFor !== null)
        await pendingFor.write(pending.length === 1 && pending[0] ? pending[0] : Buffer.concat(pending));
    },
    finish: async () => {},
  };
}

/** What Hodei says is dimmed, what is missing stands out, and the job's own bytes stay as they are. */
function colored({ stream, data }: LogPiece, colors: Colors): Uint8Array {
  if (stream === "system") return painted(data, colors.dim);
  return stream === "gap" ? painted(data, colors.yellow) : data;
}

function painted(data: Uint8Array, paint: (text: string) => string): Uint8Array {
  const text = Buffer.from(data).toString("utf8");
  const end = text.endsWith("\n") ? "\n" : "";
  return Buffer.from(paint(end === "" ? text : text.slice(0, -1)) + end);
}

function stamped(piece: LogPiece, isLineStart: Record<LogStreamName, boolean>, colors: Colors): Uint8Array[] {
  const stamp = Buffer.from(`${colors.dim(new Date(piece.timeMs).toISOString())} `);
  const parts: Uint8Array[] = [];
  let start = 0;
  while (start < piece.data.length) {
    if (isLineStart[piece.stream]) parts.push(stamp);
    const newline = piece.data.indexOf(NEWLINE, start);
    const end = newline < 0 ? piece.data.length : newline + 1;
    parts.push(piece.data.subarray(start, end));
    isLineStart[piece.stream] = newline >= 0;
    start = end;
  }
  return parts;
}

/** A line is cut into objects of this size, so that a log without newlines is not held in memory. */
const MAX_JSON_LINE_BYTES = 256 * 1024;

/** One JSON object for each line; bytes that are not UTF-8 stand in `base64` instead of `text`. */
export function createJsonPrinter(output: Output, streams: readonly LogStreamName[]): LogPrinter {
  const held = new Map<
    LogStreamName,
    { timeMs: number; attempt: number; parts: Uint8Array[]; size: number }
  >();
  const format = (stream: LogStreamName): string => {
    const line = held.get(stream);
    held.delete(stream);
    if (!line) return "";
    return `${JSON.stringify({ time: new Date(line.timeMs).toISOString(), stream, attempt: line.attempt, ...textOf(Buffer.concat(line.parts)) })}\n`;
  };
  return {
    async print(pieces, attempt) {
      let text = "";
      for (const { stream, timeMs, data } of pieces) {
        if (!streams.includes(stream)) continue;
        for (let start = 0; start < data.length;) {
          const newline = data.indexOf(NEWLINE, start);
          const end = newline < 0 ? data.length : newline;
          const line = held.get(stream) ?? { timeMs, attempt, parts: [], size: 0 };
          held.set(stream, line);
          // A copy: the piece is a part of a larger message, which would be held as a whole.
          line.parts.push(Uint8Array.prototype.slice.call(data, start, end));
          line.size += end - start;
          if (newline >= 0 || line.size >= MAX_JSON_LINE_BYTES) text += format(stream);
          start = newline < 0 ? end : end + 1;
        }
      }
      await output.write(text);
    },
    async finish() {
      await output.write([...held.keys()].map(format).join(""));
    },
  };
}

function textOf(bytes: Uint8Array): { text: string } | { base64: string } {
  try {
    return { text: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes) };
  } catch {
    // Not UTF-8: JSON cannot hold these bytes as they are.
    return { base64: Buffer.from(bytes).toString("base64") };
  }
}
