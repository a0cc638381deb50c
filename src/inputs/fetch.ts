import { fetchModel, hubId, type HubHooks } from "../hub/hub.js";

interface Named {
  readonly base?: string | undefined;
  readonly experts?: readonly string[] | undefined;
}

/**
 * Brings every model that is named by a hub id into the cache, and puts its folder in the id's place.
 * `hub` says which commits they are.
 */
export async function fetchNamed<T extends Named>(
  options: T,
  hooks: HubHooks,
): Promise<T & { hub?: Record<string, string> }> {
  const hub: Record<string, string> = {};
  const local = async (text: string): Promise<string> => {
    const id = hubId(text);
    if (!id) return text;
    const { folder, commit } = await fetchModel(id, hooks);
    hub[text] = commit;
    return folder;
  };
  const base = options.base === undefined ? undefined : await local(options.base);
  const experts: string[] = [];
  for (const expert of options.experts ?? []) {
    // "task=org/name": only the part behind the sign may be one.
    const [, sign = "", rest = expert] = /^(\w[\w.-]*=)(.+)$/.exec(expert) ?? [];
    experts.push(hubId(rest) ? `${sign}${await local(rest)}` : await local(expert));
  }
  return {
    ...options,
    ...(base !== undefined && { base }),
    ...(options.experts && { experts }),
    ...(Object.keys(hub).length > 0 && { hub }),
  };
}
