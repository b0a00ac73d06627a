// Prints LINES lines of 100 bytes once the file GO is there: LINES_PER_MS of them at a time, with a rest between, as a
// busy service does. Then it waits.
const fs = require('fs');
const { LINES, LINES_PER_MS, GO } = process.env;
const text = 'x'.repeat(90);
let printed = 0;
function print() {
  for (let n = 0; n < +LINES_PER_MS && printed < +LINES; n++) console.log(`${String(printed++).padStart(9)}${text}`);
  if (printed < +LINES) setTimeout(print, 1);
}
const wait = setInterval(() => {
  if (!fs.existsSync(GO)) return;
  clearInterval(wait);
  setInterval(() => {}, 1 << 30);
  print();
}, 20);
