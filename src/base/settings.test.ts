import assert from "node:assert/strict";
import { test } from "node:test";
import { Command } from "commander";
import { AppError } from "./errors.ts";
import {
  defineSettings,
  readSettings,
  setting,
  settingsMarkdown,
  settingsOptions,
  type SettingProblem,
} from "./settings.ts";

const table = defineSettings({
  httpPort: setting.integer({
    env: "HODEI_HTTP_PORT",
    flag: "--http-port",
    default: 8080,
    min: 0,
    max: 65535,
    unit: "port",
    description: "Port for people.",
  }),
  databaseUrl: setting.url({
    env: "HODEI_DATABASE_URL",
    flag: "--db",
    default: null,
    secret: true,
    protocols: ["postgres", "postgresql"],
    defaultText: "a private PostgreSQL",
    description: "The database.",
  }),
  insecure: setting.boolean({
    env: "HODEI_INSECURE",
    flag: "--insecure",
    default: false,
    description: "Do without TLS.",
  }),
  console: setting.boolean({
    env: "HODEI_CONSOLE",
    flag: "--console",
    default: true,
    description: "Serve the console.",
  }),
  idle: setting.durationMs({
    env: "HODEI_IDLE",
    flag: "--idle",
    default: 30_000,
    min: 1_000,
    description: "How long | to wait.",
  }),
  spool: setting.bytes({
    env: "HODEI_SPOOL",
    flag: "--spool",
    default: 256 * 2 ** 20,
    description: "Bytes of spool.",
  }),
  level: setting.choice({
    env: "HODEI_LOG_LEVEL",
    flag: "--log-level",
    choices: ["info", "warn"],
    default: "info",
    description: "How much to say.",
  }),
  data: setting.path({
    env: "HODEI_DATA_DIR",
    flag: "--data-dir",
    default: null,
    description: "Where to keep data.",
  }),
  name: setting.string({
    env: "HODEI_NAME",
    flag: null,
    default: "hodei",
    pattern: /^[a-z]+$/,
    description: "Its name.",
  }),
});

test("without flags and environment every setting has its default", () => {
  assert.deepEqual(readSettings(table, { env: {} }), {
    httpPort: 8080,
    databaseUrl: null,
    insecure: false,
    console: true,
    idle: 30_000,
    spool: 268_435_456,
    level: "info",
    data: null,
    name: "hodei",
  });
});

test("the types of the values follow from the table", () => {
  const values = readSettings(table, { env: {} });
  // Each line fails to compile if the type is wider or narrower.
  const port: number = values.httpPort;
  const url: string | null = values.databaseUrl;
  const level: "info" | "warn" = values.level;
  // @ts-expect-error: it may be null.
  const data: string = values.data;
  // @ts-expect-error: it is not a choice.
  const wrong: "loud" = values.level;
  assert.deepEqual([port, url, level, data, wrong], [8080, null, "info", null, "info"]);
});

test("a flag beats the environment, which beats the default", () => {
  const env = { HODEI_HTTP_PORT: "1", HODEI_IDLE: "1m30s", HODEI_INSECURE: "yes", HODEI_CONSOLE: "off" };
  const values = readSettings(table, { env, flags: { httpPort: "2", insecure: undefined } });
  assert.equal(values.httpPort, 2);
  assert.equal(values.idle, 90_000);
  assert.equal(values.insecure, true);
  assert.equal(values.console, false);
});

test("an empty variable counts as not set, an empty flag as a value", () => {
  assert.equal(readSettings(table, { env: { HODEI_HTTP_PORT: "" } }).httpPort, 8080);
  assert.throws(
    () => readSettings(table, { env: {}, flags: { httpPort: "" } }),
    /--http-port: "" is not a whole number/,
  );
});

test("all problems are reported at once, each with its source and what is allowed", () => {
  const env = { HODEI_HTTP_PORT: "65536", HODEI_IDLE: "30", HODEI_SPOOL: "lots", HODEI_NAME: "N" };
  const problems = problemsOf(() =>
    readSettings(table, { env, flags: { logLevel: "loud", idle: "999ms", dataDir: "" } }),
  );
  assert.deepEqual(
    problems.map(({ name, source }) => [name, source]),
    [
      ["httpPort", "HODEI_HTTP_PORT"],
      ["idle", "--idle"],
      ["spool", "HODEI_SPOOL"],
      ["level", "--log-level"],
      ["data", "--data-dir"],
      ["name", "HODEI_NAME"],
    ],
  );
  assert.equal(problems[0]?.problem, '"65536" is not a whole number from 0 to 65535');
  assert.equal(problems[1]?.problem, '"999ms" is not a duration such as 250ms, 30s or 1h30m, at least 1s');
  assert.equal(problems[3]?.problem, '"loud" is not one of info, warn');
});

