// The browser that `CHROMIUM` names, which asks nobody for anything by itself.

import { chromium } from "playwright-core";

export function launch() {
  const args = ["--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-default-browser-check", "--no-first-run", "--disable-domain-reliability"];
  return chromium.launch({ executablePath: process.env.CHROMIUM, chromiumSandbox: process.getuid() !== 0, args });
}
