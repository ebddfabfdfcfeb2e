/** `hodei doctor`: what is wrong with a server and what it runs on, each with the next step. */

import { AppError } from "../../base/errors.ts";
import type { ProviderView } from "../../core/pool-view.ts";
import { providerStateFromWire } from "../../protocol/convert-pool.ts";
import type { WorkerView } from "../../protocol/convert-worker.ts";
import { call } from "../call.ts";
import type { CliCommand, Colors, CommandContext } from "../command.ts";
import type { Connection } from "../connection.ts";
import { EXIT } from "../exit-codes.ts";
import { formatAge, formatDuration } from "../job-text.ts";
import { toJsonText } from "../json-views.ts";
import { jsonOutput } from "../option-values.ts";
import { printable } from "../table.ts";
import { listPools } from "./pools.ts";
import { queueStatuses } from "./queue.ts";
import { listWorkers } from "./workers.ts";

/** A warning is worth a look; with a problem, something does not work. */
interface Finding {
  check: "server" | "database" | "providers" | "orphans" | "workers" | "pools" | "queues";
  status: "ok" | "warning" | "problem";
  message: string;
  /** What to do; empty if nothing. */
  next: string;
}

export const doctorCommand: CliCommand = {
  configure(command) {
    command
      .option("-o, --output <format>", "json: an array of findings")
      .addHelpText(
        "after",
        "\nThe exit code is 1 if there is a problem; warnings alone are none.\n\nExample:\n  hodei doctor",
      );
  },
  async run({ options }, context) {
    const isJson = jsonOutput(options);
    const findings = await examine(context);
    const text = findings.map((finding) => findingText(finding, context.colors.stdout)).join("");
    await context.stdout.write(isJson ? toJsonText(findings) : `${text}${summary(findings)}`);
    return findings.some(({ status }) => status === "problem") ? EXIT.failure : EXIT.ok;
  },
};

async function examine(context: CommandContext): Promise<Finding[]> {
  let connection: Connection;
  try {
    connection = await context.connect("running_server");
    const server = await serverFindings(connection, context);
    return [...server, ...(await examineParts(connection, context))];
  } catch (error) {
    // Without a server the other questions would only repeat the answer.
    return [failed("server", error)];
  }
}

async function serverFindings(connection: Connection, { environment }: CommandContext): Promise<Finding[]> {
  const info = await call("ask the server", () => connection.server.getServerInfo({}));
  const { version } = environment;
  const server = `version ${info.version} answers at ${connection.url}`;
  const next = "use the hodei of the same version as the server";
  return [
    info.version === version
      ? ok("server", server)
      : { check: "server", status: "warning", message: `${server}, this is ${version}`, next },
    info.databaseVersion === ""
      ? {
          check: "database",
          status: "problem",
          message: "the server does not say which one it has",
          next: "see the log of the server",
        }
      : ok("database", info.databaseVersion),
  ];
}

/** A question that fails is a finding, and the others are asked all the same. */
async function examineParts(connection: Connection, context: CommandContext): Promise<Finding[]> {
  const parts: [Finding["check"], () => Promise<Finding[]>][] = [
    ["providers", () => providerFindings(connection)],
    ["pools", () => poolFindings(connection, context)],
    ["workers", () => workerFindings(connection, context)],
    ["queues", () => queueFindings(connection)],
  ];
  const findings: Finding[] = [];
  for (const [check, ask] of parts) {
    try {
      findings.push(...(await ask()));
    } catch (error) {
      findings.push(failed(check, error));
    }
  }
  return findings;
}

async function providerFindings(connection: Connection): Promise<Finding[]> {
  const { providers } = await call("check providers", () => connection.pools.checkProviders({}));
  const states = providers.map(providerStateFromWire);
  const bad = states.filter(({ status }) => status !== "healthy").map(providerFinding);
  const orphans = states.filter((provider) => provider.orphans > 0).map(orphanFinding);
  const destroyed = states.reduce((sum, provider) => sum + provider.orphansDestroyed, 0);
  return [
    ...(bad.length > 0
      ? bad
      : [ok("providers", `${states.map(({ name }) => name).join(", ") || "none"}: healthy`)]),
    ...(orphans.length > 0 ? orphans : [ok("orphans", `none is left, ${destroyed} were destroyed`)]),
  ];
}

function providerFinding({ name, status, reason, pools }: ProviderView): Finding {
  const message = `${name} is ${status}${reason === "" ? "" : `: ${reason}`}`;
  const used = pools.length === 0 ? "" : ` (pools ${pools.join(", ")})`;
  const next = `put it right${used}, then: hodei providers check`;
  return { check: "providers", status: status === "unhealthy" ? "problem" : "warning", message, next };
}

function orphanFinding({ name, orphans }: ProviderView): Finding {
  const what = orphans === 1 ? "1 instance" : `${orphans} instances`;
  const message = `${name} still has ${what} that nobody owns`;
  return {
    check: "orphans",
    status: "problem",
    message,
    next: "the server tries again to destroy them; see its log",
  };
}

