import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import pc from "picocolors";
import { ManualClock } from "../base/manual-clock.ts";
import { Output } from "./output.ts";
import { Spinner, type SpinnerOptions } from "./spinner.ts";

function setup(mode: SpinnerOptions["mode"]) {
  const stream = new PassThrough();
  const clock = new ManualClock();
  const colors = pc.createColors(false);
  const spinner = new Spinner({ output: new Output(stream), colors, clock, mode, columns: 80 });
  const written = (): string => String(stream.read() ?? "");
  return { spinner, clock, written };
}

test("without a terminal a long wait is told in a line, and not again until the reason changes", () => {
  const { spinner, clock, written } = setup("lines");
  spinner.show("waiting: all are busy");
  clock.advance(9_999);
  assert.equal(written(), "");
  clock.advance(1);
  assert.equal(written(), "hodei: waiting: all are busy\n");
  clock.advance(60_000);
  assert.equal(written(), "");
  for (const percent of [1, 2, 3]) spinner.show(`waiting: ${percent} % of the image is there`);
  assert.equal(written(), "");
  clock.advance(60_000);
  assert.equal(written(), "hodei: waiting: 3 % of the image is there\n");
  spinner.hide();
  clock.advance(600_000);
  assert.equal(written(), "");
});

test("on a terminal the line moves and leaves nothing behind, and when nothing is wanted it is never there", () => {
  const terminal = setup("moving");
  terminal.spinner.show("waiting");
  terminal.clock.advance(300);
  assert.match(terminal.written(), /waiting/);
  terminal.spinner.hide();
  assert.equal(terminal.written(), "\r\u001b[2K");
  const off = setup("off");
  off.spinner.show("waiting");
  off.clock.advance(600_000);
  assert.equal(off.written(), "");
});
