/**
 * A job that leaves a trace outside of Hodei, which shows by itself what ran and when:
 *
 * - `effects`: `begin`, `beat` and `end`, each with the number of the attempt, the seconds since the
 *   boot and how many lines it had printed by then. What an attempt did is in here once or not at all.
 * - `holders`: the processes of each attempt with their start times. An attempt that finds one of
 *   another attempt alive writes a line to `violations`.
 *
 * Its lines are numbered on each of the two streams: `o 1 of job-7 attempt 1`.
 */

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { JobDefinitionSchema } from "../src/protocol/gen/hodei/v1/jobs_pb.ts";

/** A definition as callers write it. */
export type JobInit = Extract<MessageInitShape<typeof JobDefinitionSchema>, { $typeName?: never }>;

export interface WitnessOptions {
  name: string;
  /** Holds the trace; must exist. */
  directory: string;
  /** Rounds of output; each prints `burst` lines to stdout and one to stderr. */
  rounds: number;
  burst?: number;
  delaySeconds?: number;
  /** Added to each line of the first of a burst. */
  padBytes?: number;
  exitCode?: number;
  /** The first attempts end with code 3. */
  failures?: number;
  ignoresTerm?: boolean;
  /** Processes in sessions of their own that never end; every second one ignores SIGTERM. */
  children?: number;
  /** Split over as many steps; 1: a command. */
  steps?: number;
}

/** Everything about a job but its command is the caller's. */
export function witnessJob(options: WitnessOptions, rest: JobInit = {}): JobInit {
  const { steps = 1 } = options;
  const env = { ...environmentOf(options), ...rest.env };
  const base = { ...rest, name: options.name, env };
  if (steps === 1) return { ...base, command: COMMAND };
  return {
    ...base,
    steps: Array.from({ length: steps }, (_, index) => ({
      name: `part-${index + 1}`,
      command: COMMAND,
      env: { WITNESS_FIRST: index === 0 ? "1" : "", WITNESS_LAST: index === steps - 1 ? "1" : "" },
    })),
  };
}

function environmentOf(options: WitnessOptions): Record<string, string> {
  return {
    WITNESS_NAME: options.name,
    WITNESS_DIR: options.directory,
    WITNESS_ROUNDS: String(options.rounds),
    WITNESS_BURST: String(options.burst ?? 1),
    WITNESS_DELAY: String(options.delaySeconds ?? 0),
    WITNESS_PAD: String(options.padBytes ?? 0),
    WITNESS_EXIT: String(options.exitCode ?? 0),
    WITNESS_FAILURES: String(options.failures ?? 0),
    WITNESS_STUBBORN: options.ignoresTerm ? "1" : "",
    WITNESS_CHILDREN: String(options.children ?? 0),
    WITNESS_FIRST: "1",
    WITNESS_LAST: "1",
  };
}

/**
 * Only what bash does by itself, where that is possible: thousands of these run on few cores. The
 * trace is written after the lines it counts, so it never counts a line that was not printed.
 */
const SCRIPT = String.raw`
a=$HODEI_ATTEMPT dir=$WITNESS_DIR name=$WITNESS_NAME out=0 err=0
[ -z "$WITNESS_STUBBORN" ] || trap '' TERM

started_of() {
  local stat
  started=gone
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
  set -- ${"$"}{stat##*) }
  case $1 in Z | X) ;; *) started=${"$"}{20} ;; esac
}
hold() {
  started_of "$1"
  echo "$1 $started $a" >>"$dir/holders"
}
note() {
  local up
  read -r up _ </proc/uptime
  echo "$1 $a $up $out $err" >>"$dir/effects"
}
rest() {
  if [ "$WITNESS_DELAY" = 0 ]; then return; fi
  if [ -n "$clock" ]; then read -rt "$WITNESS_DELAY" -u 9 _; else sleep "$WITNESS_DELAY"; fi
}

hold $$
if [ -n "$WITNESS_FIRST" ]; then
  while read -r pid ticks attempt; do
    if [ "$pid" = $$ ] && [ "$attempt" = "$a" ]; then continue; fi
    started_of "$pid"
    if [ "$started" = "$ticks" ]; then
      echo "attempt $a found process $pid of attempt $attempt alive" >>"$dir/violations"
    fi
  done <"$dir/holders"
  note begin
else
  read -r out err <"$dir/counters-$a"
fi

clock=
if [ "$WITNESS_DELAY" != 0 ] && mkfifo "$TMPDIR/clock-$$" 2>/dev/null; then
  exec 9<>"$TMPDIR/clock-$$" && clock=1
fi
pad=
if [ "$WITNESS_PAD" != 0 ]; then printf -v pad ' %*s' "$WITNESS_PAD" ''; fi
for ((i = 0; i < WITNESS_CHILDREN; i++)); do
  if ((i % 2)); then (trap '' TERM; exec setsid sleep 900) & else setsid sleep 900 & fi
  hold $!
  # Else bash would tell the log when one of them is killed.
  disown $!
done

for ((n = 0; n < WITNESS_ROUNDS; n++)); do
  printf 'o %d of %s attempt %d%s\n' $((out + 1)) "$name" "$a" "$pad" || exit 98
  out=$((out + 1))
  if ((WITNESS_BURST > 1)); then
    seq -f "o %.0f of $name attempt $a" $((out + 1)) $((out + WITNESS_BURST - 1)) || exit 98
    out=$((out + WITNESS_BURST - 1))
  fi
  printf 'e %d of %s attempt %d\n' $((err + 1)) "$name" "$a" >&2 || exit 98
  err=$((err + 1))
  note beat
  rest
done

if [ -z "$WITNESS_LAST" ]; then
  echo "$out $err" >"$dir/counters-$a"
  exit 0
fi
note end
if ((a <= WITNESS_FAILURES)); then exit 3; fi
exit "$WITNESS_EXIT"
`;

const COMMAND = {
  commandType: {
    case: "script" as const,
    value: { interpreter: "bash", content: SCRIPT, noSafetyHeaders: true },
  },
};

/** One line of `effects`. */
export interface Effect {
  kind: "begin" | "beat" | "end";
  attempt: number;
  /** Milliseconds since the boot of the machine. */
  atMs: number;
  /** Lines printed by then. */
  out: number;
  err: number;
}

export interface Trace {
  effects: Effect[];
  /** In words: a process of another attempt was alive. */
  violations: string[];
  /** Every process that an attempt started. */
  holders: { pid: number; startTicks: string; attempt: number }[];
}

export async function readTrace(directory: string): Promise<Trace> {
  const [effects, violations, holders] = await Promise.all(
    ["effects", "violations", "holders"].map((name) => linesOf(join(directory, name))),
  );
  return {
    effects: (effects ?? []).map(toEffect),
    violations: violations ?? [],
    holders: (holders ?? []).map((line) => {
      const [pid = "", startTicks = "", attempt = ""] = line.split(" ");
      return { pid: Number(pid), startTicks, attempt: Number(attempt) };
    }),
  };
}

async function linesOf(path: string): Promise<string[]> {
  const text = await readFile(path, "utf8").catch(() => "");
  return text.split("\n").filter((line) => line !== "");
}

function toEffect(line: string): Effect {
  const [kind = "", attempt, up, out, err] = line.split(" ");
  if (kind !== "begin" && kind !== "beat" && kind !== "end") throw new Error(`no line of a trace: ${line}`);
  return {
    kind,
    attempt: Number(attempt),
    atMs: Math.round(Number(up) * 1_000),
    out: Number(out),
    err: Number(err),
  };
}
