/** What has to be closed or freed at the end, whatever happens in between: the last that was opened goes first. */
export class Resources {
  readonly #closers: (() => void | Promise<void>)[] = [];

  /** @param close called once, by {@link close} */
  add(close: () => void | Promise<void>): void {
    this.#closers.push(close);
  }

  /** Closes all, even where one fails; the first failure is thrown at the end. */
  async close(): Promise<void> {
    const failures: unknown[] = [];
    for (let close = this.#closers.pop(); close !== undefined; close = this.#closers.pop()) {
      try {
        await close();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  }
}
