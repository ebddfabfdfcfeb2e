/**
 * The programs that a worker runs for itself. Mostly they are those of the machine; a worker in a
 * container of any image brings its own, with the loader and the libraries that they need.
 */

const MACHINE: Readonly<Record<BroughtProgram, string>> = {
  node: process.execPath,
  mkfifo: "mkfifo",
  prlimit: "prlimit",
};
export type BroughtProgram = "node" | "mkfifo" | "prlimit";

let prefix = "";

/**
 * Words that become a command with the name of a program at their end, such as
 * `/hodei/lib/ld.so --library-path /hodei/lib /hodei/bin/`. Said once, by the entry of the process.
 */
export function useBroughtPrograms(words: string): void {
  prefix = words;
}

/** What is to be executed, and its first arguments. */
export function commandOf(program: BroughtProgram): { file: string; args: string[] } {
  if (prefix === "") return { file: MACHINE[program], args: [] };
  const [file = "", ...args] = `${prefix}${program}`.split(" ");
  return { file, args };
}
