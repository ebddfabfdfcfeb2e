/**
 * The settings of a process as one table, from which come the values, `--help`, the page in
 * `docs/` and the test that all three are complete.
 *
 *     export const serverSettings = defineSettings({
 *       httpPort: setting.integer({ env: "HODEI_HTTP_PORT", flag: "--http-port", default: 8080,
 *         min: 0, max: 65535, unit: "port", description: "Port for people and tools." }),
 *       databaseUrl: setting.url({ env: "HODEI_DATABASE_URL", flag: "--db", default: null,
 *         secret: true, description: "…", defaultText: "a private PostgreSQL" }),
 *     });
 *     const settings = readSettings(serverSettings, { env: process.env, flags: command.opts() });
 *     //    { readonly httpPort: number; readonly databaseUrl: string | null }
 *
 * A default of `null` makes a setting optional; one without a default must be given.
 */

import { AppError } from "./errors.ts";
import { formatBytes, formatDurationMs, parseBytes, parseDurationMs } from "./quantities.ts";

/** What every kind of setting has. */
export interface SettingOptions<D> {
  /** The environment variable; null if there is none. */
  env: string | null;
  /** The flag, such as `--http-port`; null if there is none. */
  flag: string | null;
  /** The value if nothing is given. Null: optional. Left out: must be given. */
  default?: D;
  /** Shown instead of the default, for one that is worked out later. */
  defaultText?: string;
  /** One sentence. */
  description: string;
  /** Shown for the value in `--help`: `--http-port <port>`. */
  unit?: string;
  /** Its value is never shown, in problems neither. */
  secret?: boolean;
}

type Parsed<T> = { ok: true; value: T } | { ok: false };

/** One row of a table; made by the functions of `setting`. */
export interface Setting<T> {
  readonly kind: string;
  readonly env: string | null;
  readonly flag: string | null;
  readonly default: T | undefined;
  readonly defaultText: string;
  readonly description: string;
  readonly unit: string;
  readonly secret: boolean;
  /** What a value must be: "a whole number from 0 to 65535". */
  readonly allowed: string;
  parse(text: string): Parsed<T>;
}

export type SettingsTable = Readonly<Record<string, Setting<unknown>>>;

/** The values of a table. */
export type SettingsValues<T extends SettingsTable> = {
  readonly [K in keyof T]: T[K] extends Setting<infer V> ? V : never;
};

/** What commander's `opts()` gives: by the flag in camelCase. */
export type Flags = Readonly<Record<string, string | boolean | undefined>>;

interface Range {
  min?: number;
  max?: number;
}