test("the value of a secret setting stands in no problem", () => {
  const problems = problemsOf(() =>
    readSettings(table, { env: { HODEI_DATABASE_URL: "mysql://u:hunter2@db" } }),
  );
  assert.equal(problems.length, 1);
  assert.doesNotMatch(JSON.stringify(problems), /hunter2/);
  assert.match(problems[0]?.problem ?? "", /postgres:\/\/ or postgresql:\/\//);
});

test("integers that are no integers are refused", () => {
  for (const text of ["1.5", "1e3", " 1", "0x10", "--1", "9007199254740993", "NaN"]) {
    assert.throws(() => readSettings(table, { env: { HODEI_HTTP_PORT: text } }), AppError, text);
  }
});

test("an address that no server can have is refused, and another one kept as it is dialled", () => {
  const dialled = defineSettings({
    server: setting.origin({ env: null, flag: "--server", description: "The server." }),
  });
  const read = (server: string) => readSettings(dialled, { env: {}, flags: { server } }).server;
  for (const text of [
    "ftp://h:9090",
    "h:9090",
    "h",
    "",
    "http://",
    "http://h:9090/workers",
    "http://h:9090/?a=b",
    "http://h:9090/#a",
    "http://me:secret@h:9090",
    "http://h:0",
    "http://h:65536",
    "unix:///run/hodei.sock",
  ]) {
    assert.throws(
      () => read(text),
      /--server: ".*" is not the address of a server, http:\/\/HOST:PORT/,
      text,
    );
  }
  assert.equal(read("http://h:9090/"), "http://h:9090");
  assert.equal(read("HTTPS://h.example:9090"), "https://h.example:9090");
  assert.equal(read("https://[::1]:9090"), "https://[::1]:9090");
  assert.equal(read("https://h.example"), "https://h.example");
});

test("a setting without a default must be given", () => {
  const required = defineSettings({
    server: setting.url({ env: "HODEI_SERVER", flag: "--server", description: "The server." }),
  });
  assert.throws(() => readSettings(required, { env: {} }), /--server or HODEI_SERVER: must be given: a URL/);
  assert.equal(readSettings(required, { env: { HODEI_SERVER: "http://h:1" } }).server, "http://h:1");
});

test("two settings with the same flag or variable are a bug of the table", () => {
  const row = setting.integer({ env: "HODEI_A", flag: "--a", default: 1, description: "A." });
  const other = setting.integer({ env: "HODEI_B", flag: "--a", default: 1, description: "B." });
  assert.throws(() => defineSettings({ row, other }), /other: --a is used twice/);
});

test("commander takes the options as they are, and what it parses is read back", () => {
  const command = new Command().exitOverride();
  for (const { flags, description } of settingsOptions(table)) command.option(flags, description);
  command.parse(["--http-port", "99", "--insecure", "--console", "false", "--data-dir", "/d"], {
    from: "user",
  });
  const values = readSettings(table, { env: {}, flags: command.opts() });
  assert.equal(values.httpPort, 99);
  assert.equal(values.insecure, true);
  assert.equal(values.console, false);
  assert.equal(values.data, "/d");
  assert.match(
    command.helpInformation(),
    /--http-port <port>\s+Port for people\. \(default: 8080; env:\s+HODEI_HTTP_PORT\)/,
  );
  assert.match(command.helpInformation(), /How much to say\. \(one of info, warn; default: info; env:/);
});

test("the documentation has a row for every setting, with pipes escaped", () => {
  const text = settingsMarkdown("Server", table);
  const rows = text.split("\n").filter((line) => line.startsWith("| `") || line.startsWith("| –"));
  assert.equal(rows.length, Object.keys(table).length);
  assert.match(text, /^## Server\n/);
  assert.match(
    text,
    /\| `--db` \| `HODEI_DATABASE_URL` \| a private PostgreSQL \| .* \| The database\. Secret\. \|/,
  );
  assert.match(text, /How long \\\| to wait\./);
  assert.match(text, /\| `--spool` \| `HODEI_SPOOL` \| 256Mi \|/);
});

function problemsOf(run: () => unknown): SettingProblem[] {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof AppError);
    assert.equal(error.code, "invalid_argument");
    const problems = error.details["problems"] as SettingProblem[];
    for (const { source, problem } of problems) assert.ok(error.message.includes(`${source}: ${problem}`));
    return problems;
  }
  return assert.fail("no problem was reported");
}
