import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { AppError, ERROR_CODES, type ErrorCode } from "../base/errors.ts";
import { fromConnectError, toConnectError } from "./errors.ts";

const noReport = (): string => assert.fail("an expected error was reported");

test("every code of an AppError survives the way over the wire and back", () => {
  for (const code of Object.keys(ERROR_CODES) as ErrorCode[]) {
    const error = new AppError(code, "open file x: gone");
    const onWire = toConnectError(error, noReport);
    assert.equal(onWire.code, ERROR_CODES[code].grpc);
    assert.equal(onWire.rawMessage, "open file x: gone");
    assert.equal(onWire.cause, error);
    const back = fromConnectError(onWire, "read x");
    assert.equal(back.code, code);
    assert.equal(back.message, "read x: open file x: gone");
    assert.equal(back.cause, onWire);
  }
});

test("an unknown error is reported, and its message does not leave the server", () => {
  const fault = new TypeError("password hunter2 is undefined");
  const reported: unknown[] = [];
  const onWire = toConnectError(fault, (error) => {
    reported.push(error);
    return "e-17";
  });
  assert.deepEqual(reported, [fault]);
  assert.equal(onWire.code, Code.Internal);
  assert.match(onWire.rawMessage, /e-17/);
  assert.doesNotMatch(onWire.message, /hunter2/);
  assert.equal(onWire.cause, fault);
});

test("an abort is no fault", () => {
  assert.equal(toConnectError(new DOMException("gone", "AbortError"), noReport).code, Code.Canceled);
});

test("a ConnectError stays what it is, and every status has a code here", () => {
  const late = new ConnectError("too late", Code.DeadlineExceeded);
  assert.equal(toConnectError(late, noReport), late);
  for (let code = Code.Canceled; code <= Code.Unauthenticated; code++) {
    assert.ok(fromConnectError(new ConnectError("x", code), "y").code in ERROR_CODES);
  }
  assert.equal(fromConnectError(late, "wait").code, "unavailable");
});

test("whatever else is thrown becomes internal and keeps its cause", () => {
  const error = fromConnectError("oops", "read x");
  assert.equal(error.code, "internal");
  assert.equal(error.message, "read x: oops");
  assert.equal(error.cause, "oops");
});
