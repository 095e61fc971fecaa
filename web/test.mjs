// Runs the unit tests: bundles test/*.test.ts, then node:test. Arguments go to
// node, as --test-name-pattern=drain.
import { build } from "esbuild";
import { spawnSync } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { common, root } from "./esbuild.mjs";

const out = await mkdtemp(join(tmpdir(), "reprise-web-test-"));
const names = (await readdir(join(root, "test"))).filter((name) => name.endsWith(".test.ts"));
await build({
  ...common,
  entryPoints: names.map((name) => join("test", name)),
  outdir: out,
  outExtension: { ".js": ".mjs" },
  platform: "node",
  target: "node20",
  sourcemap: "inline",
  write: true,
});
const files = names.map((name) => join(out, name.replace(/\.ts$/, ".mjs")));
const { status } = spawnSync(process.execPath, ["--enable-source-maps", "--test", ...process.argv.slice(2), ...files], { stdio: "inherit" });
await rm(out, { recursive: true });
process.exit(status ?? 1);
