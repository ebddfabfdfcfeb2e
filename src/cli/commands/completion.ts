/** `hodei completion`: scripts for shells, printed from the tree of commands. */

import type { Command } from "commander";
import { AppError } from "../../base/errors.ts";
import type { CliCommand } from "../command.ts";
import { EXIT } from "../exit-codes.ts";

const SHELLS = ["bash", "zsh", "fish"] as const;

export const completionCommand: CliCommand = {
  configure(command) {
    command.argument("<shell>", SHELLS.join(", ")).addHelpText(
      "after",
      `
bash:  source <(hodei completion bash)
zsh:   hodei completion zsh > "\${fpath[1]}/_hodei"
fish:  hodei completion fish > ~/.config/fish/completions/hodei.fish`,
    );
  },
  async run({ operands }, context) {
    const shell = SHELLS.find((known) => known === operands[0]);
    if (!shell) {
      throw new AppError(
        "invalid_argument",
        `completion: ${JSON.stringify(operands[0] ?? "")} is none of ${SHELLS.join(", ")}`,
      );
    }
    const program = await context.describeProgram(() => {});
    await context.stdout.write(
      { bash: bashScript, zsh: zshScript, fish: fishScript }[shell](commandTree(program)),
    );
    return EXIT.ok;
  },
};

interface OptionWords {
  flags: string[];
  description: string;
  takesValue: boolean;
}

interface CommandWords {
  name: string;
  description: string;
  /** Words that may follow it besides ids and files. */
  operands: readonly string[];
  /** Its own, and those of the commands that may follow it. */
  options: OptionWords[];
}

function commandTree(program: Command): CommandWords[] {
  return program.commands.map((command) => ({
    name: command.name(),
    description: command.description(),
    operands: command.name() === "completion" ? SHELLS : command.commands.map((child) => child.name()),
    options: optionsOf([command, ...command.commands, program]),
  }));
}

function optionsOf(commands: readonly Command[]): OptionWords[] {
  const declared = commands
    .flatMap((command) => command.options)
    .filter((option) => option.long !== "--version")
    .map((option) => ({
      flags: [option.short, option.long].filter((flag): flag is string => Boolean(flag)),
      description: option.description,
      takesValue: option.required || option.optional,
    }));
  return [...declared, { flags: ["-h", "--help"], description: "show help", takesValue: false }].filter(
    (option, index, all) => all.findIndex((other) => other.flags.at(-1) === option.flags.at(-1)) === index,
  );
}

/** In single quotes for a shell. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function bashScript(commands: readonly CommandWords[]): string {
  const names = commands.map(({ name }) => name).join(" ");
  const withOperands = commands.filter(({ operands }) => operands.length > 0).map(({ name }) => name);
  const cases = commands.map(({ name, operands, options }) => {
    const words = [...operands, ...options.flatMap(({ flags }) => flags)].join(" ");
    return `    ${name}) words="${words}" ;;`;
  });
  const takers = [
    ...new Set(
      commands.flatMap(({ options }) =>
        options.filter((option) => option.takesValue).flatMap(({ flags }) => flags),
      ),
    ),
  ];
  return `# bash completion for hodei
_hodei() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}" name="" word words=""
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case " ${names} " in *" $word "*) name="$word"; break ;; esac
  done
  case "$previous" in ${takers.join("|")}) COMPREPLY=($(compgen -f -- "$current")); return ;; esac
  case "$name" in
    "") words="${names} --help --version" ;;
    completion) words="${SHELLS.join(" ")}" ;;
    help) words="${names} exit-codes" ;;
${cases.filter((line) => !/^ {4}(?:completion|help)\)/.test(line)).join("\n")}
  esac
  if [[ "$current" == -* || -z "$name" || " ${withOperands.join(" ")} help " == *" $name "* ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$current"))
  else
    COMPREPLY=($(compgen -f -- "$current"))
  fi
}
complete -o filenames -F _hodei hodei
`;
}

function zshScript(commands: readonly CommandWords[]): string {
  const described = (name: string, description: string): string =>
    quoted(`${name}:${description.replaceAll(":", "\\:")}`);
  const names = commands.map(({ name, description }) => `    ${described(name, description)}`).join("\n");
  const cases = commands.map(({ name, operands, options }) => {
    const words = quoted(`1:word:(${operands.join(" ")})`);
    const rest = operands.length === 0 ? quoted("*:file:_files") : `${words} ${quoted("*:file:_files")}`;
    const specs = options.flatMap(({ flags, description, takesValue }) =>
      flags.map((flag) =>
        quoted(`*${flag}[${description.replaceAll(/[[\]:]/g, " ")}]${takesValue ? ":value:_files" : ""}`),
      ),
    );
    return `    ${name}) _arguments ${[...specs, rest].join(" ")} ;;`;
  });
  return `#compdef hodei
_hodei() {
  local -a commands
  commands=(
${names}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  shift words
  (( CURRENT-- ))
  case "$words[1]" in
${cases.join("\n")}
  esac
}
if [ "$funcstack[1]" = "_hodei" ]; then _hodei "$@"; else compdef _hodei hodei; fi
`;
}

function fishScript(commands: readonly CommandWords[]): string {
  const lines = ["# fish completion for hodei", "complete -c hodei -f -n __fish_use_subcommand"];
  for (const { name, description, operands, options } of commands) {
    lines.push(`complete -c hodei -n __fish_use_subcommand -a ${name} -d ${quoted(description)}`);
    if (operands.length > 0) {
      const words = quoted(operands.join(" "));
      lines.push(`complete -c hodei -f -n '__fish_seen_subcommand_from ${name}' -a ${words}`);
    }
    for (const option of options) {
      const flags = option.flags
        .map((flag) => (flag.startsWith("--") ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`))
        .join(" ");
      const value = option.takesValue ? " -r" : "";
      lines.push(
        `complete -c hodei -n '__fish_seen_subcommand_from ${name}' ${flags}${value} -d ${quoted(option.description)}`,
      );
    }
  }
  return `${lines.join("\n")}\n`;
}