async function poolFindings(connection: Connection, { environment }: CommandContext): Promise<Finding[]> {
  const pools = await listPools(connection);
  if (pools.length === 0) {
    const next = "make some with: hodei pools apply -f FILE, or start a worker: hodei workers token --help";
    return [
      { check: "pools", status: "warning", message: "there are none: no worker is made on demand", next },
    ];
  }
  const nowMs = environment.clock.nowMs();
  const bad = pools
    .filter(({ problem }) => problem !== "")
    .map(({ definition, problem, retryAtMs }): Finding => {
      const wait = retryAtMs !== null && retryAtMs > nowMs ? ` in ${formatDuration(retryAtMs - nowMs)}` : "";
      const next = `it is tried again${wait}; see the pool with: hodei pools get ${definition.name}`;
      return { check: "pools", status: "problem", message: `${definition.name}: ${problem}`, next };
    });
  return bad.length > 0 ? bad : [ok("pools", `${pools.length} can make workers`)];
}

async function workerFindings(connection: Connection, { environment }: CommandContext): Promise<Finding[]> {
  const workers = await listWorkers(connection, false);
  const nowMs = environment.clock.nowMs();
  const bad = workers.flatMap((worker) => workerFinding(worker, nowMs));
  const others = new Set(workers.flatMap(({ info }) => info?.version || []));
  others.delete(environment.version);
  if (others.size > 0) {
    const message = `some run version ${[...others].join(", ")}, not ${environment.version}`;
    bad.push({
      check: "workers",
      status: "warning",
      message,
      next: "drain them: new ones have the version of the server",
    });
  }
  return bad.length > 0 ? bad : [ok("workers", `${workers.length}, none broken or unreachable`)];
}

function workerFinding(
  { id, name, state, message, lastHeartbeatAtMs }: WorkerView,
  nowMs: number,
): Finding[] {
  const why = message === "" ? "" : `: ${message}`;
  if (state === "broken") {
    const next = `look at its machine, then: hodei workers remove ${id}`;
    return [{ check: "workers", status: "problem", message: `${name} (${id}) is broken${why}`, next }];
  }
  if (state !== "unreachable") return [];
  const since = lastHeartbeatAtMs === null ? "" : ` for ${formatAge(nowMs - lastHeartbeatAtMs)}`;
  const next = `it may come back; if it never will: hodei workers remove --force ${id}`;
  return [
    { check: "workers", status: "problem", message: `${name} (${id}) is unreachable${since}${why}`, next },
  ];
}

async function queueFindings(connection: Connection): Promise<Finding[]> {
  const queues = await queueStatuses(connection, "");
  const held = queues
    .filter(({ config, pending }) => config.paused && pending > 0)
    .map(({ name, pending }): Finding => {
      const message = `${name} is paused, and ${pending === 1 ? "1 job waits" : `${pending} jobs wait`} in it`;
      return {
        check: "queues",
        status: "warning",
        message,
        next: `let it go on: hodei queue set ${name} --resume`,
      };
    });
  const waiting = queues.reduce((sum, { pending }) => sum + pending, 0);
  return held.length > 0 ? held : [ok("queues", waiting === 1 ? "1 job waits" : `${waiting} jobs wait`)];
}

function ok(check: Finding["check"], message: string): Finding {
  return { check, status: "ok", message, next: "" };
}

function failed(check: Finding["check"], error: unknown): Finding {
  if (!(error instanceof AppError)) throw error;
  const { hint } = error.details;
  const next = typeof hint === "string" && hint !== "" ? hint : NEXT_AFTER_FAILURE[error.code];
  return { check, status: "problem", message: error.message, next: next ?? "see the log of the server" };
}

const NEXT_AFTER_FAILURE: Readonly<Partial<Record<AppError["code"], string>>> = {
  unavailable: "is the server running, and is its address right? See --server and HODEI_SERVER",
  unauthenticated: "set HODEI_API_TOKEN_FILE to the file api-token in the data directory of the server",
};

function findingText({ check, status, message, next }: Finding, colors: Colors): string {
  const mark = { ok: colors.green("✓"), warning: colors.yellow("!"), problem: colors.red("✗") }[status];
  const line = `${mark} ${check.padEnd(10)} ${printable(message.replaceAll("\n", " "))}\n`;
  return next === "" ? line : `${line}  ${" ".repeat(10)} ${colors.dim(`next: ${printable(next)}`)}\n`;
}

function summary(findings: readonly Finding[]): string {
  const count = (status: Finding["status"]): number =>
    findings.filter((finding) => finding.status === status).length;
  const problems = count("problem");
  const warnings = count("warning");
  if (problems + warnings === 0) return "\nall is well\n";
  return `\n${problems === 1 ? "1 problem" : `${problems} problems`}, ${warnings === 1 ? "1 warning" : `${warnings} warnings`}\n`;
}
