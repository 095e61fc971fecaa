// Builds web/dist: hashed assets and the page that names them. The output
// depends on the sources and the lock file only.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";

import { common, root } from "./esbuild.mjs";

const dist = process.argv[2] ?? join(root, "dist");

const result = await build({
  ...common,
  entryPoints: ["app/main.ts", "app/style.css"],
  outdir: "dist/assets",
  entryNames: "[name]-[hash]",
  minify: true,
  target: ["chrome111", "firefox113", "safari16.4"],
  legalComments: "none",
  banner: {
    js: "/* Reprise, Apache-2.0. Contains connect-es, Copyright The Connect Authors, and protobuf-es, Copyright Buf Technologies, both Apache-2.0. */",
  },
});

const icon = await readFile(join(root, "app/icon.svg"));
const iconName = `icon-${createHash("sha256").update(icon).digest("hex").slice(0, 8).toUpperCase()}.svg`;

await rm(dist, { recursive: true, force: true });
await mkdir(join(dist, "assets"), { recursive: true });
await writeFile(join(dist, "assets", iconName), icon);
const names = { icon: `/assets/${iconName}`, script: "", style: "" };
for (const file of result.outputFiles) {
  const name = basename(file.path);
  await writeFile(join(dist, "assets", name), file.contents);
  if (name.endsWith(".js")) names.script = `/assets/${name}`;
  if (name.endsWith(".css")) names.style = `/assets/${name}`;
}
const page = await readFile(join(root, "app/index.html"), "utf8");
await writeFile(
  join(dist, "index.html"),
  page.replace(/{{(icon|script|style)}}/g, (_, name) => names[name]),
);
