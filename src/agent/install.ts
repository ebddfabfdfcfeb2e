/** `hodei agent install` and `uninstall`: the worker of this machine as a service of systemd. */

import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { access, chmod, chown, realpath, rename, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { AppError, errorMessage, systemErrorCode } from "../base/errors.ts";
import { readSettings, type Flags } from "../base/settings.ts";
import { NEW_TOKEN_HINT } from "./registration.ts";
import { serviceUnit } from "./service-unit.ts";
import { agentSettings } from "./settings.ts";
import { parseLabels, parseTaints } from "./worker-info.ts";

export interface ServiceOptions {
  /** Those of `hodei agent`, and `unit`, `user` and `print`. */
  flags: Flags;
  /** The script that runs `hodei`. */
  script: string;
  /** Where units lie: `SYSTEM_UNITS`. */
  unitDirectory: string;
  /** Whether systemd is there to be told: `isSystemdRunning()`. */
  hasSystemd: boolean;
  /** Takes what is said to people, or the unit. */
  write(text: string): void;
}

export const SYSTEM_UNITS = "/etc/systemd/system";
const DEFAULT_UNIT = "hodei-worker";
const run = promisify(execFile);

/** By sd_booted(3). */
export function isSystemdRunning(): boolean {
  return existsSync("/run/systemd/system");
}

/** @throws AppError before anything is written, if the worker could not start so. */
export async function installService(options: ServiceOptions): Promise<void> {
  const { flags, write } = options;
  const service = await readService(options);
  if (flags["print"] === true) {
    write(service.text);
    return;
  }
  await checkToken(service);
  const uid = await userId(service.user);
  const isReplaced = existsSync(service.path);
  await writeUnit(service.path, service.text);
  // The agent reads it as this user, and can then remove it where the directory lets it.
  if (service.tokenFile !== null && uid !== 0) await giveAway(service.tokenFile, uid);
  write(`wrote ${service.path}\n`);
  await tellSystemd(startCommands(service.unit, isReplaced), options);
}

/** Stops the service and removes its unit; the directory of the worker stays. */
export async function uninstallService(options: ServiceOptions): Promise<void> {
  const unit = unitName(options.flags);
  const path = join(options.unitDirectory, `${unit}.service`);
  if (!existsSync(path)) throw new AppError("not_found", `remove unit ${path}: there is none`);
  if (options.hasSystemd) await systemctl(["disable", "--now", unit]);
  try {
    await rm(path);
  } catch (error) {
    throw unitError("remove", path, error);
  }
  options.write(`removed ${path}\n`);
  await tellSystemd([["daemon-reload"]], options);
  options.write("the directory of the worker stays; `hodei workers remove` takes the worker off the list\n");
}

interface Service {
  unit: string;
  path: string;
  text: string;
  user: string;
  directory: string;
  tokenFile: string | null;
}

async function readService({ flags, script, unitDirectory }: ServiceOptions): Promise<Service> {
  const unit = unitName(flags);
  if (flags["server"] === undefined) {
    throw new AppError("invalid_argument", "install agent: give the worker port of a server with --server");
  }
  const directory = resolve(typeof flags["directory"] === "string" ? flags["directory"] : `/var/lib/${unit}`);
  const { tokenFile: givenToken } = flags;
  const tokenFile = typeof givenToken === "string" ? resolve(givenToken) : null;
  const kept: Flags = { ...flags, directory, tokenFile: tokenFile ?? undefined };
  // Not from the environment, which the service will not have.
  const settings = readSettings(agentSettings, { env: {}, flags: kept });
  parseLabels(settings.labels);
  parseTaints(settings.taints);
  const user = typeof flags["user"] === "string" ? flags["user"] : "root";
  if (!/^[A-Za-z_][A-Za-z0-9_.-]*\$?$/.test(user)) {
    throw new AppError(
      "invalid_argument",
      `install agent: --user ${JSON.stringify(user)} is no name of a user`,
    );
  }
  const text = serviceUnit({
    name: settings.name ?? unit,
    program: [process.execPath, await realpath(script)],
    args: argumentsOf(kept),
    directory,
    user,
    drainTimeoutMs: settings.drainTimeout,
  });
  return { unit, path: join(unitDirectory, `${unit}.service`), text, user, directory, tokenFile };
}

/** The flags as they were given, in the order of the table, whose names are those of the flags. */
function argumentsOf(flags: Flags): string[] {
  return Object.entries(agentSettings).flatMap(([name, { flag }]) => {
    const value = flags[name];
    return flag === null || value === undefined ? [] : [flag, String(value)];
  });
}

function unitName(flags: Flags): string {
  const unit = typeof flags["unit"] === "string" ? flags["unit"] : DEFAULT_UNIT;
  if (/^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}$/.test(unit) && !unit.endsWith(".service")) return unit;
  throw new AppError(
    "invalid_argument",
    `install agent: --unit ${JSON.stringify(unit)} is no name of a unit`,
  );
}

