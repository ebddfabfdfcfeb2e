/**
 * The unit with which systemd runs an agent. No secret is in it: the token is a file, which the agent
 * removes when it has used it.
 *
 * Whatever would bind the jobs as well is left out: with `User=`, most of systemd's protections imply
 * `NoNewPrivileges`, by which `sudo` of a job would fail, and a mount namespace or `PrivateTmp` of one
 * agent would be torn from under the runner that goes on with the next one.
 */

import { AppError } from "../base/errors.ts";
import { AGENT_REFUSED } from "../base/exit-codes.ts";

export interface ServiceUnit {
  /** Of people, for `systemctl status`. */
  name: string;
  /** Absolute. */
  program: readonly [node: string, script: string];
  /** What follows `hodei agent`. */
  args: readonly string[];
  /** Holds the session; absolute. */
  directory: string;
  user: string;
  drainTimeoutMs: number;
}

/** What an agent needs after its jobs have ended: results, logs and leave-taking. */
const STOP_SLACK_MS = 30_000;

/** @throws AppError `invalid_argument` for a text that no unit can hold. */
export function serviceUnit(unit: ServiceUnit): string {
  const command = [...unit.program, "agent", ...unit.args].map(quoted).join(" ");
  const stopSeconds = Math.ceil((unit.drainTimeoutMs + STOP_SLACK_MS) / 1000);
  return `# Written by \`hodei agent install\`, which overwrites it; changes of yours belong into
# \`systemctl edit\`.
[Unit]
Description=Hodei worker ${plain(unit.name)}
Wants=network-online.target
After=network-online.target
# A server that is away for a day is no reason to give up.
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart=${command}
# The next agent goes on with what the runner holds: an upgrade harms no job.
ExecReload=/bin/kill -HUP $MAINPID
User=${plain(unit.user)}
${directoryLines(unit)}
Restart=always
RestartSec=5s
# 0: it was stopped or sent away. ${AGENT_REFUSED}: its token or session is refused, and will be again.
RestartPreventExitStatus=0 ${AGENT_REFUSED}
# The signal is for the agent alone, which ends its jobs or hands them over.
KillMode=process
TimeoutStopSec=${stopSeconds}s
# Each job gets a control group of its own below that of the unit.
Delegate=yes
TasksMax=infinity
# A job that takes too much memory ends by itself; the others and the agent go on.
OOMPolicy=continue

[Install]
WantedBy=multi-user.target
`;
}

const STATE = /^\/var\/lib\/([A-Za-z0-9_.:-]+)$/;

/** systemd makes and gives away what lies in /var/lib; elsewhere a command with its own rights does. */
function directoryLines({ directory, user }: ServiceUnit): string {
  const state = STATE.exec(directory)?.[1];
  if (state !== undefined) return `StateDirectory=${state}\nStateDirectoryMode=0700`;
  const make = ["/usr/bin/install", "-d", "-m", "0700", "-o", user, directory];
  return `ExecStartPre=+${make.map(quoted).join(" ")}`;
}

/** One word of a command, by systemd.service(5) and systemd.syntax(7). */
function quoted(word: string): string {
  const escaped = plain(word)
    .replaceAll("\\", "\\\\")
    .replaceAll('"', '\\"')
    .replaceAll("$", () => "$$");
  return /^[A-Za-z0-9_@%+=:,./$-]+$/.test(word) ? escaped : `"${escaped}"`;
}

/** A value without `%`, by which systemd means its own specifiers. */
function plain(text: string): string {
  // oxlint-disable-next-line no-control-regex
  if (/[\u0000-\u001f\u007f]/.test(text)) {
    throw new AppError("invalid_argument", `write unit: ${JSON.stringify(text)} has a control character`);
  }
  return text.replaceAll("%", "%%");
}
