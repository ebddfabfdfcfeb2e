/** Sees to it that the engine has an image, by the pull policy, and says what the image brings along. */

import { readFile } from "node:fs/promises";
import { AppError, errorMessage } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { isNotFound, type Engine, type EngineCall } from "./engine.ts";
import { PullProgress } from "./pull-progress.ts";

export const PULL_POLICIES = ["missing", "always", "never"] as const;
export type PullPolicy = (typeof PULL_POLICIES)[number];

export interface ImageOptions {
  image: string;
  pull: PullPolicy;
  /** As `docker login` writes it (`config.json`); null for registries that need no login. */
  authFile: string | null;
  log: Logger;
}

/** What an image brings along. */
export interface ImageConfig {
  /** The names of the variables that it sets. */
  variables: string[];
  /** Directories that are no part of a container's root, but volumes. */
  volumes: string[];
}

/** How long a download may take in all. */
const PULL_TIMEOUT_MS = 15 * 60_000;

interface EngineImageConfig {
  Env?: string[] | null;
  Volumes?: Record<string, object> | null;
}

/** Pulls that several workers ask for at once are one. */
export class ImageStore {
  readonly #engine: Engine;
  readonly #options: ImageOptions;
  #pulling: Promise<void> | null = null;
  /** Of the download that is under way. */
  #progress: PullProgress | null = null;
  /** Why the last download failed; null if it did not. */
  #pullFailure: string | null = null;

  constructor(engine: Engine, options: ImageOptions) {
    this.#engine = engine;
    this.#options = options;
  }

  /** What the image brings along, once the engine has it. */
  async ensure(): Promise<ImageConfig> {
    const { pull, image } = this.#options;
    if (pull === "always") await this.#pullOnce();
    const found = await this.config();
    if (found !== null) return found;
    if (pull === "never") {
      throw new AppError(
        "not_found",
        `image ${image}: the engine does not have it, and pulling is set to never`,
      );
    }
    await this.#pullOnce();
    const pulled = await this.config();
    if (pulled === null) throw new AppError("unavailable", `image ${image}: pulled, and not there`);
    return pulled;
  }

  /** How far the download is, for people; null while there is none. */
  get activity(): string | null {
    if (this.#progress === null) return null;
    const far = this.#progress.describe();
    return `pulling image ${this.#options.image}${far === "" ? "" : `, ${far}`}`;
  }

  /** Why the image cannot be had; null if it is there, or nobody has tried yet. */
  async problem(): Promise<string | null> {
    const { pull, image } = this.#options;
    if (pull !== "never" && this.#pullFailure === null) return null;
    if ((await this.config()) !== null) return null;
    return this.#pullFailure ?? `image ${image} is not there, and pulling is set to never`;
  }

  /** Null if the engine does not have the image. */
  async config(): Promise<ImageConfig | null> {
    const { image } = this.#options;
    try {
      const { Config: config } = await this.#engine.call<{ Config: EngineImageConfig | null }>({
        method: "GET",
        path: `/images/${image}/json`,
        what: `look for image ${image}`,
      });
      return {
        variables: (config?.Env ?? []).map((entry) => entry.slice(0, entry.indexOf("="))),
        volumes: Object.keys(config?.Volumes ?? {}),
      };
    } catch (error) {
      if (isNotFound(error)) return null;
      throw error;
    }
  }

  #pullOnce(): Promise<void> {
    this.#pulling ??= this.#noteFailure(this.#pull()).finally(() => {
      this.#pulling = null;
    });
    return this.#pulling;
  }

  async #noteFailure(pull: Promise<void>): Promise<void> {
    try {
      await pull;
      this.#pullFailure = null;
    } catch (error) {
      this.#pullFailure = errorMessage(error);
      throw error;
    }
  }

  async #pull(): Promise<void> {
    const { image, log } = this.#options;
    const what = `pull image ${image}`;
    log.info({ image }, "pulling an image");
    const headers = await this.#authHeaders(image);
    // Without a tag the engine would pull every tag there is.
    const query = { fromImage: image, ...(hasVersion(image) ? {} : { tag: "latest" }) };
    const problem = await this.#download({ query, headers, what });
    if (problem === null) return;
    throw new AppError(isPermanent(problem) ? "not_found" : "unavailable", `${what}: ${problem}`);
  }

  /** Null if it went well. What is wrong stands in the status, or after it in the last of the lines. */
  async #download(call: Pick<EngineCall, "query" | "headers" | "what">): Promise<string | null> {
    const progress = new PullProgress();
    this.#progress = progress;
    const timeoutMs = PULL_TIMEOUT_MS;
    try {
      const pull = { ...call, method: "POST", path: "/images/create", timeoutMs } as const;
      await this.#engine.lines(pull, (line) => progress.take(line));
      return progress.problem;
    } catch (error) {
      const status = error instanceof AppError ? error.details["status"] : undefined;
      if (status !== 404 && status !== 500) throw error;
      return errorMessage(error).slice(`${call.what}: `.length);
    } finally {
      this.#progress = null;
    }
  }

  async #authHeaders(image: string): Promise<Record<string, string>> {
    const { authFile } = this.#options;
    if (authFile === null) return {};
    const credentials = await readCredentials(authFile, registryOf(image));
    if (credentials === null) return {};
    // With its padding: engines take the header without it for none at all.
    const text = Buffer.from(JSON.stringify(credentials)).toString("base64");
    return { "x-registry-auth": text.replaceAll("+", "-").replaceAll("/", "_") };
  }
}

/** The registry of an image by the rules of Docker: what comes before the first slash, if it is a host. */
export function registryOf(image: string): string {
  const [first = "", ...rest] = image.split("/");
  const isHost = rest.length > 0 && (first.includes(".") || first.includes(":") || first === "localhost");
  return isHost ? first : "docker.io";
}

function hasVersion(image: string): boolean {
  return /@|:[^/]*$/.test(image);
}

/** Null if the file holds none for this registry. Docker's own is there under an old name. */
async function readCredentials(
  path: string,
  registry: string,
): Promise<{ username: string; password: string; serveraddress: string } | null> {
  try {
    const { auths = {} } = JSON.parse(await readFile(path, "utf8")) as {
      auths?: Record<string, { auth?: string }>;
    };
    const names = registry === "docker.io" ? ["https://index.docker.io/v1/", registry] : [registry];
    const key = names.find((name) => auths[name] !== undefined);
    if (key === undefined) return null;
    const login = Buffer.from(auths[key]?.auth ?? "", "base64").toString("utf8");
    const colon = login.indexOf(":");
    if (colon < 1) throw new Error(`the login for ${key} is not there (a credential helper is not asked)`);
    return { username: login.slice(0, colon), password: login.slice(colon + 1), serveraddress: key };
  } catch (cause) {
    throw new AppError("failed_precondition", `read registry logins from ${path}: ${errorMessage(cause)}`, {
      cause,
    });
  }
}

function isPermanent(problem: string): boolean {
  return /not found|manifest unknown|denied|unauthorized|no basic auth|invalid reference/i.test(problem);
}
