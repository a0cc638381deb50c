import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { heatmapSpec } from "../../src/report/heatmap.js";
import { linesSpec } from "../../src/report/lines.js";
import { pageHtml } from "../../src/report/page.js";
import { temporaryFolder } from "../helpers.js";

const browser = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);
if (!browser) console.log("reports are not opened in a browser: there is no chromium here");

const folder = await temporaryFolder();
const history = [0, 10].map((step) => ({
  step,
  values: [
    [0.1, 0.2],
    [0.3, -0.4],
    [0.5, 0.6 + step],
  ],
}));
const page = await pageHtml('A <merge> & "more"', "Made by hand.", [
  { title: "Numbers", html: "<p>plain</p>" },
  {
    title: "Curve",
    figure: linesSpec({
      title: "",
      x: "step",
      y: "loss",
      points: [0, 1, 2].map((x) => ({ x, y: x * x, series: "</script><b>a" })),
      spacing: "linear",
    }),
  },
  {
    title: "Coefficients",
    note: "Of two experts.",
    figure: heatmapSpec({
      title: "",
      tasks: ["a", "b"],
      layers: ["l1", "l2", "l3"],
      values: history[1]!.values,
      history,
    }),
  },
]);

test("a page is one file that asks nobody for anything, and what it shows cannot end its script", () => {
  const own = page.replaceAll(/<script>.*?<\/script>/gs, "");
  expect(/<(script|link|img)[^>]*(src|href)=/.test(own)).toBe(false);
  expect(page.match(/<\/script>/g)).toHaveLength(2);
  expect(own).toContain("<h1>A &lt;merge&gt; &amp; &quot;more&quot;</h1>");
  expect(own).toContain('aria-label="Coefficients. Of two experts."');
});

describe.skipIf(!browser)("in a browser", () => {
  test("figures are drawn, with a slider, without an error", async () => {
    const path = join(folder, "page.html");
    await writeFile(
      path,
      page.replace(
        "<body>",
        "<body><script>addEventListener('error', (e) => document.body.append('FAI' + 'LED ' + e.message));</script>",
      ),
    );
    const { stdout } = await promisify(execFile)(
      browser!,
      [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        `--user-data-dir=${join(folder, "profile")}`,
        "--virtual-time-budget=5000",
        "--dump-dom",
        `file://${path}`,
      ],
      { maxBuffer: 1e8, timeout: 120_000 },
    );
    // Half a megabyte: what is found in it is compared, not all of it.
    expect(/FAILED .*/.exec(stdout)?.[0]).toBeUndefined();
    const drawn = stdout.replaceAll(/<script>.*?<\/script>/gs, "");
    expect(drawn.match(/<svg/g)).toHaveLength(2);
    expect(/<input type="range"[^>]*max="2"/.test(drawn)).toBe(true);
    expect(drawn.includes(">as written<")).toBe(true);
    // Six cells, each of which answers to the pointer.
    expect(
      drawn.match(/<path aria-label="[ab], l[123]: /g)?.length ??
        drawn.match(/<g class="mark-rect.*?<\/g>/s)?.[0].match(/<path/g)?.length,
    ).toBe(6);
  });
});