/** Without a token the service could only fail, unless the worker has registered before. */
async function checkToken({ tokenFile, directory }: Service): Promise<void> {
  if (existsSync(join(directory, "session.json"))) return;
  if (tokenFile === null) {
    throw new AppError(
      "invalid_argument",
      `install agent: give the file of a one-time token with --token-file; ${NEW_TOKEN_HINT}`,
    );
  }
  try {
    await access(tokenFile);
  } catch (cause) {
    throw new AppError("invalid_argument", `install agent: --token-file: ${errorMessage(cause)}`, { cause });
  }
}

async function userId(user: string): Promise<number> {
  try {
    return Number((await run("id", ["-u", user])).stdout);
  } catch (cause) {
    throw new AppError("not_found", `install agent: there is no user ${user} on this machine`, { cause });
  }
}

async function writeUnit(path: string, text: string): Promise<void> {
  try {
    await writeFile(`${path}.new`, text);
    // Whatever the umask is: it holds no secret, and `systemctl cat` shows it to everybody.
    await chmod(`${path}.new`, 0o644);
    await rename(`${path}.new`, path);
  } catch (error) {
    throw unitError("write", path, error);
  }
}

function unitError(verb: string, path: string, cause: unknown): AppError {
  const code = systemErrorCode(cause);
  const isForbidden = code === "EACCES" || code === "EPERM" || code === "EROFS";
  const hint = isForbidden ? "; it takes root, or `--print` for the text of the unit" : "";
  return new AppError(
    isForbidden ? "permission_denied" : "failed_precondition",
    `${verb} unit ${path}: ${errorMessage(cause)}${hint}`,
    { cause },
  );
}

async function giveAway(file: string, uid: number): Promise<void> {
  try {
    await chown(file, uid, -1);
  } catch (error) {
    // There is none if the worker has registered before.
    if (systemErrorCode(error) === "ENOENT") return;
    throw new AppError(
      "permission_denied",
      `give ${file} to the user of the worker: ${errorMessage(error)}`,
      {
        cause: error,
      },
    );
  }
}

/** An agent that runs already is told to hand over, which its jobs do not notice. */
function startCommands(unit: string, isReplaced: boolean): string[][] {
  return [["daemon-reload"], ["enable", unit], [isReplaced ? "reload-or-restart" : "start", unit]];
}

async function tellSystemd(
  commands: readonly string[][],
  { hasSystemd, write }: Pick<ServiceOptions, "hasSystemd" | "write">,
): Promise<void> {
  if (!hasSystemd) {
    const lines = commands.map((args) => `  systemctl ${args.join(" ")}\n`);
    write(`systemd does not run here; where it does:\n${lines.join("")}`);
    return;
  }
  for (const args of commands) {
    await systemctl(args);
    write(`systemctl ${args.join(" ")}\n`);
  }
}

async function systemctl(args: readonly string[]): Promise<void> {
  try {
    await run("systemctl", args);
  } catch (cause) {
    throw new AppError("failed_precondition", `systemctl ${args.join(" ")}: ${errorMessage(cause)}`, {
      cause,
    });
  }
}
