// What the build and the tests tell esbuild alike.
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = dirname(fileURLToPath(import.meta.url));

export const common = {
  absWorkingDir: root,
  bundle: true,
  format: "esm",
  charset: "utf8",
  write: false,
  // The paths in tsconfig.json lead to declarations; these lead to code.
  tsconfigRaw: {},
  alias: { "#gen": join(root, "../gen/ts/reprise/v1") },
  // For the generated code, which has no node_modules above it.
  nodePaths: [join(root, "node_modules")],
};
