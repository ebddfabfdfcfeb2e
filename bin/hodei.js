#!/usr/bin/env node
import { existsSync } from "node:fs";

const main = new URL("../dist/bundle/main.js", import.meta.url);
if (existsSync(main)) {
  await import(main.href);
} else {
  console.error("hodei: not built yet: run `npm ci` (or `npm run build`) in the checkout first");
  process.exitCode = 1;
}
