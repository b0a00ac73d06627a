// The page of the control API in a real browser: node page.mjs CHROMIUM ADDRESS TOKEN [PICTURE]. Ends with 1 when something is
// not as it should be. The deployment has an app `hello` with one worker, and others.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { Browser } from './browser.mjs';

const [program, address, token, picture] = process.argv.slice(2);
const browser = await Browser.start(program);
const card = (app) => `document.querySelector('article[data-app="${app}"]')`;
const rows = (app, state) => `[...${card(app)}.querySelectorAll('tr td.word')].filter((cell) => cell.textContent === '${state}').length`;
const button = (app, text) => `[...${card(app)}.querySelectorAll('button')].find((button) => button.textContent === '${text}')`;
const press = (app, text) => browser.value(`${button(app, text)}.click()`);
const says = (id, text) => `document.getElementById('${id}').innerText.includes(${JSON.stringify(text)})`;
const use = (text) => browser.value(`document.getElementById('token').value = ${JSON.stringify(text)};
  document.querySelector('#login button').click()`);

try {
  await browser.ask('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: 'light' }] });
  await browser.ask('Page.navigate', { url: address });
  await browser.until('the app with its worker', `${card('hello')} && ${rows('hello', 'ready')} === 1`);
  assert.match(await browser.value('document.title'), / - clusterd$/);

  // Without the token it shows, and changes nothing.
  for (const text of ['Reload', '+1', 'Restart', 'Stop']) assert.equal(await browser.value(`${button('hello', text)}.disabled`), true, text);
  await use('not-the-token');
  await browser.until('a refusal in words', says('trouble', 'the token is not valid'));
  await browser.until('that it reads on without', `document.getElementById('trouble').hidden && ${button('hello', 'Reload')}.disabled`);

  await use(token);
  await browser.until('an app that can be asked for something', `!${button('hello', 'Reload')}.disabled`);
  await press('hello', '+1');
  await browser.until('a second worker', `${rows('hello', 'ready')} === 2`);
  await press('hello', 'Reload');
  await browser.until('the second generation', `${card('hello')}.innerText.includes('generation 2')`);
  await browser.until('the end of the reload among the events', says('events', 'reload_done'));
  await press('hello', 'Output');
  await browser.until('what the app printed', says('lines', 'started <b>as text</b>'));
  assert.equal(await browser.value(`document.querySelectorAll('#lines b').length`), 0, 'text of an app is text');
  await browser.until('figures of the workers', `/[0-9] MB/.test(${card('hello')}.innerText)`);
  if (picture) {
    await browser.value(`document.getElementById('close').click()`);
    writeFileSync(picture, await browser.picture());
  }

  const back = `getComputedStyle(document.body).backgroundColor`;
  const light = await browser.value(back);
  await browser.ask('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: 'dark' }] });
  assert.notEqual(await browser.value(back), light, 'light and dark');

  // What is under the pointer or has the focus stays there while the page is shown again.
  await browser.value(`${button('hello', 'Reload')}.focus(); window.kept = ${button('hello', 'Output')}; dispatchEvent(new Event('pointerdown')); look()`);
  assert.equal(await browser.value(`window.kept.isConnected`), true);
  await browser.value(`dispatchEvent(new Event('pointerup')); look()`);
  await browser.until('another card', `!window.kept.isConnected`);
  assert.equal(await browser.value(`document.activeElement === ${button('hello', 'Reload')}`), true);

  // A question comes first, which is answered with yes here.
  await press('hello', 'Stop');
  await browser.until('a stopped app', `${card('hello')}.innerText.includes('stopped') && ${button('hello', 'Start')}`);
  await press('hello', 'Start');
  await browser.until('an app that serves again', `${rows('hello', 'ready')} > 0`);

  assert.deepEqual(browser.complaints, []);
  const elsewhere = browser.requests.filter((url) => !url.startsWith(address));
  assert.deepEqual(elsewhere, [], 'nothing comes from elsewhere');
} finally {
  await browser.end();
}
