// Take the picture of a study with its segmentation in OHIF, as a radiologist would open it.
//   npm install --no-save playwright-core
//   node deploy/ohif/screenshot.mjs URL_OF_VIEWER STUDY_INSTANCE_UID SLICE OUT.png
// Needs Debian's chromium; URL_OF_VIEWER is what viewer.py printed, SLICE how far to scroll from the first image.
import { chromium } from 'playwright-core';

const [viewer, study, slice, out] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader',
    '--ignore-gpu-blocklist', '--disable-background-networking', '--disable-component-update', '--disable-sync',
    '--no-first-run', '--disable-quic'],
});
const page = await browser.newPage({ viewport: { width: 1600, height: 1000 } });
const problems = new Set();
page.on('pageerror', error => problems.add(error.message));
page.on('console', message => message.type() === 'error' && problems.add(message.text()));
await page.goto(`${viewer}segmentation?StudyInstanceUIDs=${study}`, { waitUntil: 'domcontentloaded' });
const thumbnail = page.locator('[data-cy="study-browser-thumbnail-no-image"]').filter({ hasText: 'SEG' }).first();
await thumbnail.waitFor({ timeout: 120000 });
await page.waitForTimeout(20000); // the images of the series
await thumbnail.dblclick();
await page.getByText('Yes', { exact: true }).click({ timeout: 120000 });
await page.locator('[data-cy="data-row"]').first().waitFor({ timeout: 300000 });
await page.waitForTimeout(5000);
await page.mouse.move(770, 500);
for (let n = 0; n < Number(slice); n++) {
  await page.mouse.wheel(0, 100);
  await page.waitForTimeout(60);
}
await page.waitForTimeout(5000);
await page.screenshot({ path: out });
for (const problem of problems) console.error('page:', problem.slice(0, 300));
await browser.close();
