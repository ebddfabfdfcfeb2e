import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, realpath, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import type { Flags } from "../base/settings.ts";
import { installService, uninstallService } from "./install.ts";
import { agentSettings } from "./settings.ts";

async function setup(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), "hodei-install-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const unitDirectory = join(directory, "units");
  await mkdir(unitDirectory);
  const tokenFile = join(directory, "token");
  await writeFile(tokenFile, "the-secret-token\n");
  const said: string[] = [];
  const options = (flags: Flags) => ({
    flags,
    script: fileURLToPath(import.meta.url),
    unitDirectory,
    hasSystemd: false,
    write: (text: string) => void said.push(text),
  });
  const flags: Flags = {
    server: "https://hodei.example.com:9090",
    tokenFile,
    directory: join(directory, "worker"),
  };
  return { directory, unitDirectory, tokenFile, said, options, flags };
}

/** Sections to names to values, by systemd.syntax(7); a name that comes twice is a fault here. */
function parseUnit(text: string): Map<string, Map<string, string>> {
  const sections = new Map<string, Map<string, string>>();
  let section = new Map<string, string>();
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const header = /^\[(\w+)\]$/.exec(line)?.[1];
    if (header !== undefined) {
      section = new Map();
      sections.set(header, section);
      continue;
    }
    const [, name = "", value = ""] = /^(\w+)=(.*)$/.exec(line) ?? [];
    assert.ok(name !== "" && !section.has(name), `not a setting, or twice: ${line}`);
    section.set(name, value);
  }
  return sections;
}

/** The words of a command as systemd hands them to the program. */
function wordsOf(command: string): string[] {
  const words = command.match(/"(?:\\.|[^"\\])*"|[^\s"]+/g) ?? [];
  return words.map((word) =>
    word
      .replace(/^"(.*)"$/s, "$1")
      .replaceAll(/\\(.)/g, "$1")
      .replaceAll("%%", "%")
      .replaceAll("$$", () => "$"),
  );
}

test("the unit starts the agent with every setting that was given, whatever is in it", async (t) => {
  const { said, options, flags } = await setup(t);
  const given: Flags = {
    ...flags,
    name: `my "100%" $HOME \\ box`,
    jobs: "3",
    cpuMillis: "1500",
    memory: "2Gi",
    disk: "10Gi",
    gpu: "1",
    labels: "zone=eu,text=a b",
    taints: "gpu=a100:NoSchedule",
    offlineExit: "1h",
    drainTimeout: "2m",
    logLevel: "warn",
  };
  await installService(options({ ...given, print: true }));
  const unit = parseUnit(said.join(""));
  const words = wordsOf(unit.get("Service")?.get("ExecStart") ?? "");
  const expected = Object.entries(agentSettings).flatMap(([name, { flag }]) =>
    flag === null ? [] : [flag, String(given[name])],
  );
  const script = await realpath(fileURLToPath(import.meta.url));
  assert.deepEqual(words, [process.execPath, script, "agent", ...expected]);
  assert.ok(!words.includes("undefined"), "a flag whose setting has another name");
  assert.equal(unit.get("Service")?.get("TimeoutStopSec"), "150s");
});

test("a restart harms no job, a refusal is not repeated, and no secret is in the unit", async (t) => {
  const { said, options, flags, unitDirectory } = await setup(t);
  await installService(options({ ...flags, print: true }));
  const text = said.join("");
  const service = parseUnit(text).get("Service");
  assert.ok(service);
  assert.equal(service.get("KillMode"), "process");
  assert.equal(service.get("Restart"), "always");
  assert.equal(service.get("RestartPreventExitStatus"), "0 78");
  assert.equal(service.get("Delegate"), "yes");
  assert.equal(service.get("OOMPolicy"), "continue");
  assert.doesNotMatch(text, /the-secret-token/);
  // What would be taken from the jobs as well.
  for (const name of ["NoNewPrivileges", "PrivateTmp", "ProtectSystem", "ProtectHome", "MemoryMax"]) {
    assert.equal(service.get(name), undefined, name);
  }
  assert.deepEqual(await readdir(unitDirectory), [], "--print writes nothing");
});

