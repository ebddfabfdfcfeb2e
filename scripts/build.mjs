// Builds everything: dist/src (and tests) with tsc, dist/bundle with esbuild, and the link that
// lets `npx hodei` find this checkout.
import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, symlinkSync } from "node:fs";
import { build } from "esbuild";

const node = process.execPath;
rmSync("dist", { recursive: true, force: true });
execFileSync(node, ["node_modules/typescript/bin/tsc"], { stdio: "inherit" });

const shared = {
  bundle: true,
  platform: "node",
  target: "node20",
  format: "esm",
  minifySyntax: true,
  legalComments: "linked",
  logLevel: "warning",
  external: ["pg-native"],
  // Some CommonJS packages call require() for Node's own modules.
  banner: {
    js: 'import { createRequire as __createRequire } from "node:module"; const require = __createRequire(import.meta.url);',
  },
};

await Promise.all([
  // The command line and the server load parts when a command needs them.
  build({
    ...shared,
    entryPoints: ["src/main.ts"],
    outdir: "dist/bundle",
    splitting: true,
    chunkNames: "chunks/[name]-[hash]",
  }),
  // A worker needs only Node and this one file.
  build({ ...shared, entryPoints: ["src/worker-main.ts"], outfile: "dist/bundle/worker.js" }),
]);

// `npx hodei` takes what it finds here. A `bin` in package.json would make npx install the checkout
// into its cache first, which takes 3 s the first time and 0.3 s ever after.
mkdirSync("node_modules/.bin", { recursive: true });
rmSync("node_modules/.bin/hodei", { force: true });
symlinkSync("../../bin/hodei.js", "node_modules/.bin/hodei");
