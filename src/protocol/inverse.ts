/** The other direction of a table; null for a number that this version does not know. */
export function inverse<Name extends string>(table: Record<Name, number>): (value: number) => Name | null {
  const names = new Map(Object.entries(table).map(([name, value]) => [value as number, name as Name]));
  return (value) => names.get(value) ?? null;
}