test("systemd makes a directory in /var/lib, a command one elsewhere, for the user of the worker", async (t) => {
  const { said, options, flags } = await setup(t);
  const service = async (changes: Flags): Promise<Map<string, string>> => {
    said.length = 0;
    await installService(options({ ...flags, ...changes, print: true }));
    return parseUnit(said.join("")).get("Service") ?? new Map<string, string>();
  };
  const usual = await service({ directory: undefined });
  assert.equal(usual.get("StateDirectory"), "hodei-worker");
  assert.equal(usual.get("User"), "root");
  assert.match(usual.get("ExecStart") ?? "", /--directory \/var\/lib\/hodei-worker/);
  const second = await service({ directory: undefined, unit: "builder" });
  assert.equal(second.get("StateDirectory"), "builder");
  const elsewhere = await service({ directory: "/srv/my worker", user: "ci" });
  assert.equal(elsewhere.get("StateDirectory"), undefined);
  assert.equal(elsewhere.get("ExecStartPre"), `+/usr/bin/install -d -m 0700 -o ci "/srv/my worker"`);
});

const skip = spawnSync("systemd-analyze", ["--version"]).status === 0 ? false : "there is no systemd-analyze";
test("systemd itself takes the unit", { skip }, async (t) => {
  const { said, options, flags, unitDirectory } = await setup(t);
  await installService(options({ ...flags, name: `my "100%" $HOME \\ box`, print: true }));
  const path = join(unitDirectory, "hodei-worker.service");
  await writeFile(path, said.join(""));
  const verified = spawnSync("systemd-analyze", ["verify", path], { encoding: "utf8" });
  assert.equal(verified.status, 0, verified.stderr);
  // It only warns of what it does not know.
  assert.doesNotMatch(verified.stderr, /hodei-worker/);
});

test("without systemd the unit is written and the next steps are said", async (t) => {
  const { said, options, flags, unitDirectory } = await setup(t);
  const path = join(unitDirectory, "hodei-worker.service");
  const umask = process.umask(0o077);
  t.after(() => process.umask(umask));
  await installService(options(flags));
  assert.equal((await stat(path)).mode & 0o777, 0o644, "whatever the umask is");
  assert.deepEqual(await readdir(unitDirectory), ["hodei-worker.service"]);
  for (const step of ["daemon-reload", "enable hodei-worker", "start hodei-worker"]) {
    assert.ok(said.join("").includes(`  systemctl ${step}\n`), step);
  }
  said.length = 0;
  await installService(options({ ...flags, jobs: "2" }));
  assert.match(await readFile(path, "utf8"), / --jobs 2/);
  assert.match(said.join(""), /systemctl reload-or-restart hodei-worker/);

  await uninstallService(options({}));
  assert.deepEqual(await readdir(unitDirectory), []);
  await assert.rejects(uninstallService(options({})), { code: "not_found" });
});

const isRoot = process.getuid?.() === 0;
test(
  "the user of the worker can read the token",
  { skip: isRoot ? false : "only root can give files away" },
  async (t) => {
    const { tokenFile, options, flags } = await setup(t);
    await installService(options({ ...flags, user: "nobody" }));
    const uid = Number(execFileSync("id", ["-u", "nobody"], { encoding: "utf8" }));
    assert.equal((await stat(tokenFile)).uid, uid);
  },
);

test("a worker that could not start so is refused before anything is written", async (t) => {
  const { directory, unitDirectory, options, flags } = await setup(t);
  const wrong: [Flags, RegExp][] = [
    [{ server: undefined }, /--server/],
    [{ server: "nowhere" }, /is not the address of a server/],
    [{ tokenFile: undefined }, /--token-file; `hodei workers token`/],
    [{ tokenFile: join(directory, "none") }, /no such file/],
    [{ labels: "zone" }, /labels:/],
    [{ taints: "gpu=1" }, /taints:/],
    [{ user: "no such user" }, /no name of a user/],
    [{ user: "no-such-user" }, /no user no-such-user/],
    [{ unit: "../../etc/x" }, /no name of a unit/],
    [{ name: "two\nExecStart=/bin/sh" }, /control character/],
  ];
  for (const [changes, message] of wrong) {
    await assert.rejects(installService(options({ ...flags, ...changes })), { message }, String(message));
  }
  assert.deepEqual(await readdir(unitDirectory), []);
});

test("a worker that has registered before needs no token to become a service", async (t) => {
  const { directory, unitDirectory, options, flags } = await setup(t);
  await mkdir(join(directory, "worker"));
  await writeFile(join(directory, "worker", "session.json"), "{}");
  await installService(options({ ...flags, tokenFile: undefined }));
  const text = await readFile(join(unitDirectory, "hodei-worker.service"), "utf8");
  assert.doesNotMatch(text, /--token-file/);
});
