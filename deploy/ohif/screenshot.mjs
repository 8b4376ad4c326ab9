// Take the picture of a study with its segmentation in OHIF, as a radiologist would open it.
//   npm install --no-save playwright-core && node deploy/ohif/screenshot.mjs URL_OF_VIEWER STUDY_INSTANCE_UID OUT.png
// Needs Debian's chromium; URL_OF_VIEWER is what viewer.py printed.
import { chromium } from 'playwright-core';

const [viewer, study, out] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader', '--ignore-gpu-blocklist',
    '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run', '--disable-quic'],
});
const page = await browser.newPage({ viewport: { width: 1600, height: 1000 } });
const problems = [];
page.on('pageerror', error => problems.push(error.message));
page.on('console', message => message.type() === 'error' && problems.push(message.text()));
await page.goto(`${viewer}segmentation?StudyInstanceUIDs=${study}`, { waitUntil: 'domcontentloaded' });
const thumbnail = page.locator('[data-cy="study-browser-thumbnail-no-image"]').filter({ hasText: 'SEG' }).first();
await thumbnail.waitFor({ timeout: 120000 });
await page.waitForTimeout(8000);
await page.screenshot({ path: out.replace('.png', '-before.png') });
await thumbnail.dblclick();
await page.waitForTimeout(Number(process.env.WAIT_MS ?? 60000));
await page.screenshot({ path: out });
for (const problem of new Set(problems)) console.error('page:', problem.slice(0, 300));
await browser.close();