/** The kinds of setting. */
export const setting = {
  string<D extends string | null = string>(
    options: SettingOptions<D> & { pattern?: RegExp; allowed?: string },
  ): Setting<string | D> {
    const { pattern, allowed = "a text" } = options;
    return make(options, {
      kind: "string",
      allowed: pattern && !options.allowed ? `a text that matches ${pattern.source}` : allowed,
      parse: (text) => accepted(text, !text.includes("\0") && (pattern?.test(text) ?? true)),
    });
  },

  integer<D extends number | null = number>(options: SettingOptions<D> & Range): Setting<number | D> {
    return make(options, {
      kind: "integer",
      allowed: `a whole number${rangeText(options, String)}`,
      parse: (text) => inRange(/^-?\d{1,16}$/.test(text) ? Number(text) : null, options),
    });
  },

  /** As a flag it needs no value, unless it is on by default: then `--name false` turns it off. */
  boolean<D extends boolean | null = boolean>(options: SettingOptions<D>): Setting<boolean | D> {
    return make(options, { kind: "boolean", allowed: "true or false", parse: parseBoolean });
  },

  /** Milliseconds, written as `30s` or `1h30m`. */
  durationMs<D extends number | null = number>(options: SettingOptions<D> & Range): Setting<number | D> {
    return make(options, {
      kind: "duration",
      allowed: `a duration such as 250ms, 30s or 1h30m${rangeText(options, formatDurationMs)}`,
      parse: (text) => inRange(parseDurationMs(text), options),
      format: formatDurationMs,
    });
  },

  /** Bytes, written as `256Mi` or `10GB`. */
  bytes<D extends number | null = number>(options: SettingOptions<D> & Range): Setting<number | D> {
    return make(options, {
      kind: "bytes",
      allowed: `a size such as 64Ki, 256Mi or 10GB${rangeText(options, formatBytes)}`,
      parse: (text) => inRange(parseBytes(text), options),
      format: formatBytes,
    });
  },

  choice<const C extends string, const D extends C | null = C>(
    options: SettingOptions<D> & { choices: readonly C[] },
  ): Setting<C | D> {
    const { choices } = options;
    return make<C, D>(options, {
      kind: "choice",
      allowed: `one of ${choices.join(", ")}`,
      parse(text) {
        const value = choices.find((choice) => choice === text);
        return value === undefined ? { ok: false } : { ok: true, value };
      },
    });
  },

  /** Kept as it was given: a relative one is relative to the working directory. */
  path<D extends string | null = string>(options: SettingOptions<D>): Setting<string | D> {
    return make(options, {
      kind: "path",
      allowed: "a path",
      parse: (text) => accepted(text, text !== "" && !text.includes("\0")),
    });
  },

  url<D extends string | null = string>(
    options: SettingOptions<D> & { protocols?: readonly string[] },
  ): Setting<string | D> {
    const { protocols } = options;
    return make(options, {
      kind: "url",
      allowed: protocols
        ? `a URL that begins with ${protocols.map((name) => `${name}://`).join(" or ")}`
        : "a URL",
      parse(text) {
        const url = URL.canParse(text) ? new URL(text) : null;
        const fits = url !== null && (!protocols || protocols.includes(url.protocol.slice(0, -1)));
        return accepted(text, fits);
      },
    });
  },

  /** Where a server is: what would be left out when it is dialled, such as a path, is refused. */
  origin<D extends string | null = string>(options: SettingOptions<D>): Setting<string | D> {
    return make(options, {
      kind: "url",
      allowed: "the address of a server, http://HOST:PORT or https://HOST:PORT and nothing after it",
      parse(text) {
        const url = URL.canParse(text) ? new URL(text) : null;
        if (!url || !["http:", "https:"].includes(url.protocol) || url.port === "0") return { ok: false };
        // Besides an origin, `href` holds user, path, query and fragment.
        return accepted(url.origin, url.href === `${url.origin}/`);
      },
    });
  },
};

/**
 * Checks that no two rows share a variable or a flag, and returns the table as it is.
 *
 * @throws Error if they do, or if a row can be given in no way: a bug in the table.
 */
export function defineSettings<const T extends SettingsTable>(table: T): T {
  const seen = new Set<string>();
  for (const [name, row] of Object.entries(table)) {
    const sources = [row.env, row.flag].filter((source) => source !== null);
    if (sources.length === 0) throw new Error(`setting ${name} has neither env nor flag`);
    for (const source of sources) {
      if (seen.has(source)) throw new Error(`setting ${name}: ${source} is used twice`);
      seen.add(source);
    }
    if (row.env !== null && !/^[A-Z][A-Z0-9_]*$/.test(row.env))
      throw new Error(`setting ${name}: env ${row.env}`);
    if (row.flag !== null && !/^--[a-z][a-z0-9-]*$/.test(row.flag))
      throw new Error(`setting ${name}: flag ${row.flag}`);
  }
  return table;
}

/** Why one setting cannot be used. Holds no value of a secret one. */
export interface SettingProblem {
  name: string;
  /** The flag or variable that was used, or could be. */
  source: string;
  problem: string;
}

/**
 * The values of a table: a flag goes before the environment, which goes before the default. An
 * empty variable counts as not set; an empty flag does not.
 *
 * @throws AppError `invalid_argument` with every problem, in the message and in `details.problems`.
 */
export function readSettings<const T extends SettingsTable>(
  table: T,
  given: { env: Readonly<Record<string, string | undefined>>; flags?: Flags },
): SettingsValues<T> {
  const values: Record<string, unknown> = {};
  const problems: SettingProblem[] = [];
  for (const [name, row] of Object.entries(table)) {
    const read = readOne(row, given);
    if (read.ok) values[name] = read.value;
    else problems.push({ name, source: read.source, problem: read.problem });
  }
  if (problems.length > 0) {
    const lines = problems.map(({ source, problem }) => `  ${source}: ${problem}`);
    const count = problems.length === 1 ? "1 problem" : `${problems.length} problems`;
    throw new AppError("invalid_argument", `read settings: ${count}\n${lines.join("\n")}`, {
      details: { problems },
    });
  }
  return values as SettingsValues<T>;
}

