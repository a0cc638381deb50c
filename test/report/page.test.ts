import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { coefficientMapHtml, mapData, mapScript } from "../../src/report/coefficient-map.js";
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
  /** The page as a browser has it when its scripts and `then` have run; an error is in it as FAILED. */
  async function opened(html: string, then = ""): Promise<string> {
    const path = join(folder, "page.html");
    const told = "addEventListener('error', (e) => document.body.append('FAI' + 'LED ' + e.message));";
    await writeFile(
      path,
      html
        .replace("<body>", `<body><script>${told}</script>`)
        .replace("</body>", `<script>${then}</script></body>`),
    );
    const profile = `--user-data-dir=${join(folder, "profile")}`;
    const plain = ["--headless", "--no-sandbox", "--disable-gpu", profile, "--virtual-time-budget=5000"];
    const { stdout } = await promisify(execFile)(browser!, [...plain, "--dump-dom", `file://${path}`], {
      maxBuffer: 1e8,
      timeout: 120_000,
    });
    // Half a megabyte: what is found in it is compared, not all of it.
    expect(/FAILED .*/.exec(stdout)?.[0]).toBeUndefined();
    return stdout.replaceAll(/<script>.*?<\/script>/gs, "");
  }

  test("figures are drawn, with a slider, without an error", async () => {
    const drawn = await opened(page);
    expect(drawn.match(/<svg/g)).toHaveLength(2);
    expect(/<input type="range"[^>]*max="2"/.test(drawn)).toBe(true);
    expect(drawn.includes(">as written<")).toBe(true);
    // Six cells, each of which answers to the pointer.
    expect(
      drawn.match(/<path aria-label="[ab], l[123]: /g)?.length ??
        drawn.match(/<g class="mark-rect.*?<\/g>/s)?.[0].match(/<path/g)?.length,
    ).toBe(6);
  });

  test("the map of coefficients answers to the pointer, to keys and to the slider", async () => {
    const map = {
      tasks: ["rte", "cb"],
      layers: ["layers.0.q", "layers.0.k", "layers.1.q", "layers.1.k", "head"],
      shots: [
        {
          step: 0,
          values: [
            [0.1, 0.2],
            [0.3, 0.4],
            [0.5, 0.6],
            [0.7, -0.8],
            [0.9, 1],
          ],
        },
        {
          step: "as written",
          values: [
            [0.5, 0.2],
            [-0.25, 0.4],
            [0.5, 0.6],
            [0.7, 0.8],
            [0.9, 1],
          ],
        },
      ],
    };
    const html = await pageHtml("map", "", [
      {
        title: "Coefficients",
        html: coefficientMapHtml(map),
        script: `const mapData = ${mapData(map)};${mapScript}`,
      },
    ]);
    const then = `
      const told = () => document.querySelector(".told").textContent;
      const said = [];
      const cell = (c) => document.querySelector('td[data-c="' + c + '"]');
      const key = (name) => document.activeElement.dispatchEvent(
        new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));
      cell(0).dispatchEvent(new PointerEvent("pointerover", { bubbles: true })); said.push(told());
      cell(0).focus(); key("ArrowRight"); said.push(told());
      key("ArrowDown"); said.push(told());
      key("ArrowDown"); said.push(told());
      said.push(cell(2).className + " " + cell(2).style.getPropertyValue("--v"));
      const slider = document.querySelector(".maps input");
      slider.value = 0; slider.dispatchEvent(new Event("input")); said.push(told());
      said.push(document.querySelector(".maps output").textContent + " " + cell(2).className + "|" + cell(7).className);
      document.body.append("SAID " + said.join("; ") + " END");`;
    const drawn = await opened(html, then);
    expect(/SAID (.*) END/.exec(drawn)?.[1]).toBe(
      "rte, layers.0.q: 0.500; rte, layers.0.k: -0.250; rte, layers.1.k: 0.700; rte, layers.1.k: 0.700; minus 25%; " +
        "rte, layers.1.k: 0.700; step 0 |minus",
    );
  });
});
