// Drives the chat page in a real Chromium: takes commands as lines of JSON on
// standard input and answers each with a line of JSON.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [url, user, room] = process.argv.slice(2);
const require = createRequire(new URL("../../web/package.json", import.meta.url));
const { chromium } = require("playwright-core");

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
  ],
});
const page = await browser.newPage();
page.setDefaultTimeout(20_000);
page.on("pageerror", (error) => console.error("page:", error.message));

async function open() {
  for (;;) {
    try {
      await page.goto(url, { timeout: 5000 });
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 200)); // the server is down
    }
  }
}

const commands = {
  async enter() {
    await open();
    await page.fill("#name", user);
    await page.click("#enter button");
    await page.fill("#room", room);
    await page.click("#join button");
    await page.waitForSelector(`#log [data-offset]`);
  },
  async send({ text }) {
    await page.fill("#text", text);
    await page.click("#send");
  },
  // What the page shows: events, and texts that it has not been told are sent.
  lines: () =>
    page.evaluate(() => ({
      state: document.querySelector("#state").dataset.state,
      pending: [...document.querySelectorAll("#pending .text")].map((e) => e.textContent),
      entries: [...document.querySelectorAll("#log > li[data-kind]")].map((e) => ({
        kind: e.dataset.kind,
        offset: e.dataset.offset ?? "",
        sender: e.querySelector(".sender")?.textContent ?? "",
        text: e.querySelector(".text")?.textContent ?? "",
        replayed: e.classList.contains("replayed"),
      })),
    })),
  // A reload while the server is down shows the browser's error page, as to a
  // person, who tries again.
  async reload() {
    try {
      await page.reload({ timeout: 5000 });
    } catch {
      await open();
    }
  },
  toggle: () => page.click("#toggle"),
  close: () => browser.close(),
};

console.log(JSON.stringify({ ready: true }));
for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...args } = JSON.parse(line);
  try {
    console.log(JSON.stringify({ result: (await commands[command](args)) ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
  if (command === "close") break;
}
process.exit(0);
