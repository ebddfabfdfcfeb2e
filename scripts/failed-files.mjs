// A reporter of node:test that writes the files in which a test failed, one to a line.
export default async function* failedFiles(events) {
  const files = new Set();
  for await (const { type, data } of events) {
    const file = type === "test:fail" ? data.file : undefined;
    if (file === undefined || files.has(file)) continue;
    files.add(file);
    yield `${file}\n`;
  }
}
