// Take the picture of a study in OHIF, as a radiologist would open it: its segmentation, or its report for viewers.
//   npm install --no-save playwright-core
//   node deploy/ohif/screenshot.mjs SEG URL_OF_VIEWER STUDY_INSTANCE_UID OUT.png SLICE
//   node deploy/ohif/screenshot.mjs SR URL_OF_VIEWER STUDY_INSTANCE_UID OUT.png
// Needs Debian's chromium; URL_OF_VIEWER is what viewer.py printed, SLICE the number of an image. The report needs none: once
// taken over, its measurement brings its image with it.
import { chromium } from 'playwright-core';

const [kind, viewer, study, out, slice] = process.argv.slice(2);
const SERIES = { SEG: /SEG/, SR: /for viewers/ }[kind];
const MODE = { SEG: 'segmentation', SR: 'viewer' }[kind];
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
await page.goto(`${viewer}${MODE}?StudyInstanceUIDs=${study}`, { waitUntil: 'domcontentloaded' });
const thumbnail = page.locator('[data-cy="study-browser-thumbnail-no-image"]').filter({ hasText: SERIES }).first();
await thumbnail.waitFor({ timeout: 120000 });
await page.waitForTimeout(20000); // the images of the series
await page.getByText('Skip all', { exact: true }).click({ timeout: 5000 }).catch(() => {}); // the tour, where there is one
await thumbnail.dblclick();
await page.getByText('Yes', { exact: true }).click({ timeout: 120000 });
if (kind === 'SEG') {
  await page.locator('[data-cy="data-row"]').first().waitFor({ timeout: 300000 });
  await page.waitForTimeout(5000);
  await page.mouse.move(600, 500);
  for (let tries = 0, at; at !== Number(slice) && tries < 500; tries++) {
    at = Number((await page.locator('body').innerText()).match(/I:\s*(\d+)/)?.[1]);
    if (at !== Number(slice)) await page.mouse.wheel(0, at < Number(slice) ? 100 : -100);
    await page.waitForTimeout(100);
  }
}
await page.waitForTimeout(8000);
await page.screenshot({ path: out });
for (const problem of problems) console.error('page:', problem.slice(0, 300));
await browser.close();
