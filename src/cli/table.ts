/** Tables for people. */

import Table from "cli-table3";

/** Columns two spaces apart, without lines. Cells may hold colours and wide characters. */
export function formatTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const none = {
    top: "",
    "top-mid": "",
    "top-left": "",
    "top-right": "",
    bottom: "",
    "bottom-mid": "",
    "bottom-left": "",
    "bottom-right": "",
    left: "",
    "left-mid": "",
    mid: "",
    "mid-mid": "",
    right: "",
    "right-mid": "",
    middle: "  ",
  };
  const table = new Table({
    head: [...head],
    chars: none,
    style: { "padding-left": 0, "padding-right": 0, head: [], border: [] },
  });
  for (const row of rows) table.push(row.map(printable));
  const lines = table.toString().split("\n");
  return `${lines.map((line) => line.trimEnd()).join("\n")}\n`;
}

const ESCAPE = "\u001b";

/** Names come from other people: what would move the cursor is shown as `?`. Our own colours stay. */
export function printable(text: string): string {
  const isColor = new RegExp(`${ESCAPE}\\[[0-9;]*m`, "y");
  let result = "";
  for (let index = 0; index < text.length; index += 1) {
    isColor.lastIndex = index;
    const color = text[index] === ESCAPE ? isColor.exec(text)?.[0] : undefined;
    if (color !== undefined) {
      result += color;
      index += color.length - 1;
    } else {
      const code = text.charCodeAt(index);
      result += code < 0x20 || (code >= 0x7f && code < 0xa0) ? "?" : text[index];
    }
  }
  return result;
}