/** What commander's `.option(flags, description)` takes, for the rows that have a flag. */
export function settingsOptions(table: SettingsTable): { flags: string; description: string }[] {
  const options: { flags: string; description: string }[] = [];
  for (const row of Object.values(table)) {
    if (row.flag === null) continue;
    const notes = [`default: ${row.defaultText}`];
    if (row.env !== null) notes.push(`env: ${row.env}`);
    if (row.kind === "choice") notes.unshift(row.allowed);
    options.push({
      flags: takesNoValue(row) ? row.flag : `${row.flag} <${row.unit}>`,
      description: `${row.description} (${notes.join("; ")})`,
    });
  }
  return options;
}

/** A chapter of docs/configuration.md. */
export function settingsMarkdown(title: string, table: SettingsTable): string {
  const rows = Object.values(table).map((row) => {
    const cells = [
      row.flag === null ? "–" : `\`${row.flag}\``,
      row.env === null ? "–" : `\`${row.env}\``,
      row.defaultText,
      row.allowed,
      row.secret ? `${row.description} Secret.` : row.description,
    ];
    return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  });
  return [
    `## ${title}`,
    "",
    "| flag | environment | default | allowed | meaning |",
    "|---|---|---|---|---|",
    ...rows,
    "",
  ].join("\n");
}

interface Kind<T> {
  kind: string;
  allowed: string;
  parse: (text: string) => Parsed<T>;
  format?: (value: T) => string;
}

function make<T, D extends T | null>(options: SettingOptions<D>, kind: Kind<T>): Setting<T | D> {
  return {
    kind: kind.kind,
    env: options.env,
    flag: options.flag,
    default: options.default,
    defaultText: options.defaultText ?? defaultText(options, kind),
    description: options.description,
    unit: options.unit ?? kind.kind,
    secret: options.secret ?? false,
    allowed: kind.allowed,
    parse: kind.parse,
  };
}

function defaultText<T, D extends T | null>(options: SettingOptions<D>, kind: Kind<T>): string {
  const value: T | null | undefined = options.default;
  if (value === undefined) return "none, must be given";
  if (value === null) return "not set";
  return kind.format?.(value) ?? (value === "" ? "empty" : String(value));
}

type ReadOne = { ok: true; value: unknown } | { ok: false; source: string; problem: string };

function readOne(
  row: Setting<unknown>,
  given: { env: Readonly<Record<string, string | undefined>>; flags?: Flags },
): ReadOne {
  const fromFlag = row.flag === null ? undefined : given.flags?.[flagKey(row.flag)];
  const fromEnv = row.env === null ? undefined : given.env[row.env];
  if (fromFlag !== undefined) return parseGiven(row, row.flag ?? "", String(fromFlag));
  if (fromEnv !== undefined && fromEnv !== "") return parseGiven(row, row.env ?? "", fromEnv);
  if (row.default !== undefined) return { ok: true, value: row.default };
  const source = [row.flag, row.env].filter((name) => name !== null).join(" or ");
  return { ok: false, source, problem: `must be given: ${row.allowed}` };
}

function parseGiven(row: Setting<unknown>, source: string, text: string): ReadOne {
  const parsed = row.parse(text);
  if (parsed.ok) return parsed;
  const shown = row.secret ? "the value given" : JSON.stringify(text);
  return { ok: false, source, problem: `${shown} is not ${row.allowed}` };
}

/** `--http-port` → `httpPort`, as commander does it. */
function flagKey(flag: string): string {
  return flag.slice(2).replace(/-([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

function takesNoValue(row: Setting<unknown>): boolean {
  return row.kind === "boolean" && row.default !== true;
}

function accepted<T>(value: T, isAllowed: boolean): Parsed<T> {
  return isAllowed ? { ok: true, value } : { ok: false };
}

function inRange(value: number | null, range: Range): Parsed<number> {
  if (value === null || !Number.isSafeInteger(value)) return { ok: false };
  return accepted(value, value >= (range.min ?? -Infinity) && value <= (range.max ?? Infinity));
}

function rangeText(range: Range, format: (value: number) => string): string {
  const { min, max } = range;
  if (min !== undefined && max !== undefined) return ` from ${format(min)} to ${format(max)}`;
  if (min !== undefined) return `, at least ${format(min)}`;
  return max === undefined ? "" : `, at most ${format(max)}`;
}

const BOOLEAN_WORDS: ReadonlyMap<string, boolean> = new Map([
  ["true", true],
  ["yes", true],
  ["on", true],
  ["1", true],
  ["false", false],
  ["no", false],
  ["off", false],
  ["0", false],
]);

function parseBoolean(text: string): Parsed<boolean> {
  const value = BOOLEAN_WORDS.get(text.toLowerCase());
  return value === undefined ? { ok: false } : { ok: true, value };
}
